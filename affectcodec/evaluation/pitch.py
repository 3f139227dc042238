# SPDX-License-Identifier: Apache-2.0
"""F0 tracks (SwiftF0, autocorrelation, WORLD) and what a codec does to them.

A track has one value each 5 ms: F0 in Hz, 0 where unvoiced. Differences are taken in cents
(1200 log2 of the ratio), because that is how pitch is heard: 100 cents are a semitone.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from affectcodec import autocorrelation
from affectcodec.evaluation import swift
from affectcodec.evaluation.alignment import HOP, SAMPLE_RATE, WINDOW
from affectcodec.evaluation.world import load_world

F0_FLOOR_HZ = 60.0
F0_CEIL_HZ = 700.0
FRAME_MS = 5.0
MIN_VOICED_FRAMES = 20  # 100 ms voiced in both: fewer say nothing about a contour
GROSS_ERROR = 0.2  # a pitch off by more than 20 % is a gross error (the usual definition)

Method = Literal["swift-f0", "autocorrelation", "dio", "harvest"]
METHODS: tuple[Method, ...] = get_args(Method)
HEADLINE: Method = "swift-f0"  # the others' octave jumps outweigh what codecs do: see `trackers`


def f0_track(x: np.ndarray, method: Method = HEADLINE) -> np.ndarray:
    """F0 in Hz each 5 ms of a 16 kHz wave `[n]`: float64 `[1 + n // 80]`, 0 where unvoiced.

    60 to 700 Hz. swift-f0 is a network that knows voices; autocorrelation follows the best path and
    needs no fundamental (see its module); dio is WORLD's, refined by stonemask; harvest is WORLD's
    slower one, which voices more frames.

    Raises:
        ValueError: an unknown method; a wave that is not 1-D or has NaN or infinite samples.
        ImportError: a package of the extra `eval` is missing: swift-f0 for swift-f0, pyworld for
            dio and harvest.
    """
    if method not in METHODS:
        raise ValueError(f"method: got {method!r}, wanted one of {', '.join(METHODS)}")
    x = np.asarray(x)
    if x.ndim != 1 or not np.isfinite(x).all():
        what = f"shape {x.shape}" if x.ndim != 1 else "NaN or infinite samples"
        raise ValueError(f"x: got {what}, wanted a wave [n] of finite samples")
    if method == "swift-f0":
        return swift.track(x, F0_FLOOR_HZ, F0_CEIL_HZ)
    if method == "autocorrelation":
        return autocorrelation.track(x, F0_FLOOR_HZ, F0_CEIL_HZ)
    world = load_world()
    wave = np.ascontiguousarray(x, dtype=np.float64)
    num_frames = 1 + len(wave) * 1000 // int(SAMPLE_RATE * FRAME_MS)
    # WORLD filters with windows of several periods of the lowest pitch and is undefined on shorter
    # input; 50 ms holds three periods of 60 Hz.
    if len(wave) < SAMPLE_RATE // 20 or not np.any(wave):
        return np.zeros(num_frames)
    options = {"f0_floor": F0_FLOOR_HZ, "f0_ceil": F0_CEIL_HZ, "frame_period": FRAME_MS}
    if method == "dio":
        raw, times = world.dio(wave, SAMPLE_RATE, **options)
        f0 = world.stonemask(wave, raw, times, SAMPLE_RATE)
    else:
        f0, _ = world.harvest(wave, SAMPLE_RATE, **options)
    out = np.zeros(num_frames)
    count = min(num_frames, len(f0))
    out[:count] = f0[:count]
    # stonemask may move a candidate out of the range it was searched in
    out[(out < F0_FLOOR_HZ) | (out > F0_CEIL_HZ)] = 0.0
    return out


def spread_to_f0_frames(active: np.ndarray, num_f0_frames: int) -> np.ndarray:
    """Activity of the 10 ms frames `[frames]` at the 5 ms instants of the F0 track."""
    if not len(active):
        return np.zeros(num_f0_frames, dtype=bool)
    samples = np.arange(num_f0_frames) * (SAMPLE_RATE * FRAME_MS / 1000.0)
    index = np.rint((samples - WINDOW / 2) / HOP).astype(int)
    return np.asarray(active)[np.clip(index, 0, len(active) - 1)]


def f0_metrics(f0_ref: np.ndarray, f0_deg: np.ndarray, active: np.ndarray) -> dict[str, float]:
    """Compares two F0 tracks `[frames]` over the frames where the original is active (bool).

    Returns (NaN where undefined):
        vuv_error: share of active frames voiced in one and unvoiced in the other.
        f0_corr: Pearson correlation of log F0 over active frames voiced in both; needs at least 20
            of them and a contour that is not constant on either side.
        f0_rmse_cents: root mean square difference in cents over the same frames, octave errors
            included; needs at least 20 frames.
        gross_pitch_error: share of the same frames more than 20 % off.
        f0_range_ratio: 5th-to-95th percentile range of log F0 over each one's own voiced active
            frames, degraded over original: 1 keeps the range, 0 is a monotone.
    """
    count = min(len(f0_ref), len(f0_deg), len(active))
    ref, deg, mask = f0_ref[:count], f0_deg[:count], np.asarray(active[:count], dtype=bool)
    out = dict.fromkeys(
        ("vuv_error", "f0_corr", "f0_rmse_cents", "gross_pitch_error", "f0_range_ratio"), np.nan
    )
    if not mask.any():
        return out
    voiced_ref, voiced_deg = mask & (ref > 0), mask & (deg > 0)
    out["vuv_error"] = float(np.mean((ref > 0)[mask] != (deg > 0)[mask]))
    if min(voiced_ref.sum(), voiced_deg.sum()) >= MIN_VOICED_FRAMES:
        range_ref, range_deg = _range_cents(ref[voiced_ref]), _range_cents(deg[voiced_deg])
        if range_ref > 1.0:  # cents; a constant original has no range to keep
            out["f0_range_ratio"] = range_deg / range_ref
    both = voiced_ref & voiced_deg
    if both.sum() < MIN_VOICED_FRAMES:
        return out
    a, b = 1200.0 * np.log2(ref[both]), 1200.0 * np.log2(deg[both])
    out["f0_rmse_cents"] = float(np.sqrt(np.mean((a - b) ** 2)))
    out["gross_pitch_error"] = float(np.mean(np.abs(deg[both] / ref[both] - 1.0) > GROSS_ERROR))
    if min(a.std(), b.std()) > 1e-6:
        out["f0_corr"] = float(np.corrcoef(a, b)[0, 1])
    return out


def _range_cents(f0: np.ndarray) -> float:
    low, high = np.percentile(1200.0 * np.log2(f0), [5, 95])
    return float(high - low)
