# SPDX-License-Identifier: Apache-2.0
"""Charts as SVG and HTML text: curves over the bit rate, bars, matrices, heat maps.

Colours are CSS classes (`s0` to `s7`) and variables of the page, so that they follow its light or
dark setting; every mark carries its value as a tooltip.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 460, 290
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 14, 38
NUM_COLOURS = 8


@dataclass(frozen=True)
class Point:
    """One codec in a chart: rate in kbit/s, value, interval (NaN: none)."""

    name: str
    kbps: float
    value: float
    low: float
    high: float


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round values that cover low..high, about `count` of them."""
    if not math.isfinite(low) or not math.isfinite(high) or high <= low:
        return [low] if math.isfinite(low) else [0.0]
    raw = (high - low) / max(count - 1, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first = math.floor(low / step + 1e-9) * step
    ticks = [first]
    while ticks[-1] < high - 1e-9 * step:
        ticks.append(ticks[-1] + step)
    return [round(tick, 10) for tick in ticks]


def curves(
    title: str,
    series: Mapping[str, Sequence[Point]],
    colours: Mapping[str, int],
    *,
    reference: float | None = None,
    better: int = 1,
) -> str:
    """Values over the bit rate (logarithmic), one line a family, with intervals.

    Args:
        series: family -> its points; those without a finite value or rate are left out.
        colours: family -> index of its colour.
        reference: value of the original, drawn as a dashed line.
        better: +1 or -1, said beside the title; 0 says nothing.
    """
    series = {
        family: sorted(
            (p for p in points if math.isfinite(p.value) and math.isfinite(p.kbps) and p.kbps > 0),
            key=lambda point: point.kbps,
        )
        for family, points in series.items()
    }
    points = [point for some in series.values() for point in some]
    if not points:
        return ""
    ends = [v for p in points for v in (p.value, p.low, p.high) if math.isfinite(v)]
    ends += [reference] if reference is not None and math.isfinite(reference) else []
    ticks = nice_ticks(min(ends), max(ends))
    bottom, top = ticks[0], max(ticks[-1], ticks[0] + 1e-9)
    rates = [point.kbps for point in points]
    first, last = math.log2(min(rates)) - 0.25, math.log2(max(rates)) + 0.25

    def x(kbps: float) -> float:
        return _LEFT + (math.log2(kbps) - first) / (last - first) * (WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return HEIGHT - _BOTTOM - (value - bottom) / (top - bottom) * (HEIGHT - _TOP - _BOTTOM)

    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)} over kbit/s">'
    ]
    for tick in ticks:
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y(tick):.1f}" '
            f'y2="{y(tick):.1f}"/><text class="tick" x="{_LEFT - 7}" y="{y(tick) + 4:.1f}" '
            f'text-anchor="end">{tick:g}</text>'
        )
    for rate in (0.5, 0.75, 1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24):
        if first <= math.log2(rate) <= last:
            parts.append(
                f'<text class="tick" x="{x(rate):.1f}" y="{HEIGHT - _BOTTOM + 17}" '
                f'text-anchor="middle">{rate:g}</text>'
            )
    parts.append(
        f'<text class="tick" x="{(WIDTH + _LEFT) / 2:.0f}" y="{HEIGHT - 5}" '
        'text-anchor="middle">kbit/s used</text>'
    )
    if reference is not None and math.isfinite(reference):
        parts.append(
            f'<line class="reference" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y(reference):.1f}" '
            f'y2="{y(reference):.1f}"><title>original {reference:.3f}</title></line>'
        )
    for family, some in series.items():
        if not some:
            continue
        colour = f"s{colours.get(family, 0) % NUM_COLOURS}"
        path = " L".join(f"{x(p.kbps):.1f} {y(p.value):.1f}" for p in some)
        parts.append(f'<path class="line {colour}" d="M{path}"/>')
        for p in some:
            label = f"{p.name}: {p.value:.3f}"
            if math.isfinite(p.low) and math.isfinite(p.high):
                label += f" [{p.low:.3f}, {p.high:.3f}]"
                parts.append(
                    f'<line class="bar {colour}" x1="{x(p.kbps):.1f}" x2="{x(p.kbps):.1f}" '
                    f'y1="{y(p.low):.1f}" y2="{y(p.high):.1f}"/>'
                )
            parts.append(
                f'<circle class="dot {colour}" cx="{x(p.kbps):.1f}" cy="{y(p.value):.1f}" r="4.5">'
                f"<title>{escape(label)} at {p.kbps:.2f} kbit/s</title></circle>"
            )
    parts.append("</svg>")
    direction = {1: "higher is better", -1: "lower is better"}.get(better, "")
    return (
        f'<figure class="chart"><figcaption><b>{escape(title)}</b> '
        f'<span class="soft">{direction}</span></figcaption>{"".join(parts)}</figure>'
    )


