# SPDX-License-Identifier: Apache-2.0
"""Delay and active region."""

from __future__ import annotations

import numpy as np
import pytest

from affectcodec.evaluation.alignment import (
    active_frames,
    active_region,
    align,
    frame_levels,
    shift,
)


def babble(seconds: float = 1.5, seed: int = 0) -> np.ndarray:
    """Noise in bursts: broad-band, with an envelope that has one best match."""
    rng = np.random.default_rng(seed)
    envelope = np.repeat(rng.uniform(0.0, 1.0, int(seconds * 10)), 1600)
    envelope = np.convolve(envelope, np.hanning(800) / 400, mode="same")
    return (0.3 * envelope * rng.standard_normal(len(envelope))).astype("f4")


@pytest.mark.parametrize("delay", [0, 1, 37, 640, 1599, -1, -500])
def test_delayed_copy_is_put_back(delay: int) -> None:
    ref = babble()
    late = shift(ref, -delay, len(ref) + 2000)
    found = align(ref, late, 1600)
    assert found.delay == delay and found.from_waveform
    inner = slice(1600, -1600)
    np.testing.assert_array_equal(found.deg[inner], ref[inner])
    assert found.deg.shape == ref.shape


def test_envelope_decides_where_the_waveform_is_lost() -> None:
    ref = babble(3.0)
    envelope = np.convolve(np.abs(ref), np.hanning(200) / 100, mode="same")
    other = (envelope * np.random.default_rng(5).standard_normal(len(ref))).astype("f4")
    found = align(ref, shift(other, -320, len(ref)), 1600)
    assert not found.from_waveform
    assert abs(found.delay - 320) < 160


def test_delay_beyond_the_limit_is_not_claimed() -> None:
    assert abs(align(babble(), shift(babble(), -1000, 30000), 200).delay) <= 200


@pytest.mark.parametrize(("delay", "length"), [(0, 5), (2, 5), (-2, 5), (9, 5), (-9, 5), (1, 2)])
def test_shift_keeps_length(delay: int, length: int) -> None:
    x = np.arange(1, 6, dtype="f4")
    expected = [x[i + delay] if 0 <= i + delay < 5 else 0 for i in range(length)]
    np.testing.assert_array_equal(shift(x, delay, length), expected)


def test_silence_aligns_at_zero_without_similarity() -> None:
    found = align(np.zeros(4000, "f4"), babble(), 100)
    assert (found.delay, found.similarity) == (0, 0.0)


def test_align_rejects_empty() -> None:
    with pytest.raises(ValueError, match="empty"):
        align(np.zeros(0, "f4"), babble())
    with pytest.raises(ValueError, match="max_delay"):
        align(babble(), babble(), -1)


@pytest.mark.parametrize("gain", [1.0, 0.003])
def test_region_is_the_speech_with_100_ms_around(gain: float) -> None:
    rng = np.random.default_rng(0)
    x = 1e-5 * rng.standard_normal(48000)
    x[16000:32000] += 0.1 * rng.standard_normal(16000)
    region = active_region((gain * x).astype("f4"))
    assert region is not None
    assert abs(region[0] - (16000 - 1600)) <= 400 and abs(region[1] - (32000 + 1600)) <= 400


def test_pause_stays_in_the_region_but_is_not_active() -> None:
    rng = np.random.default_rng(0)
    x = 0.1 * rng.standard_normal(32000)
    x[12000:20000] *= 1e-4
    assert active_region(x.astype("f4")) == (0, 32000)
    active = active_frames(x.astype("f4"))
    assert not active[80:120].any() and active[:70].all() and active[130:].all()


def test_steady_noise_without_pauses_is_all_active() -> None:
    assert active_frames(np.random.default_rng(0).standard_normal(16000)).all()


def test_silence_has_no_region() -> None:
    assert active_region(np.zeros(16000, "f4")) is None
    assert active_region(np.zeros(10, "f4")) is None


def test_levels_are_db_of_power() -> None:
    np.testing.assert_allclose(frame_levels(np.full(1600, 0.1)), -20.0)
    np.testing.assert_allclose(frame_levels(np.zeros(1600)), -120.0)
