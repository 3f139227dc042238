# SPDX-License-Identifier: Apache-2.0
"""Pitch under loss: known answers, and what each measure sees of a muted frame."""

from __future__ import annotations

import numpy as np
import pytest

from affectcodec.evaluation.pitch import f0_metrics
from affectcodec.streaming.loss_scores import contour_correlation, frame_error, lost_f0_frames

RISE = 100 * 2 ** (np.arange(200) / 200)  # an octave in a second
ALL = np.ones(200, np.bool_)


def test_the_same_contour_correlates_fully_at_any_pitch() -> None:
    assert contour_correlation(RISE, RISE, ALL) == pytest.approx(1)
    assert contour_correlation(RISE, 1.5 * RISE, ALL) == pytest.approx(1)
    assert contour_correlation(RISE, 20000 / RISE, ALL) == pytest.approx(-1)


def test_frames_without_pitch_carry_the_median() -> None:
    """Every other frame muted: the known answer of a variable that is known half of the time."""
    muted = np.where(np.arange(200) % 2, RISE, 0.0)
    x = np.log2(RISE)
    filled = np.where(muted > 0, x, np.median(x[1::2]))
    want = np.mean((x - x.mean()) * (filled - filled.mean())) / (x.std() * filled.std())
    assert contour_correlation(RISE, muted, ALL) == pytest.approx(want)
    assert want == pytest.approx(np.sqrt(0.5), abs=0.01)
    # The other correlation drops those frames and sees nothing.
    assert f0_metrics(RISE, muted, ALL)["f0_corr"] == pytest.approx(1)


def test_mutes_lower_it_and_a_held_pitch_lowers_it_less() -> None:
    gone = np.zeros(200, np.bool_)
    gone[40:60] = gone[120:140] = True
    held = RISE.copy()
    held[40:60], held[120:140] = RISE[39], RISE[119]
    silent = np.where(gone, 0.0, RISE)
    assert contour_correlation(RISE, silent, ALL) < contour_correlation(RISE, held, ALL) < 1


def test_nothing_to_hear_is_zero_and_nothing_to_ask_is_nan() -> None:
    assert contour_correlation(RISE, np.zeros(200), ALL) == 0
    assert contour_correlation(RISE, np.full(200, 90.0), ALL) == 0
    assert np.isnan(contour_correlation(np.full(200, 90.0), RISE, ALL))
    assert np.isnan(contour_correlation(RISE, RISE, np.arange(200) < 19))
    assert np.isnan(contour_correlation(np.zeros(0), np.zeros(0), np.zeros(0, np.bool_)))
    # Where the original does not speak, nothing counts: neither pitch nor median.
    noisy = np.concatenate([RISE, np.full(300, 600.0)])
    active = np.arange(500) < 200
    assert contour_correlation(np.concatenate([RISE, RISE, RISE]), noisy, active) == pytest.approx(
        1
    )


def test_frame_error_counts_voicing_and_gross_pitch() -> None:
    deg = RISE.copy()
    deg[:10] = 0  # unvoiced
    deg[10:20] *= 1.19  # near enough
    deg[20:30] *= 2  # an octave
    assert frame_error(RISE, deg, ALL) == pytest.approx(20 / 200)
    assert frame_error(RISE, deg, np.arange(200) < 20) == pytest.approx(10 / 20)
    assert frame_error(deg, RISE, np.arange(200) < 10) == 1
    assert frame_error(np.zeros(200), np.zeros(200), ALL) == 0
    assert np.isnan(frame_error(RISE, deg, ~ALL))


def test_which_f0_frames_a_lost_frame_reaches() -> None:
    lost = np.array([False, True, False, False, True])
    found = lost_f0_frames(lost, 50.0, 22)
    # Frame 1 has its centre at 20 ms: 10 to 25 ms are nearest to it; frame 4 at 80 ms, the last.
    assert np.flatnonzero(found).tolist() == [2, 3, 4, 5, *range(14, 22)]
    assert not lost_f0_frames(np.zeros(0, np.bool_), 50.0, 8).any()
