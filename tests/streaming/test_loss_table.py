# SPDX-License-Identifier: Apache-2.0
"""The table of losses: what a row holds, paired differences, and its place on a page."""

from __future__ import annotations

import math

import numpy as np
import pytest

from affectcodec.streaming.concealment import CONCEALMENTS
from affectcodec.streaming.loss import LossModel
from affectcodec.streaming.loss_table import SCORES, Row, difference, markdown, run, scores_of
from tests.codec_fixtures import speech_like, tiny_codec


def filled_row(kind: str, values: list[float]) -> Row:
    row = Row(0.1, 4.0, kind)
    for name in SCORES:
        row.scores[name] = list(values)
    row.recovery[0] = [2.0, 4.0]
    return row


def test_differences_are_paired_and_skip_what_is_undefined() -> None:
    generator = np.random.default_rng(0)
    clips = generator.normal(0, 10, 200)
    other = filled_row("repeat", clips.tolist())
    better = filled_row("predict", (clips + generator.normal(0.5, 0.1, 200)).tolist())
    found = difference(better, other, "stoi")
    # Clips differ by 10, the pairs by 0.1: the interval is that of the pairs.
    assert found.low < 0.5 < found.high and found.high - found.low < 0.06
    assert found.mean == pytest.approx(np.mean(np.array(better.scores["stoi"]) - clips))
    other.scores["stoi"][0] = math.nan
    assert difference(better, other, "stoi").count == 199
    assert difference(Row(0, 1, "predict"), Row(0, 1, "repeat"), "stoi").count == 0


def test_the_page_has_every_row_and_both_differences() -> None:
    rows = [Row(0.0, 1.0, "none")]
    rows += [
        filled_row(kind, [v, v]) for kind, v in zip(CONCEALMENTS, (0.7, 0.5, 0.2), strict=True)
    ]
    lines = markdown(rows).splitlines()
    assert lines[3] == "| 10% | 4 | predict | " + " | ".join(["0.700"] * len(SCORES)) + " |"
    assert lines[2] == "| 0% | 1 | none | " + " | ".join([""] * len(SCORES)) + " |"
    text = "\n".join(lines)
    assert "| 10% | 4 | frame repetition | +0.200 [+0.200, +0.200]" in text
    assert "| 10% | 4 | silence | +0.500 [+0.500, +0.500]" in text
    assert lines[-1] == "- 10%, bursts of 4: 3.0"


def test_a_run_scores_every_concealment_on_the_same_losses() -> None:
    wav = speech_like(16000 * 2).numpy()
    rows = run(tiny_codec(), [wav], [LossModel(0.2, 2.0)])
    assert [row.concealment for row in rows] == ["none", *CONCEALMENTS]
    assert all(len(row.scores[name]) == 1 for row in rows for name in SCORES)
    assert math.isnan(rows[0].scores["lost_pitch"][0])  # nothing was lost
    assert all(row.recovery[0] for row in rows[1:])


def test_a_clip_against_itself_keeps_its_pitch() -> None:
    wav = speech_like(16000 * 2).numpy()
    from affectcodec.evaluation.pitch import f0_track

    lost = np.ones(100, np.bool_)
    found = scores_of(wav, wav, f0_track(wav), lost, 50.0)
    assert found["f0_contour"] == pytest.approx(1) and found["lost_pitch"] == 0
