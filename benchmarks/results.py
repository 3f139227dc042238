# SPDX-License-Identifier: Apache-2.0
"""Results of a run as JSON, and the baseline that later runs are compared with."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.contest import Row
from benchmarks.floors import Floor

FORMAT = 1
# Of the reference itself there is nothing to compare: its cost is 1.
BASELINE_FIELDS = ("min", "max", "mean", "stddev", "rounds", "median", "iqr", "q1", "q3", "ops")


@dataclass(frozen=True)
class Results:
    """One run: ``machine`` as ``benchmarks.machine.describe`` makes it."""

    machine: dict[str, Any]
    command: str
    seconds: float
    floors: list[dict[str, Any]]
    rows: list[dict[str, Any]]
    smoke: bool = False

    @classmethod
    def of(
        cls,
        machine: dict[str, Any],
        command: str,
        seconds: float,
        floors: Iterable[Floor],
        rows: Iterable[Row],
        smoke: bool,
    ) -> Results:
        measured = [{**asdict(floor), "mm_shape": list(floor.mm_shape)} for floor in floors]
        return cls(machine, command, seconds, measured, [row.to_dict() for row in rows], smoke)

    def row(self, op: str, size: str, contender: str) -> dict[str, Any] | None:
        """The row of one contender, None where it did not take part."""
        for row in self.rows:
            if (row["op"], row["size"], row["contender"]) == (op, size, contender):
                return row
        return None

    def groups(self) -> list[tuple[str, str]]:
        """Operators and sizes in the order of the run."""
        return list(dict.fromkeys((row["op"], row["size"]) for row in self.rows))

    def write(self, path: str | Path) -> None:
        """Write as JSON, whole or not at all."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(path.name + ".part")
        text = json.dumps({"format": FORMAT, **asdict(self)}, indent=1)
        draft.write_text(text + "\n", encoding="utf-8")
        draft.replace(path)

    @classmethod
    def read(cls, path: str | Path) -> Results:
        """Read what ``write`` wrote.

        Raises:
            ValueError: if the file is none of ours.
        """
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
            if data.pop("format") != FORMAT:
                raise ValueError("another format")
            return cls(**data)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"path: {path} is no result of a benchmark run ({error}); `make bench` writes one"
            ) from error


def baseline(results: Results, names: dict[tuple[str, str], str]) -> dict[str, Any]:
    """Relative costs in the form that ``--benchmark-compare`` reads.

    Args:
        results: of a full run.
        names: full name of the test of each (group, contender).

    A cost is the time a frame over that of the reference of the group in the same round, so it
    says the same on a slow and on a fast machine of one kind.
    """
    from pytest_benchmark.stats import Stats

    found = []
    for row in results.rows:
        full = names.get((row["group"], row["contender"]))
        if full is None or row["contender"] == row["reference"]:
            continue
        stats = Stats()
        for cost in row["costs"]:
            stats.update(cost)
        found.append(
            {
                "group": row["group"],
                "name": full.rpartition("::")[2],
                "fullname": full,
                "params": None,
                "param": None,
                "extra_info": {"unit": f"of the time of {row['reference']!r}"},
                "options": {},
                "stats": {
                    **{name: getattr(stats, name) for name in BASELINE_FIELDS},
                    "outliers": stats.outliers,
                    "iterations": 1,
                },
            }
        )
    return {
        "machine_info": results.machine,
        "commit_info": {"id": results.machine.get("revision")},
        "benchmarks": found,
        "datetime": results.machine.get("date"),
        "version": "relative",
    }


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, aligned so that it reads on a terminal as well."""
    lines = [list(header), *(list(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    text = [
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in lines
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([text[0], rule, *text[1:]])


def amount(value: float, digits: int = 3) -> str:
    """A number with so many significant digits and no exponent."""
    if value == 0 or value != value or value in (float("inf"), float("-inf")):
        return f"{value:g}"
    text = f"{value:.{digits}g}"
    return f"{float(text):,.0f}" if "e" in text or abs(value) >= 1000 else text


def group_table(results: Results, op: str, size: str) -> str:
    """Rows of one group."""
    rows = [row for row in results.rows if (row["op"], row["size"]) == (op, size)]
    unit = rows[0]["unit"]
    header = (
        "contender",
        "time of a call",
        f"ns a {unit}",
        f"ratio to {rows[0]['reference']}",
        f"{unit}s/s",
        "share of the floor",
        "form",
    )
    return table(header, [_cells(row) for row in rows])


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    seconds = row["seconds"]
    scale, name = next(
        (s, n) for s, n in ((1, "s"), (1e3, "ms"), (1e6, "us")) if seconds * s >= 1 or n == "us"
    )
    threads = f"{row['threads']} thread{'s' * (row['threads'] > 1)}"
    part = f", on {row['units']} {row['unit']}s" if row["remarks"].get("part") else ""
    return (
        row["label"] + part,
        f"{amount(seconds * scale)} {name}",
        amount(row["seconds_per_unit"] * 1e9),
        f"{amount(row['ratio'])} ± {50 * row['spread']:.0f} %",
        amount(row["units_per_second"]),
        f"{100 * row['floor_share']:.3g} %",
        f"{row['variant']}, {threads}",
    )
