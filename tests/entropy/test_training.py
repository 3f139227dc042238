# SPDX-License-Identifier: Apache-2.0
"""Fitting a prior."""

from __future__ import annotations

import numpy as np
import pytest

from affectcodec.entropy.coder import PriorCoder
from affectcodec.entropy.network import arrays
from affectcodec.entropy.prior import Prior
from affectcodec.entropy.training import PriorFit, draw_stages, fit

from .conftest import LAYOUT


def test_a_pattern_is_learned_and_noise_is_not():
    """Emotion codes repeat with period 4, acoustic codes are noise."""
    rng = np.random.default_rng(0)
    time = np.arange(120)
    clips = []
    for _ in range(6):
        shift = int(rng.integers(4))
        emotion = np.stack([(time + shift) % 4] * 4).astype(np.int32)
        clips.append([emotion, rng.integers(0, 12, (4, 120)).astype(np.int32)])
    costs = []
    config = PriorFit(width=24, units=6, steps=150, batch_size=6, frames=30, learning_rate=2e-2)
    network = fit(LAYOUT, clips, config, lambda step, bits: costs.append(bits))
    assert len(costs) == 150
    stages = np.full((2, 120), 4, np.uint8)
    found = PriorCoder(Prior(LAYOUT, arrays(network))).costs(clips[0], stages)[20:]
    first = LAYOUT.block_of == 0
    assert found[:, first].mean() < 0.25
    assert found[:, ~first].mean() > 0.95 * (2 + np.log2(3)) / 2


def test_the_same_seed_gives_the_same_prior():
    clips = [[np.zeros((4, 40), np.int32), np.ones((4, 40), np.int32)]]
    config = PriorFit(width=8, units=2, steps=3, batch_size=2, frames=10)
    one, two = (Prior(LAYOUT, arrays(fit(LAYOUT, clips, config))).id for _ in range(2))
    assert one == two


def test_nothing_to_learn_from_is_an_error():
    with pytest.raises(ValueError, match="nothing to learn"):
        fit(LAYOUT, [[np.zeros((4, 1), np.int32)] * 2], PriorFit(steps=1))


def test_drawn_stage_counts_are_in_range_and_vary():
    rng = np.random.default_rng(0)
    drawn = [draw_stages(LAYOUT, 60, rng) for _ in range(40)]
    assert all(s.shape == (2, 60) and s.max() <= 4 for s in drawn)
    changing = [np.any(np.diff(s, axis=1)) for s in drawn]
    assert 5 < sum(changing) < 35
