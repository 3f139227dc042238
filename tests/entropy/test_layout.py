# SPDX-License-Identifier: Apache-2.0
"""Digits in coding order."""

from __future__ import annotations

import numpy as np

from affectcodec.entropy.layout import DigitLayout

from .conftest import LAYOUT
from .helpers import random_packet


def test_digits_of_known_codes():
    layout = DigitLayout(("a", "b"), ((2, 2), (4,)), 2)
    digits = layout.digits([np.array([[1], [2]]), np.array([[3]])])
    # lowest place first; the absent second stage of b is 0
    assert digits.tolist() == [[1, 0, 0, 1, 3, 0]]
    assert layout.digit_levels.tolist() == [2, 2, 2, 2, 4, 4]
    assert layout.block_of.tolist() == [0, 0, 0, 0, 1, 1]
    assert layout.stage_of.tolist() == [0, 0, 1, 1, 0, 1]
    assert layout.offsets.tolist() == [0, 2, 4, 6, 8, 12]


def test_codes_undo_digits():
    codes, stages = random_packet(LAYOUT, 33, 3)
    most = [len(block) for block in codes]
    back = LAYOUT.codes(LAYOUT.digits(codes), most)
    assert all(np.array_equal(a, b) for a, b in zip(codes, back, strict=True))
    assert stages.shape == (2, 33)


def test_indicators_show_present_digits_only():
    codes, stages = random_packet(LAYOUT, 20, 5)
    present = LAYOUT.present(stages)
    shown = LAYOUT.indicators(LAYOUT.digits(codes), present)
    assert np.array_equal(shown.sum(1), present.sum(1))
    wanted = stages[0] * 3 + stages[1] * 2
    assert np.array_equal(present.sum(1), wanted)
    counts = LAYOUT.count_indicators(stages)
    assert np.array_equal(counts.argmax(1), stages[0])
    assert np.array_equal(counts.sum(1), np.full(20, 2.0))
