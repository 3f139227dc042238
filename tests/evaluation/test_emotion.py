# SPDX-License-Identifier: Apache-2.0
"""Statistics of decisions, counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from affectcodec.evaluation.bootstrap import draw_weights
from affectcodec.evaluation.emotion import Decisions, emotion_scores, paired, statistics

CLASSES = ("angry", "happy", "sad")
#                  a a a a  h h h h  s s
TRUTH = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2, 2])
ORIGINAL = np.array([0, 0, 0, 1, 1, 1, 0, 0, 2, 2])  # recalls 3/4, 2/4, 2/2
CODED = np.array([0, 0, 2, 1, 1, 1, 1, 0, 2, 1])  # recalls 2/4, 3/4, 1/2
GENDERS = ["f", "m"] * 5
ONCE = np.ones((1, 10))


def test_by_hand() -> None:
    found = statistics(Decisions(CLASSES, TRUTH, ORIGINAL, CODED), ONCE)
    wanted = {
        "uar": (0.5 + 0.75 + 0.5) / 3,
        "kept": (1.75 / 3) / (2.25 / 3),
        "degradation": (7 - 6) / 7,
        "macro_degradation": ((0.75 - 0.5) / 0.75 + (0.5 - 0.75) / 0.5 + 0.5) / 3,
        "lost": (1 / 3 + 0 / 2 + 1 / 2) / 3,
        "agreement": 7 / 10,
    }
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], [value], err_msg=name)


def test_the_original_keeps_everything() -> None:
    weights = draw_weights(["s", "t"] * 5, ["x"] * 10, replicates=50)
    scores = emotion_scores(Decisions(CLASSES, TRUTH, ORIGINAL, ORIGINAL), GENDERS, weights)
    assert scores["kept"]["mean"] == scores["kept"]["low"] == scores["kept"]["high"] == 1.0
    assert scores["macro_degradation"]["high"] == scores["lost"]["high"] == 0.0
    assert scores["agreement"]["low"] == 1.0


def test_scores_by_class_and_gender() -> None:
    weights = draw_weights(["s", "t"] * 5, ["x"] * 10, replicates=50)
    scores = emotion_scores(Decisions(CLASSES, TRUTH, ORIGINAL, CODED), GENDERS, weights)
    assert [scores["recall"][c]["mean"] for c in CLASSES] == [0.5, 0.75, 0.5]
    assert [scores["recall_original"][c]["mean"] for c in CLASSES] == [0.75, 0.5, 1.0]
    assert scores["confusion"] == [[2, 1, 1], [1, 3, 0], [0, 1, 1]]
    assert set(scores["by_gender"]) == {"f", "m"}
    # "f" are the even clips: recalls 1/2, 2/2, 1/1 on coded, 1, 1/2, 1 on originals
    assert scores["by_gender"]["f"]["uar"]["mean"] == pytest.approx(2.5 / 3)
    assert scores["by_gender"]["f"]["kept"]["mean"] == pytest.approx(1.0)


def test_decisions_that_know_nothing_are_at_chance() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(3, size=3000)
    random = Decisions(CLASSES, truth, truth, rng.permutation(truth))
    found = statistics(random, np.ones((1, 3000)))
    assert abs(found["uar"][0] - 1 / 3) < 0.03
    assert abs(found["macro_degradation"][0] - 2 / 3) < 0.03


def test_a_class_that_was_never_recognised_has_nothing_to_lose() -> None:
    original, coded = np.where(TRUTH == 2, 0, TRUTH), np.where(TRUTH == 2, 0, TRUTH)
    found = statistics(Decisions(CLASSES, TRUTH, original, coded), ONCE)
    assert found["macro_degradation"][0] == found["lost"][0] == 0.0


def test_a_class_at_chance_does_not_weigh_in_the_macro_degradation() -> None:
    original = np.array([0, 0, 0, 0, 1, 0, 0, 0, 2, 2])  # "happy" at 1/4, under 1/3
    coded = np.array([0, 0, 1, 1, 0, 0, 0, 0, 2, 2])
    found = statistics(Decisions(CLASSES, TRUTH, original, coded), ONCE)
    assert found["macro_degradation"][0] == pytest.approx((0.5 + 0.0) / 2)


def test_a_paired_difference_is_narrower_than_its_parts() -> None:
    rng = np.random.default_rng(1)
    truth = rng.integers(3, size=600)
    # both codecs fail on the same, hard speakers
    hard = np.repeat(rng.random(20) < 0.5, 30)
    original = truth.copy()
    first = np.where(hard & (rng.random(600) < 0.6), (truth + 1) % 3, truth)
    second = np.where(rng.random(600) < 0.05, (first + 1) % 3, first)
    weights = draw_weights([str(i // 30) for i in range(600)], ["x"] * 600, replicates=300)
    a, b = (Decisions(CLASSES, truth, original, coded) for coded in (first, second))
    difference = paired(a, b, weights)
    alone = emotion_scores(a, [""] * 600, weights)["kept"]
    assert difference["high"] - difference["low"] < 0.5 * (alone["high"] - alone["low"])
    assert difference["mean"] == pytest.approx(
        statistics(a, np.ones((1, 600)))["kept"][0] - statistics(b, np.ones((1, 600)))["kept"][0]
    )


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="one of each a clip"):
        Decisions(CLASSES, TRUTH, ORIGINAL, CODED[:3])
