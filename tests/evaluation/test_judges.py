# SPDX-License-Identifier: Apache-2.0
"""Judges on features whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from affectcodec.evaluation.judges import JUDGES, Judge, fit, uar

pytest.importorskip("sklearn")

CLASSES = ("angry", "calm", "happy", "sad")


def made_up(
    seed: int, clips: int = 240, width: int = 12, apart: float = 3.0
) -> tuple[np.ndarray, list[str], list[str]]:
    """Four clouds, `apart` deviations between neighbours; 6 speakers with an offset each."""
    rng = np.random.default_rng(seed)
    y = np.arange(clips) % 4
    speaker = np.arange(clips) // 4 % 6
    x = rng.standard_normal((clips, width))
    x[np.arange(clips), y] += apart
    x[:, 6:] += rng.standard_normal((6, width - 6))[speaker]
    return x, [CLASSES[i] for i in y], [f"s{i}" for i in speaker]


@pytest.mark.parametrize("judge", JUDGES, ids=lambda judge: judge.name)
def test_a_judge_learns_what_is_there(judge: Judge) -> None:
    x, labels, speakers = made_up(0, apart=6.0)
    fitted = fit(judge, x, labels, speakers)
    other, truth, _ = made_up(1, apart=6.0)
    answers = [fitted.classes[i] for i in fitted.decide(other)]
    assert fitted.classes == CLASSES and fitted.c in judge.grid
    assert np.mean(np.array(answers) == truth) > 0.97
    assert fitted.cross_validated > 0.97


@pytest.mark.parametrize("judge", JUDGES, ids=lambda judge: judge.name)
def test_permuted_labels_leave_it_at_chance(judge: Judge) -> None:
    x, labels, speakers = made_up(2)
    other, truth, _ = made_up(4)
    y = np.array([CLASSES.index(label) for label in truth])
    rng = np.random.default_rng(3)
    # one permutation may happen to favour a cloud: the mean over several is at chance
    found = [
        uar(
            y,
            fit(judge, x, list(rng.permutation(labels)), speakers, c=judge.grid[0]).decide(other),
            4,
        )
        for _ in range(12)
    ]
    assert abs(np.mean(found) - 0.25) < 0.05
    assert uar(y, fit(judge, x, labels, speakers, c=judge.grid[0]).decide(other), 4) > 0.8


def test_training_is_repeatable_and_c_can_be_fixed() -> None:
    x, labels, speakers = made_up(5, apart=1.0)
    for judge in JUDGES:
        one, two = fit(judge, x, labels, speakers), fit(judge, x, labels, speakers)
        np.testing.assert_array_equal(one.decide(x), two.decide(x))
        fixed = fit(judge, x, labels, ["only"] * len(x), c=one.c)
        np.testing.assert_array_equal(fixed.decide(x), one.decide(x))
        assert np.isnan(fixed.cross_validated)


def test_rare_classes_count_like_others() -> None:
    truth = np.array([0] * 90 + [1] * 10)
    assert uar(truth, np.zeros(100, dtype=int), 2) == 0.5
    assert uar(truth, truth, 3) == 1.0  # a class that does not occur does not count
    assert np.isnan(uar(truth[:0], truth[:0], 2))


def test_no_clip_no_decision() -> None:
    x, labels, speakers = made_up(6)
    assert fit(JUDGES[0], x, labels, speakers, c=1.0).decide(x[:0]).shape == (0,)


@pytest.mark.parametrize(
    ("labels", "speakers", "match"),
    [
        (["a"] * 4, ["s", "t"] * 2, "two or more"),
        (["a", "b"] * 2, ["s"] * 4, "one training speaker"),
        (["a", "b"], ["s", "t"] * 2, "one of each a clip"),
    ],
)
def test_what_cannot_be_learned_is_an_error(
    labels: list[str], speakers: list[str], match: str
) -> None:
    with pytest.raises(ValueError, match=match):
        fit(JUDGES[0], np.zeros((4, 3)), labels, speakers)
