# SPDX-License-Identifier: Apache-2.0
"""The bars that the kernels were built against, and whether a run meets them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.results import Results, amount, table
from benchmarks.workload import Size

LARGE, SINGLE = Size(16, 500), Size(1, 1)
Figure = Callable[[Results], float | None]


@dataclass(frozen=True)
class Bar:
    """One bar.

    Attributes:
        text: what is asked.
        wanted: the bar itself.
        figure: what the run measured, None where a contender is missing.
        most: whether the figure may be at most ``wanted``; otherwise at least.
        unit: of both.
        needed: whether every whole run measures it.
    """

    text: str
    wanted: float
    figure: Figure
    most: bool = False
    unit: str = "x"
    needed: bool = True

    def met(self, measured: float | None) -> bool | None:
        if measured is None:
            return None
        return measured <= self.wanted if self.most else measured >= self.wanted


def speed(op: str, size: Size, other: str, own: str = "kernels") -> Figure:
    """How many times as fast as another contender; both were paired with the same reference."""

    def figure(results: Results) -> float | None:
        ours, theirs = (results.row(op, size.name, name) for name in (own, other))
        return ours["ratio"] / theirs["ratio"] if ours and theirs else None

    return figure


def against_eager(op: str, size: Size) -> Figure:
    """Ratio of the row itself, the median of its own pairs."""

    def figure(results: Results) -> float | None:
        row = results.row(op, size.name, "kernels")
        return row["ratio"] if row else None

    return figure


def value(op: str, size: Size, name: str, scale: float = 1.0) -> Figure:
    """One field of our row."""

    def figure(results: Results) -> float | None:
        row = results.row(op, size.name, "kernels")
        return row[name] * scale if row else None

    return figure


def memory_share(results: Results) -> float | None:
    """Peak extra memory of forward and backward over that of the eager form."""
    rows = (results.row("forward+backward", LARGE.name, name) for name in ("kernels", "eager"))
    ours, theirs = (row and row["remarks"].get("peak_extra_bytes") for row in rows)
    return ours / theirs if ours and theirs else None


def packing(op: str) -> Figure:
    """Gigabytes of int32 tokens a second, of the faster of our two entries."""

    def figure(results: Results) -> float | None:
        rates = [
            row["units_per_second"] * 4 / 1e9
            for row in results.rows
            if row["op"] == op and "15 bits" in row["size"] and row["contender"] != "numpy"
        ]
        return max(rates, default=None)

    return figure


BARS = (
    Bar("encode, N=8000: times as fast as eager", 40, against_eager("encode", LARGE)),
    Bar("encode, N=8000: times the best compiled", 10, speed("encode", LARGE, "compiled")),
    Bar("encode, N=8000: times eager code space", 2, speed("encode", LARGE, "codespace")),
    Bar("encode, N=8000: share of the floor", 60, value("encode", LARGE, "floor_share", 100),
        unit="%"),
    Bar("encode, N=1: time of a call", 10, value("encode", SINGLE, "seconds", 1e6), most=True,
        unit="us"),
    Bar("encode, N=1: times as fast as eager", 40, against_eager("encode", SINGLE)),
    Bar("forward, N=8000: times as fast as eager", 20, against_eager("forward", LARGE)),
    Bar("forward + backward, N=8000: times as fast as eager", 10,
        against_eager("forward+backward", LARGE)),
    Bar("forward + backward, N=8000: peak extra memory over eager", 0.2, memory_share, most=True,
        needed=False),
    Bar("decode, N=8000: times as fast as eager", 10, against_eager("decode", LARGE)),
    Bar("pack_bits: tokens", 1, packing("pack_bits"), unit="GB/s"),
    Bar("unpack_bits: tokens", 1, packing("unpack_bits"), unit="GB/s"),
)  # fmt: skip


def bars_table(results: Results) -> str:
    """Bar, measured, met."""
    lines = []
    for bar in BARS:
        measured = bar.figure(results)
        met = {True: "yes", False: "**no**", None: "not measured"}[bar.met(measured)]
        lines.append(
            (
                bar.text,
                f"{'at most' if bar.most else 'at least'} {bar.wanted:g} {bar.unit}",
                "-" if measured is None else f"{amount(measured)} {bar.unit}",
                met,
            )
        )
    return table(("bar", "wanted", "measured", "met"), lines)
