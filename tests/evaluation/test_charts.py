# SPDX-License-Identifier: Apache-2.0
"""Charts hold their values, and text cannot break out of them."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree

import pytest

from affectcodec.evaluation.charts import Point, class_bars, curves, heat_map, matrix, nice_ticks

SERIES = {
    "ours": [Point("ours:3", 3.0, 0.9, 0.85, 0.95), Point("ours:1.5", 1.5, 0.8, 0.7, 0.9)],
    "other": [Point("other:6", 6.0, 0.7, math.nan, math.nan)],
    "broken": [Point("broken:1", 1.0, math.nan, math.nan, math.nan)],
}
COLOURS = {"ours": 0, "other": 1, "broken": 2}


def svg(text: str) -> ElementTree.Element:
    return ElementTree.fromstring(re.search(r"<svg.*?</svg>", text, re.DOTALL)[0])  # type: ignore[index]


def marks(root: ElementTree.Element, tag: str, name: str) -> list[ElementTree.Element]:
    return [item for item in root.iter(tag) if name in item.get("class", "").split()]


def test_a_dot_for_every_value_in_its_place() -> None:
    root = svg(curves("kept", SERIES, COLOURS, reference=1.0))
    dots = marks(root, "circle", "dot")
    assert len(dots) == 3 and len(marks(root, "line", "bar")) == 2
    low, high, other = (float(dot.get("cx", "0")) for dot in dots)
    assert low < high < other  # 1.5, 3, 6 kbit/s at equal distances
    assert high - low == pytest.approx(other - high, abs=0.2)
    heights = [float(dot.get("cy", "0")) for dot in dots]
    assert heights[1] < heights[0] < heights[2]  # 0.9 above 0.8 above 0.7
    assert "ours:1.5: 0.800 [0.700, 0.900] at 1.50 kbit/s" in "".join(root.itertext())
    reference = marks(root, "line", "reference")
    assert len(reference) == 1 and float(reference[0].get("y1", "0")) < min(heights)
    assert len(marks(root, "path", "line")) == 2


def test_nothing_to_draw_is_no_chart() -> None:
    assert curves("kept", {"broken": SERIES["broken"]}, COLOURS) == ""
    assert curves("kept", {}, COLOURS) == ""


def test_one_value_is_enough() -> None:
    root = svg(curves("x", {"a": [Point("a:1", 1.0, 0.5, 0.5, 0.5)]}, {"a": 0}, better=0))
    assert len(marks(root, "circle", "dot")) == 1


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 1.0), (0.83, 0.97), (-20.0, 300.0), (1e-6, 2e-6), (3.0, 3.0)]
)
def test_ticks_cover_the_values_and_are_few(low: float, high: float) -> None:
    ticks = nice_ticks(low, high)
    assert ticks[0] <= low + 1e-12 and ticks[-1] >= high - 1e-9 and len(ticks) <= 8
    assert nice_ticks(math.nan, 1.0) == [0.0]


def test_text_is_escaped() -> None:
    hostile = "<script>alert(1)</script>"
    found = [
        curves(hostile, {hostile: [Point(hostile, 1.0, 0.5, 0.4, 0.6)]}, {hostile: 0}),
        class_bars([(hostile, {hostile: {"mean": 0.5, "low": 0.4, "high": 0.6}})], [hostile]),
        matrix(hostile, [[1]], [hostile]),
        heat_map(hostile, [[0.5]], "stage", "dim"),
    ]
    assert all("<script>" not in text for text in found)


def test_bars_and_matrices_show_shares() -> None:
    bars = class_bars([("a", {"sad": {"mean": 0.25, "low": 0.1, "high": 0.4}})], ["sad"])
    assert "width:25.0%" in bars and "left:10.0%;width:30.0%" in bars
    missing = class_bars([("a", {"sad": {"mean": math.nan, "low": None, "high": None}})], ["sad"])
    assert "width:0.0%" in missing
    confusion = matrix("m", [[3, 1], [0, 0]], ["x", "y"])
    assert ">75<" in confusion and ">25<" in confusion and "3 of 4" in confusion
    assert confusion.count("0 of 0") == 2
    heat = heat_map("h", [[0.5, 1.0], [0.25]], "stage", "dim")
    assert "stage 2" in heat and "dim 1" in heat and ">0.25<" in heat
