# SPDX-License-Identifier: Apache-2.0
"""The report: whole, self-contained, and honest about what was lost."""

from __future__ import annotations

import io
import math
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
import soundfile

from affectcodec.evaluation.assess import CLIP_METRICS
from affectcodec.evaluation.controls import MuLaw, PassThrough
from affectcodec.evaluation.page import is_control, make_sounds, render, tables_html

VOID = {"meta", "br"}


class Balance(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.links += [str(v) for k, v in attrs if k in ("src", "href")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def value(mean: float, width: float = 0.1) -> dict[str, Any]:
    return {"mean": mean, "low": mean - width, "high": mean + width, "count": 4}


def results(difference: float) -> dict[str, Any]:
    names = {"original": 256.0, "ours:1.5": 1.5, "opus:6": 5.0, "mulaw": 128.0}
    metrics = {m.name: value(0.5) for m in CLIP_METRICS}
    metrics["visqol"] = {"mean": math.nan, "low": math.nan, "high": math.nan, "count": 0}
    pair = {"codec": "ours:1.5", "against": "opus:6"}
    own = {
        **{n: value(0.8) for n in ("uar", "kept", "macro_degradation")},
        "recall": {"sad": value(0.5), "<b>": value(0.2)},
        "confusion": [[1, 1], [0, 2]],
    }
    return {
        "command": "affectcodec evaluate a & b",
        "split": "test",
        "versions": {"torch": "2"},
        "metrics": {
            "all": {
                "codecs": {n: {"kbps": kbps, "metrics": metrics} for n, kbps in names.items()},
                "comparisons": [
                    {**pair, "difference": {m.name: value(difference) for m in CLIP_METRICS}}
                ],
            }
        },
        "words": {"all": {"codecs": {n: {"wer": value(0.2)} for n in names}, "comparisons": []}},
        "emotion": {
            "made": {
                "judge": {
                    "title": "Judge",
                    "classes": ["sad", "<b>"],
                    "clips": 4,
                    "speakers": 2,
                    "codecs": dict.fromkeys(names, own),
                    "comparisons": [{**pair, "kept": value(difference)}],
                }
            }
        },
    }


def test_the_page_is_whole_and_needs_nothing_from_outside() -> None:
    markdown = "# T\n\n## Part\n\n| a `c` | b |\n| --- | --- |\n| 1 | <2> |\n\nHow\n- one\n- two"
    page = render(
        results(0.5),
        markdown,
        sounds=[("words", "licence", [("opus:6", b"fLaC")])],
        token_use={"ours": {"emotion": [[0.5, 1.0]]}},
    )
    parser = Balance()
    parser.feed(page)
    assert parser.open == []
    assert parser.links and all(link.startswith("data:") for link in parser.links)
    assert "<b>sad" not in page and "&lt;b&gt;" in page and "a &amp; b" in page
    assert page.count("<svg") >= 10 and "http" not in page.replace("http-equiv", "")
    assert "<td>&lt;2&gt;</td>" in page and "<code>c</code>" in page and "<li>two</li>" in page


def test_lost_comparisons_stand_first() -> None:
    lost = render(results(-0.5), "")
    assert lost.index("Lost comparisons") < lost.index("Over the bit rate")
    for words in ("ours:1.5 against opus:6", "emotion kept (made, Judge)", "STOI"):
        assert words in lost
    won = render(results(0.5), "")
    # lower is better for those two
    assert "STOI" not in won[: won.index("Over the bit rate")]
    assert "V/UV error" in won[: won.index("Over the bit rate")]


def test_controls_have_no_rate() -> None:
    assert is_control("mulaw") and is_control("lowpass:2") and is_control("original")
    assert not is_control("opus:6") and not is_control("affectcodec:1.5")


def test_sounds_are_playable_and_of_clips_that_may_be_passed_on() -> None:
    codecs = [PassThrough("original", 16000), MuLaw()]
    sounds = make_sounds(codecs, {"original": 0}, ("female-2.flac",))
    ((title, credit, versions),) = sounds
    assert "CC BY" in credit and title
    assert [name for name, _ in versions] == ["original", "mulaw"]
    for _, data in versions:
        wav, rate = soundfile.read(io.BytesIO(data))
        assert rate == 16000 and np.abs(wav).max() > 0.05


def test_tables_keep_their_cells() -> None:
    html = tables_html("## H\n\n| a | b |\n| --- | --- |\n| 1 [0, 2] | - |\n\ntext `x`")
    assert html.count("<td>") == 2 and "1 [0, 2]" in html and "<h3>H</h3>" in html
    assert tables_html("```\ncommand\n```") == ""


@pytest.mark.parametrize("missing", ["words", "emotion"])
def test_parts_that_were_not_measured_are_left_out(missing: str) -> None:
    some = results(0.5)
    del some[missing]
    parser = Balance()
    parser.feed(render(some, ""))
    assert parser.open == []
