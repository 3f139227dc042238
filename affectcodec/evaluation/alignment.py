# SPDX-License-Identifier: Apache-2.0
"""Before any frame-wise metric: remove a codec's delay, and find where speech is.

Both decisions come from the original (the region) or are one constant of the codec (the delay), so
every codec is measured on exactly the same samples of every clip.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SAMPLE_RATE = 16000
WINDOW = 400  # 25 ms
HOP = 160  # 10 ms
MARGIN = 1600  # 100 ms kept before the first and after the last active frame

_LEVEL_FLOOR = 1e-12  # -120 dB re full scale, below the last bit of 16
_ACTIVE_BELOW_PEAK_DB = 40.0  # the threshold STOI uses for silent frames
_ACTIVE_ABOVE_NOISE_DB = 6.0
_NOISE_AT_MOST_BELOW_PEAK_DB = 20.0

# Waveform correlation above which the waveform, not the envelope, decides the delay.
_WAVEFORM_TRUST = 0.5


def frame_signal(x: np.ndarray) -> np.ndarray:
    """`[n]` -> `[frames, 400]`, hop 160 samples, whole frames only (at least one, zero-padded)."""
    if len(x) < WINDOW:
        x = np.pad(x, (0, WINDOW - len(x)))
    return np.lib.stride_tricks.sliding_window_view(x, WINDOW)[::HOP]


def frame_levels(x: np.ndarray) -> np.ndarray:
    """`[n]` -> level of each 25 ms frame in dB re full-scale square wave, at least -120."""
    frames = frame_signal(np.asarray(x, dtype=np.float64))
    return 10.0 * np.log10(np.maximum(np.mean(frames**2, axis=1), _LEVEL_FLOOR))


def active_frames(ref: np.ndarray) -> np.ndarray:
    """`[n]` -> bool `[frames]`: where the original speaks.

    Active is what lies less than 40 dB under the clip's loudest frames (their 95th percentile) and
    at least 6 dB above its noise (10th percentile of the levels, which is taken for noise only
    where it is more than 20 dB below the loudest: a clip without pauses has none).
    A clip whose loudest frames are under -100 dB has no active frame.
    """
    levels = frame_levels(ref)
    peak = np.percentile(levels, 95)
    if peak < -100.0:
        return np.zeros(len(levels), dtype=bool)
    noise = np.percentile(levels, 10) + _ACTIVE_ABOVE_NOISE_DB
    noise = min(noise, peak - _NOISE_AT_MOST_BELOW_PEAK_DB)
    return levels >= max(peak - _ACTIVE_BELOW_PEAK_DB, noise)


def active_region(ref: np.ndarray) -> tuple[int, int] | None:
    """First and last sample (exclusive) of the speech in `ref` `[n]`, with 100 ms on both sides.

    Pauses inside stay. None if nothing is active.
    """
    where = np.flatnonzero(active_frames(ref))
    if not len(where):
        return None
    start = max(0, int(where[0]) * HOP - MARGIN)
    stop = min(len(ref), int(where[-1]) * HOP + WINDOW + MARGIN)
    return start, stop


@dataclass(frozen=True)
class Alignment:
    """`deg` moved onto `ref`.

    Attributes:
        deg: float32 `[len(ref)]`, shifted by `delay`, zeros where nothing is left.
        delay: samples by which the degraded wave came late (negative: early).
        similarity: normalised correlation at that delay, 0..1; of the waveform if `from_waveform`,
            else of the envelope. Near 0 means that the delay is a guess.
        from_waveform: which of the two decided.
    """

    deg: np.ndarray
    delay: int
    similarity: float
    from_waveform: bool


def shift(deg: np.ndarray, delay: int, length: int) -> np.ndarray:
    """Removes `delay` samples at the front (or adds -delay zeros), cuts or pads to `length`."""
    out = np.zeros(length, dtype=np.float32)
    piece = deg[max(delay, 0) :]
    at = max(-delay, 0)
    piece = piece[: max(length - at, 0)]
    out[at : at + len(piece)] = piece
    return out


def align(ref: np.ndarray, deg: np.ndarray, max_delay: int = 1600) -> Alignment:
    """Finds the delay of `deg` `[m]` against `ref` `[n]` and removes it.

    The smoothed envelopes are correlated first: they survive a codec that does not keep phase
    (Codec 2), where the waveform's correlation peaks at a random multiple of the pitch period. Then
    the waveforms are correlated within 8 ms of that; where they are alike (normalised peak of at
    least 0.5) they decide, to the sample.

    Args:
        ref, deg: float waves at 16 kHz.
        max_delay: largest delay looked for either way, in samples.

    Raises:
        ValueError: an empty wave or a negative max_delay.
    """
    if not len(ref) or not len(deg):
        raise ValueError(f"align: empty wave (ref {len(ref)}, deg {len(deg)} samples)")
    if max_delay < 0:
        raise ValueError(f"align: max_delay must be at least 0 samples, got {max_delay}")
    ref64, deg64 = np.asarray(ref, np.float64), np.asarray(deg, np.float64)
    coarse, similarity = _best_lag(_envelope(ref64), _envelope(deg64), -max_delay, max_delay)
    low, high = max(-max_delay, coarse - 128), min(max_delay, coarse + 128)
    fine, waveform = _best_lag(ref64, deg64, low, high)
    from_waveform = waveform >= _WAVEFORM_TRUST
    delay = fine if from_waveform else coarse
    return Alignment(
        deg=shift(np.asarray(deg, np.float32), delay, len(ref)),
        delay=delay,
        similarity=float(np.clip(waveform if from_waveform else similarity, 0.0, 1.0)),
        from_waveform=bool(from_waveform),
    )


def _envelope(x: np.ndarray) -> np.ndarray:
    """Root of the magnitude (loud vowels must not decide alone) over 10 ms, mean removed."""
    window = np.hanning(WINDOW // 2 + 2)[1:-1]
    smooth = np.convolve(np.abs(x), window / window.sum(), mode="same")[: len(x)]
    envelope = np.sqrt(np.maximum(smooth, 0.0))
    return envelope - envelope.mean()


def _best_lag(a: np.ndarray, b: np.ndarray, low: int, high: int) -> tuple[int, float]:
    """Lag of b against a in low..high with the largest normalised correlation, and that value."""
    size = 1 << (len(a) + len(b)).bit_length()
    product = np.fft.rfft(b, size) * np.conj(np.fft.rfft(a, size))
    correlation = np.fft.irfft(product, size)
    lags = np.arange(low, high + 1)
    lags = lags[(lags > -len(a)) & (lags < len(b))]
    if not len(lags):
        return 0, 0.0
    values = correlation[lags % size]
    scale = np.sqrt(np.dot(a, a) * np.dot(b, b))
    if scale <= 0.0:
        return 0, 0.0
    best = int(np.argmax(values))
    return int(lags[best]), float(values[best] / scale)
