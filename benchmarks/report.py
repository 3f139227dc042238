# SPDX-License-Identifier: Apache-2.0
"""Command: figures of a benchmark run as tables and plots in the documentation.

    python -m benchmarks.report .benchmarks/results.json
    python -m benchmarks.report .benchmarks/results.json --save-baseline

It prints the table of bars, rewrites what stands between ``<!-- bench:NAME -->`` and
``<!-- /bench -->`` in ``docs/performance.md`` and ``README.md``, and draws
``docs/images/performance-*.png``. With ``--save-baseline`` it also writes the relative costs that
``--benchmark-compare`` reads.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import results as results_module
from benchmarks.bars import BARS, LARGE, bars_table
from benchmarks.results import Results, amount, group_table, table

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("docs/performance.md", "README.md")
IMAGES = "docs/images"
BASELINE = "benchmarks/baseline/relative.json"
REGION = re.compile(r"(<!-- bench:(\w+) -->\n)(.*?)(<!-- /bench -->)", re.DOTALL)
PLOTS = {
    "performance-contenders.png": "time a frame of every contender",
    "performance-sizes.png": "time of encoding over the number of frames",
}
OPS = ("encode", "forward", "forward+backward", "decode")
COLOURS = {"kernels": "#0b6e8f", "eager": "#c2500a"}
OTHER = "#9aa5ae"


def machine_text(results: Results) -> str:
    """What the run was made on, as a list."""
    machine = results.machine
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    caches = ", ".join(f"{name} {size}" for name, size in machine["caches"].items())
    lines = [
        f"- processor: {machine['processor']}, {machine['cores']} cores"
        + (f"; {caches}" if caches else ""),
        f"- kernels: {machine['kernels']}; torch uses {machine['torch_capability']}",
        f"- {machine['system']}, Python {machine['python']}, {packages}",
        f"- load of the machine at the start: {machine['load_at_start']}; "
        f"the run took {results.seconds / 60:.0f} minutes",
        f"- {machine['date']}, revision {machine['revision'] or 'unknown'}: `{results.command}`",
    ]
    return "\n".join(lines)


def floors_text(results: Results) -> str:
    """Measured rates of the machine."""
    rows = []
    for floor in results.floors:
        shape = " x ".join(str(size) for size in floor["mm_shape"])
        rows.append(
            (
                str(floor["threads"]),
                f"{floor['copy_bytes_per_second'] / 1e9:.1f} GB/s",
                f"{floor['mm_flops_per_second'] / 1e9:.0f} GFLOP/s",
                shape,
                ", ".join(f"{s}: {rate / 1e9:.0f}" for s, rate in floor["mm_rates"].items()),
            )
        )
    header = ("threads", "copy", "`torch.mm`", "its shape", "all shapes, GFLOP/s")
    return table(header, rows)


def tables_text(results: Results) -> str:
    """The plots, and one table a group."""
    parts = [f"![{text}](images/{name})" for name, text in PLOTS.items()]
    for op, size in results.groups():
        row = next(r for r in results.rows if (r["op"], r["size"]) == (op, size))
        work = f"{row['bytes_per_unit']:,.4g} bytes"
        if row["flops_per_unit"]:
            work += f" and {row['flops_per_unit']:,.0f} flops"
        heading = f"### {op}, {size}\n\n{work} a {row['unit']}."
        parts.append(f"{heading}\n\n{group_table(results, op, size)}")
    return "\n\n".join(parts)


def memory_text(results: Results) -> str:
    """Peak extra memory of forward and backward."""
    rows = []
    for row in results.rows:
        peak = row["remarks"].get("peak_extra_bytes")
        if peak is None:
            continue
        eager = results.row(row["op"], row["size"], row["reference"])
        of = eager and eager["remarks"].get("peak_extra_bytes")
        share = f"{peak / of:.3f}" if of else "-"
        rows.append((row["size"], row["label"], f"{peak / 2**20:,.0f} MiB", share))
    if not rows:
        return "Not measured: the system does not tell the high-water mark of a process."
    return table(("size", "contender", "peak extra memory", "of eager"), rows)


def summary_text(results: Results) -> str:
    """The few figures that the front page shows."""
    rows = []
    for op in OPS:
        ours = results.row(op, LARGE.name, "kernels")
        eager = results.row(op, LARGE.name, "eager")
        compiled = results.row(op, LARGE.name, "compiled")
        if ours is None or eager is None:
            continue
        rows.append(
            (
                op.replace("+", " + "),
                f"{amount(ours['seconds_per_unit'] * 1e6)} us",
                amount(ours["ratio"]),
                amount(ours["ratio"] / compiled["ratio"]) if compiled else "-",
                amount(ours["units_per_second"]),
            )
        )
    header = ("", "a frame", "times eager", "times `torch.compile`", "frames/s")
    return table(header, rows)


SECTIONS: dict[str, Callable[[Results], str]] = {
    "machine": machine_text,
    "bars": bars_table,
    "floors": floors_text,
    "memory": memory_text,
    "tables": tables_text,
    "summary": summary_text,
}


def check_whole(results: Results) -> None:
    """A page or a baseline is made of a whole run only.

    Raises:
        ValueError: on a run of tiny sizes, or of a selection.
    """
    if results.smoke:
        raise ValueError("results: a --smoke run has no figures; run `make bench`")
    # Memory is left out: some systems do not tell it.
    missing = [bar.text for bar in BARS if bar.needed and bar.figure(results) is None]
    if missing:
        raise ValueError(
            f"results: a selection of the benchmarks, nothing written; not measured: {missing}. "
            "Run all of them (`make bench`), or see the bars alone with --bars-only"
        )


def rewrite(text: str, results: Results) -> str:
    """``text`` with every marked region replaced.

    Raises:
        ValueError: on a region that nobody writes.
    """

    def replaced(match: re.Match[str]) -> str:
        name = match.group(2)
        if name not in SECTIONS:
            raise ValueError(f"no section {name!r}; known ones are {list(SECTIONS)}")
        return f"{match.group(1)}{SECTIONS[name](results)}\n{match.group(4)}"

    return REGION.sub(replaced, text)


def plot_contenders(results: Results, path: Path) -> None:
    """Time a frame of every contender, one panel an operator, on a logarithmic axis."""
    plt = _pyplot()
    fig, axes = plt.subplots(2, 2, figsize=(12, 7.5), constrained_layout=True)
    for axis, op in zip(axes.flat, OPS, strict=True):
        rows = [r for r in results.rows if (r["op"], r["size"]) == (op, LARGE.name)]
        rows.sort(key=lambda row: -row["seconds_per_unit"])
        times = [row["seconds_per_unit"] * 1e6 for row in rows]
        colours = [COLOURS.get(row["contender"].split("-")[0], OTHER) for row in rows]
        bars = axis.barh([row["label"] for row in rows], times, color=colours)
        axis.bar_label(bars, [f"{amount(time)} us" for time in times], padding=3, fontsize=8)
        axis.set_xscale("log")
        axis.margins(x=0.18)
        axis.set_title(f"{op}, {LARGE.name}", fontsize=10)
        axis.set_xlabel("us a frame")
        axis.tick_params(axis="y", labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    _save(fig, path)


def plot_sizes(results: Results, path: Path) -> None:
    """Time of a call of ``encode`` over the number of frames."""
    plt = _pyplot()
    fig, axis = plt.subplots(figsize=(8, 5), constrained_layout=True)
    by_label: dict[str, list[dict[str, Any]]] = {}
    for row in results.rows:
        whole = not row["remarks"].get("part")
        if row["op"] == "encode" and row["size"].endswith("[B, D, T]") and whole:
            by_label.setdefault(row["label"], []).append(row)
    for label, rows in by_label.items():
        if len(rows) < 2:
            continue
        name = rows[0]["contender"]
        style = {"color": COLOURS[name], "linewidth": 2.5} if name in COLOURS else {}
        rows.sort(key=lambda row: row["units"])
        times = [row["seconds"] * 1e6 for row in rows]
        axis.plot([row["units"] for row in rows], times, marker="o", label=label, **style)
    axis.set(xscale="log", yscale="log", xlabel="frames a call", ylabel="us a call")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    _save(fig, path)


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    return plt


def _save(fig: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(path, dpi=110)
    _pyplot().close(fig)


def save_baseline(results: Results, path: Path) -> None:
    """Relative costs of a full run, for ``--benchmark-compare``."""
    names = {
        (row["group"], row["contender"]): row["remarks"]["test"]
        for row in results.rows
        if "test" in row["remarks"]
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(results_module.baseline(results, names), indent=1)
    path.write_text(text + "\n", encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("results", help="JSON of a run, as pytest --results=PATH writes it")
    parser.add_argument("--root", type=Path, default=ROOT, help="folder of README.md and docs/")
    parser.add_argument(
        "--bars-only", action="store_true", help="print the table of bars, write nothing"
    )
    parser.add_argument("--save-baseline", action="store_true", help=f"write {BASELINE} as well")
    args = parser.parse_args(argv)
    try:
        results = Results.read(args.results)
        if args.save_baseline or not args.bars_only:
            check_whole(results)
        if not args.bars_only:
            for page in PAGES:
                path = args.root / page
                path.write_text(rewrite(path.read_text("utf-8"), results), encoding="utf-8")
            for name, plot in zip(PLOTS, (plot_contenders, plot_sizes), strict=True):
                plot(results, args.root / IMAGES / name)
        if args.save_baseline:
            save_baseline(results, args.root / BASELINE)
    except ValueError as error:
        print(f"python -m benchmarks.report: {error}", file=sys.stderr)
        return 2
    print(bars_table(results))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