def legend(families: Sequence[str], colours: Mapping[str, int]) -> str:
    """Names beside their colours."""
    items = "".join(
        f'<span><i class="s{colours[family] % NUM_COLOURS}"></i>{escape(family)}</span>'
        for family in families
    )
    return f'<p class="legend">{items}<span><i class="dash"></i>original</span></p>'


def class_bars(
    rows: Sequence[tuple[str, Mapping[str, Mapping[str, float]]]], classes: Sequence[str]
) -> str:
    """Recall by class: a group of horizontal bars a class, one bar a codec, with intervals.

    Args:
        rows: (codec, class -> {"mean", "low", "high"}).
    """
    parts = ['<div class="bars">']
    for emotion in classes:
        parts.append(f'<div class="name">{escape(emotion)}</div><div class="group">')
        for index, (name, recall) in enumerate(rows):
            entry = recall[emotion]
            mean, low, high = (_finite(entry[key]) for key in ("mean", "low", "high"))
            tip = f"{name}: {mean:.2f} [{low:.2f}, {high:.2f}]"
            parts.append(
                f'<div class="track" title="{escape(tip)}">'
                f'<div class="fill s{index % NUM_COLOURS}" style="width:{100 * mean:.1f}%"></div>'
                f'<div class="range" style="left:{100 * low:.1f}%;'
                f'width:{100 * max(high - low, 0):.1f}%"></div></div>'
            )
        parts.append("</div>")
    keys = "".join(
        f'<span><i class="s{index % NUM_COLOURS}"></i>{escape(name)}</span>'
        for index, (name, _) in enumerate(rows)
    )
    return "".join(parts) + f'</div><p class="legend">{keys}</p>'


def matrix(title: str, counts: Sequence[Sequence[float]], names: Sequence[str]) -> str:
    """Confusion matrix, rows the truth, shaded by the share of the row."""
    head = "".join(f"<th>{escape(name[:4])}</th>" for name in names)
    lines = []
    for name, row in zip(names, counts, strict=True):
        total = sum(row)
        cells = "".join(
            f'<td style="--v:{(value / total if total else 0):.3f}" '
            f'title="{value:g} of {total:g}">{100 * value / total if total else 0:.0f}</td>'
            for value in row
        )
        lines.append(f"<tr><th>{escape(name)}</th>{cells}</tr>")
    return (
        f'<figure class="matrix"><figcaption>{escape(title)}</figcaption><table>'
        f"<tr><th></th>{head}</tr>{''.join(lines)}</table></figure>"
    )


def heat_map(title: str, values: Sequence[Sequence[float]], row: str, column: str) -> str:
    """Values in 0..1 as shaded cells, numbered from 1 (rows) and 0 (columns)."""
    width = max((len(line) for line in values), default=0)
    head = "".join(f"<th>{column} {i}</th>" for i in range(width))
    lines = "".join(
        f"<tr><th>{row} {number}</th>"
        + "".join(f'<td style="--v:{value:.3f}">{value:.2f}</td>' for value in line)
        + "</tr>"
        for number, line in enumerate(values, start=1)
    )
    return (
        f'<figure class="matrix"><figcaption>{escape(title)}</figcaption><table>'
        f"<tr><th></th>{head}</tr>{lines}</table></figure>"
    )


def _finite(value: float | None) -> float:
    return 0.0 if value is None or math.isnan(value) else min(max(value, 0.0), 1.0)
