# SPDX-License-Identifier: Apache-2.0
"""Level-sensitive measures in dB: log-mel distance, energy contour, level.

Nothing is normalised: speech that comes back 6 dB louder is 6 dB off, since loudness carries
arousal.
"""

from __future__ import annotations

import functools

import numpy as np

from affectcodec.evaluation.alignment import SAMPLE_RATE, WINDOW, frame_levels, frame_signal

NUM_MELS = 80
FFT_SIZE = 512
# Bands weaker than this below the original's strongest band of the clip count as equal: what lies
# there is inaudible, and the rounding noise of 16-bit files would otherwise decide the distance.
DYNAMIC_RANGE_DB = 70.0


@functools.cache
def mel_filters() -> tuple[np.ndarray, np.ndarray]:
    """(triangular filters `[80, 257]`, HTK mel scale over 0..8 kHz; upper edges in Hz `[80]`)."""

    def to_mel(hz: float) -> float:
        return float(2595.0 * np.log10(1.0 + hz / 700.0))

    mels = np.linspace(to_mel(0.0), to_mel(SAMPLE_RATE / 2), NUM_MELS + 2)
    edges = 700.0 * (10.0 ** (mels / 2595.0) - 1.0)
    hz = np.arange(FFT_SIZE // 2 + 1) * SAMPLE_RATE / FFT_SIZE
    lower, centre, upper = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (hz - lower) / (centre - lower), (upper - hz) / (upper - centre)
    filters = np.maximum(0.0, np.minimum(rising, falling))
    filters.setflags(write=False)
    return filters, edges[2:]


def mel_power(x: np.ndarray) -> np.ndarray:
    """`[n]` at 16 kHz -> mel power `[frames, 80]`, 25 ms Hann windows each 10 ms."""
    frames = frame_signal(np.asarray(x, dtype=np.float64)) * np.hanning(WINDOW + 1)[:-1]
    power = np.abs(np.fft.rfft(frames, FFT_SIZE, axis=1)) ** 2
    return power @ mel_filters()[0].T


def mel_distances(ref: np.ndarray, deg: np.ndarray, active: np.ndarray) -> dict[str, float]:
    """Mean absolute log-mel difference in dB over active frames: all bands, and those up to 4 kHz.

    Args:
        ref, deg: aligned waves `[n]`.
        active: bool `[frames]` of the original.

    Returns:
        mel_db (0-8 kHz) and mel_4k_db (the bands that end at or below 4 kHz, which is all that an
        8 kHz codec can carry); NaN without an active frame. Levels lower than 70 dB below the
        original's strongest band are raised to that on both sides.
    """
    a, b = mel_power(ref), mel_power(deg)
    count = min(len(a), len(b), len(active))
    mask = np.asarray(active[:count], dtype=bool)
    if not mask.any() or not a.max() > 0:
        return {"mel_db": np.nan, "mel_4k_db": np.nan}
    floor = a[:count][mask].max() * 10.0 ** (-DYNAMIC_RANGE_DB / 10.0)
    a, b = np.maximum(a[:count][mask], floor), np.maximum(b[:count][mask], floor)
    difference = np.abs(10.0 * np.log10(b / a))
    narrow = mel_filters()[1] <= 4000.0
    return {"mel_db": float(difference.mean()), "mel_4k_db": float(difference[:, narrow].mean())}


def energy_metrics(ref: np.ndarray, deg: np.ndarray, active: np.ndarray) -> dict[str, float]:
    """Loudness contour and level over active frames.

    Returns (NaN where undefined):
        energy_corr: Pearson correlation of the frame levels in dB (25 ms, each 10 ms).
        level_diff_db: mean power of the active frames, degraded over original, signed.
        level_error_db: its magnitude.
    """
    a, b = frame_levels(ref), frame_levels(deg)
    count = min(len(a), len(b), len(active))
    mask = np.asarray(active[:count], dtype=bool)
    out = dict.fromkeys(("energy_corr", "level_diff_db", "level_error_db"), np.nan)
    if not mask.any():
        return out
    a, b = a[:count][mask], b[:count][mask]
    mean_a, mean_b = np.mean(10.0 ** (a / 10.0)), np.mean(10.0 ** (b / 10.0))
    out["level_diff_db"] = float(10.0 * np.log10(mean_b / mean_a))
    out["level_error_db"] = abs(out["level_diff_db"])
    if len(a) >= 3 and min(a.std(), b.std()) > 1e-6:
        out["energy_corr"] = float(np.corrcoef(a, b)[0, 1])
    return out
