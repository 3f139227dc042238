# SPDX-License-Identifier: Apache-2.0
"""Command: training curves of a run as one picture.

    python -m affectcodec.training.curves runs/stream --out docs/images/training.png

It shows the figures of the averaged weights on the dev split, one line a stage count.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

PANELS = (
    ("raw_mel", "log-mel distance (nats)"),
    ("raw_envelope", "1 - envelope correlation"),
    ("raw_loudness", "loudness disturbance"),
    ("f0_gross_error", "F0 off by more than 300 cents"),
    ("voicing_error", "voicing error"),
    ("raw_energy", "log energy error (nats)"),
)


def read_dev_figures(run: str | Path) -> list[dict[str, float]]:
    """Figures of the averaged weights on dev crops, one dictionary an evaluation.

    Raises:
        ValueError: if the run has none.
    """
    path = Path(run) / "dev.jsonl"
    if not path.is_file():
        raise ValueError(f"run: no dev figures in {path}; train with a dev split")
    by_step = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        by_step[record["step"]] = record  # a resumed run may repeat a step: the last one counts
    return [by_step[step] for step in sorted(by_step)]


def plot(run: str | Path, out: str | Path) -> None:
    """Draw the panels over training time, one line a stage count."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figures = read_dev_figures(run)
    hours = [record["seconds"] / 3600 for record in figures]
    fig, axes = plt.subplots(2, 3, figsize=(11, 5.5), sharex=True, constrained_layout=True)
    for axis, (name, title) in zip(axes.flat, PANELS, strict=True):
        for stages in (1, 2, 4, 8):
            key = f"{name}/stages_{stages}"
            values = [record.get(key, float("nan")) for record in figures]
            axis.plot(hours, values, label=f"{0.75 * stages:g} kbit/s")
        axis.set_title(title, fontsize=10)
        axis.grid(alpha=0.3)
    axes[0, 0].legend(fontsize=8)
    for axis in axes[1]:
        axis.set_xlabel("hours of training")
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(out, dpi=110)
    plt.close(fig)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="python -m affectcodec.training.curves", description=(__doc__ or "").strip()
    )
    parser.add_argument("run", help="run folder")
    parser.add_argument("--out", required=True, help="picture to write (png, svg, pdf)")
    args = parser.parse_args(argv)
    plot(args.run, args.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
