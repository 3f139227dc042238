# SPDX-License-Identifier: Apache-2.0
"""Intervals over speakers."""

from __future__ import annotations

import numpy as np
import pytest

from affectcodec.evaluation.bootstrap import draw_weights, estimate

SPEAKERS = ["a"] * 20 + ["b"] * 30 + ["c"] * 10
DATASETS = ["x"] * 50 + ["y"] * 10


def test_draws_keep_the_mix_of_datasets_and_repeat() -> None:
    weights = draw_weights(SPEAKERS, DATASETS, replicates=200)
    assert weights.shape == (200, 60)
    assert (weights[:, 50:].sum(axis=1) == 10).all()
    assert set(weights[:, :50].sum(axis=1)) == {40.0, 50.0, 60.0}
    np.testing.assert_array_equal(weights, draw_weights(SPEAKERS, DATASETS, replicates=200))


def test_constant_has_no_width_and_mean_is_plain() -> None:
    weights = draw_weights(SPEAKERS, DATASETS, replicates=100)
    e = estimate(np.full(60, 2.5), weights)
    assert (e.mean, e.low, e.high, e.count) == (2.5, 2.5, 2.5, 60)


def test_differences_between_speakers_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.1, 60)
    weights = draw_weights(SPEAKERS, ["x"] * 60)
    same = estimate(noise, weights)
    offset = estimate(noise + np.repeat([0.0, 1.0, 2.0], [20, 30, 10]), weights)
    assert offset.high - offset.low > 5 * (same.high - same.low)
    assert offset.low < offset.mean < offset.high


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    speakers = [str(i) for i in range(30) for _ in range(5)]
    weights = draw_weights(speakers, ["x"] * 150, replicates=300)
    hits = 0
    for _ in range(200):
        values = np.repeat(rng.normal(0, 1, 30), 5) + rng.normal(0, 0.5, 150)
        e = estimate(values, weights)
        hits += e.low <= 0 <= e.high
    assert 175 <= hits <= 200


def test_missing_values_are_left_out_and_counted() -> None:
    values = np.where(np.arange(60) % 2, np.nan, 3.0)
    e = estimate(values, draw_weights(SPEAKERS, DATASETS, replicates=100))
    assert (e.mean, e.count, e.low) == (3.0, 30, 3.0)
    nothing = estimate(np.full(60, np.nan), draw_weights(SPEAKERS, DATASETS, replicates=5))
    assert nothing.count == 0 and np.isnan(nothing.mean)


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="speakers"):
        draw_weights(["a"], ["x", "y"])
