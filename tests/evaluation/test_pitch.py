# SPDX-License-Identifier: Apache-2.0
"""F0 tracks on tones whose pitch is known, and what is computed from tracks."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest

from affectcodec.evaluation.pitch import HEADLINE, f0_metrics, f0_track, spread_to_f0_frames

needs_swift = pytest.mark.skipif(find_spec("swift_f0") is None, reason="no swift-f0")
needs_world = pytest.mark.skipif(find_spec("pyworld") is None, reason="pyworld is not installed")
METHODS = [
    pytest.param("swift-f0", marks=needs_swift),
    "autocorrelation",
    pytest.param("dio", marks=needs_world),
    pytest.param("harvest", marks=needs_world),
]


def voice(f0: np.ndarray | float, seconds: float = 1.0, lowest: int = 1) -> np.ndarray:
    """Sum of harmonics `lowest`..20 of an F0 in Hz (constant, or one value a sample)."""
    f0 = np.broadcast_to(f0, int(seconds * 16000))
    phase = 2 * np.pi * np.cumsum(f0) / 16000
    harmonics = [np.sin(k * phase) / k * (k * f0 < 7500) for k in range(lowest, 21)]
    return 0.2 * np.sum(harmonics, axis=0)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("hz", [80.0, 123.4, 250.0, 600.0])
def test_known_pitch(method: str, hz: float) -> None:
    f0 = f0_track(voice(hz), method)  # type: ignore[arg-type]
    assert f0.shape == (201,)
    inner = f0[20:-20]
    assert (inner > 0).mean() > 0.95
    cents = 1200 * np.log2(inner[inner > 0] / hz)
    assert np.abs(cents).max() < 10


def test_autocorrelation_needs_no_fundamental() -> None:
    inner = f0_track(voice(110.0, lowest=3), "autocorrelation")[20:-20]
    assert np.abs(1200 * np.log2(inner / 110.0)).max() < 10


def test_autocorrelation_follows_a_glide() -> None:
    hz = np.linspace(100, 300, 16000)
    f0 = f0_track(voice(hz), "autocorrelation")
    truth = np.append(hz, hz[-1])[::80]
    assert np.abs(1200 * np.log2(f0[10:-10] / truth[10:-10])).max() < 30


@pytest.mark.parametrize("method", METHODS)
def test_silence_short_and_noise_are_unvoiced(method: str) -> None:
    assert not f0_track(np.zeros(8000), method).any()  # type: ignore[arg-type]
    assert f0_track(np.zeros(0), method).shape == (1,)  # type: ignore[arg-type]
    assert f0_track(voice(100.0, 0.03), method).shape == (7,)  # type: ignore[arg-type]
    noise = 0.1 * np.random.default_rng(0).standard_normal(16000)
    assert (f0_track(noise, method) > 0).mean() < 0.25  # type: ignore[arg-type]


@needs_swift
def test_the_headline_is_the_default() -> None:
    x = voice(np.linspace(100, 200, 8000), 0.5)
    np.testing.assert_array_equal(f0_track(x), f0_track(x, HEADLINE))


def test_unknown_method() -> None:
    with pytest.raises(ValueError, match=r"method: got 'yin', wanted one of swift-f0"):
        f0_track(voice(100.0), "yin")  # type: ignore[arg-type]


@pytest.mark.parametrize("method", METHODS)
def test_waves_that_are_none(method: str) -> None:
    for bad in (np.nan, np.inf, -np.inf):
        x = voice(100.0)
        x[5] = bad
        with pytest.raises(ValueError, match="x: got NaN or infinite"):
            f0_track(x, method)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"x: got shape \(1, 16000\)"):
        f0_track(voice(100.0)[None], method)  # type: ignore[arg-type]


def contour(frames: int = 200) -> np.ndarray:
    f0 = 150 * 2 ** (0.3 * np.sin(np.arange(frames) / 10))
    f0[:40] = 0
    return f0


def test_identical_tracks_are_perfect() -> None:
    f0 = contour()
    out = f0_metrics(f0, f0, np.ones(200, bool))
    assert out["f0_corr"] == pytest.approx(1.0)
    assert out["f0_rmse_cents"] == out["vuv_error"] == out["gross_pitch_error"] == 0.0
    assert out["f0_range_ratio"] == pytest.approx(1.0)


def test_semitone_and_octave_shift() -> None:
    f0, every = contour(), np.ones(200, bool)
    semitone = f0_metrics(f0, f0 * 2 ** (1 / 12), every)
    assert semitone["f0_rmse_cents"] == pytest.approx(100.0)
    assert semitone["f0_corr"] == pytest.approx(1.0) and semitone["gross_pitch_error"] == 0.0
    octave = f0_metrics(f0, f0 * 2, every)
    assert octave["f0_rmse_cents"] == pytest.approx(1200.0) and octave["gross_pitch_error"] == 1.0


def test_halved_range_is_half() -> None:
    f0 = contour()
    half = np.where(f0 > 0, 150 * (np.maximum(f0, 1) / 150) ** 0.5, 0)
    assert f0_metrics(f0, half, np.ones(200, bool))["f0_range_ratio"] == pytest.approx(0.5)


def test_voicing_errors_count_only_active_frames() -> None:
    f0 = contour()
    deg = f0.copy()
    deg[40:60] = 0  # 20 voiced frames lost
    deg[0:10] = 100  # 10 false ones, not active
    active = np.ones(200, bool)
    active[:20] = False
    assert f0_metrics(f0, deg, active)["vuv_error"] == pytest.approx(20 / 180)


def test_undefined_is_nan_never_a_number() -> None:
    f0, every = contour(), np.ones(200, bool)
    assert np.isnan(f0_metrics(f0, np.zeros(200), every)["f0_corr"])
    assert f0_metrics(f0, np.zeros(200), every)["vuv_error"] == pytest.approx(0.8)
    flat = np.where(f0 > 0, 150.0, 0.0)
    assert np.isnan(f0_metrics(f0, flat, every)["f0_corr"])
    assert f0_metrics(f0, flat, every)["f0_range_ratio"] == 0.0
    assert all(np.isnan(v) for v in f0_metrics(f0, f0, np.zeros(200, bool)).values())


def test_activity_is_spread_by_time() -> None:
    active = np.array([False, True, True, False])
    spread = spread_to_f0_frames(active, 10)
    assert spread.shape == (10,)
    # frame 1 is centred at 22.5 ms: F0 frames at 20 and 25 ms
    assert spread[4] and not spread[0] and not spread[9]
    assert not spread_to_f0_frames(np.zeros(0, bool), 3).any()
