# SPDX-License-Identifier: Apache-2.0
"""F0 by short-time autocorrelation and a best path through its peaks (after Boersma 1993).

It makes the prosody targets of training and is the second F0 tracker of the evaluation. Why not
WORLD's dio: that reads F0 off the fundamental itself. Codec 2 lowers the first harmonic by 30 dB
wherever F0 is under 150 Hz, as telephone channels do, and dio then answers an octave too high for a
voice that any listener hears at the right pitch; so it does for some voices as recorded. The
autocorrelation sees the period in all harmonics. Since codecs learn from it, evaluations have
another one first, which teaches none.

Only 40 to 4000 Hz are looked at, so that a codec is not called unvoiced, or more voiced, for the
bandwidth it carries.
"""

from __future__ import annotations

import numpy as np

SAMPLE_RATE = 16000
HOP = 80  # 5 ms
WINDOW = 800  # 50 ms, three periods of the lowest pitch
FFT_SIZE = 2048  # linear, not circular, correlation up to the longest lag
BAND_HZ = (40.0, 4000.0)
MAX_CANDIDATES = 8

# In units of normalised autocorrelation; path costs are for steps of 10 ms. The paper has 0.45 for
# voicing and 0.01 for octaves. Chosen on original dev recordings alone, against the frames where
# dio and harvest agree: of those, 1.8 % (RAVDESS) and 0.3 % (nEMO) are more than 20 % off, with the
# paper's values 2.2 and 0.8 %, most of them a first formant taken for the pitch of a low voice.
VOICING_THRESHOLD = 0.55
SILENCE_THRESHOLD = 0.03
OCTAVE_COST = 0.002
OCTAVE_JUMP_COST = 0.35
VOICING_CHANGE_COST = 0.14
_STEP_CORRECTION = 0.01 / (HOP / SAMPLE_RATE)


def track(x: np.ndarray, floor_hz: float, ceil_hz: float) -> np.ndarray:
    """F0 in Hz each 5 ms of a 16 kHz wave `[n]`: float64 `[1 + n // 80]`, 0 where unvoiced."""
    wave = np.asarray(x, dtype=np.float64)
    num_frames = 1 + len(wave) // HOP
    peak = np.abs(wave).max(initial=0.0)
    if not peak > 0:
        return np.zeros(num_frames)
    # frame t is centred on sample 80 t
    padded = np.pad(wave, (WINDOW // 2, WINDOW // 2 + HOP))
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP][:num_frames]
    loudness = np.abs(frames).max(axis=1) / peak
    correlation = _normalised_autocorrelation(frames)
    lags, strengths = _candidates(correlation, floor_hz, ceil_hz)
    with np.errstate(divide="ignore"):
        f0 = np.where(lags > 0, SAMPLE_RATE / np.maximum(lags, 1e-9), 0.0)
        octave = OCTAVE_COST * np.log2(np.maximum(floor_hz * lags / SAMPLE_RATE, 1e-9))
    scores = np.where(lags > 0, strengths - octave, -np.inf)
    silence = np.maximum(0.0, 2.0 - loudness * (1.0 + VOICING_THRESHOLD) / SILENCE_THRESHOLD)
    scores[:, 0] = VOICING_THRESHOLD + silence  # candidate 0 is "unvoiced"
    return _best_path(f0, scores)


def _normalised_autocorrelation(frames: np.ndarray) -> np.ndarray:
    """`[t, 800]` -> `[t, 400]`: autocorrelation over that of the window, 1 at lag 0."""
    window = np.hanning(WINDOW + 2)[1:-1]
    hz = np.fft.rfftfreq(FFT_SIZE, 1.0 / SAMPLE_RATE)
    in_band = (hz >= BAND_HZ[0]) & (hz <= BAND_HZ[1])
    power = np.abs(np.fft.rfft(frames * window, FFT_SIZE, axis=1)) ** 2 * in_band
    raw = np.fft.irfft(power, FFT_SIZE, axis=1)[:, : WINDOW // 2]
    own = np.fft.irfft(np.abs(np.fft.rfft(window, FFT_SIZE)) ** 2, FFT_SIZE)[: WINDOW // 2]
    return raw / np.maximum(raw[:, :1], 1e-20) * (own[0] / own)


def _candidates(
    correlation: np.ndarray, floor_hz: float, ceil_hz: float
) -> tuple[np.ndarray, np.ndarray]:
    """Strongest local maxima: (lags in samples, heights) `[t, 1 + 8]`; lag 0 means none."""
    low = int(np.floor(SAMPLE_RATE / ceil_hz))
    high = min(int(np.ceil(SAMPLE_RATE / floor_hz)), correlation.shape[1] - 2)
    before = correlation[:, low - 1 : high]
    here = correlation[:, low : high + 1]
    after = correlation[:, low + 1 : high + 2]
    curve = 2.0 * here - before - after
    is_peak = (here > before) & (here >= after) & (here > 0.3) & (curve > 1e-12)
    safe = np.where(is_peak, curve, 1.0)
    offset = np.where(is_peak, 0.5 * (after - before) / safe, 0.0)
    height = np.where(is_peak, here + 0.25 * (after - before) * offset, -np.inf)
    # a correlation above 1 comes of dividing by the window's: reflect it, as the paper does
    height = np.where(height > 1.0, 1.0 / height, height)
    count = min(MAX_CANDIDATES, height.shape[1])
    # the octave cost belongs in the choice of candidates, else only multiples of the period survive
    lag = np.arange(low, high + 1) + offset
    rank = height - OCTAVE_COST * np.log2(floor_hz * lag / SAMPLE_RATE)
    order = np.argsort(-rank, axis=1, kind="stable")[:, :count]
    lags = np.zeros((len(correlation), count + 1))
    strengths = np.full((len(correlation), count + 1), -np.inf)
    chosen = np.take_along_axis(height, order, axis=1)
    lags[:, 1:] = np.where(np.isfinite(chosen), np.take_along_axis(lag, order, axis=1), 0.0)
    strengths[:, 1:] = chosen
    return lags, strengths


def _best_path(f0: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Viterbi over candidates `[t, c]`; candidate 0 is unvoiced."""
    voiced = f0 > 0
    log_f0 = np.log2(np.where(voiced, f0, 1.0))
    total = scores[0].copy()
    back = np.zeros(f0.shape, dtype=np.intp)
    for t in range(1, len(f0)):
        both = voiced[t - 1][:, None] & voiced[t][None]
        jump = OCTAVE_JUMP_COST * np.abs(log_f0[t - 1][:, None] - log_f0[t][None])
        change = VOICING_CHANGE_COST * (voiced[t - 1][:, None] ^ voiced[t][None])
        reach = total[:, None] - _STEP_CORRECTION * (np.where(both, jump, 0.0) + change)
        back[t] = np.argmax(reach, axis=0)
        total = reach[back[t], np.arange(f0.shape[1])] + scores[t]
    path = np.zeros(len(f0), dtype=np.intp)
    path[-1] = int(np.argmax(total))
    for t in range(len(f0) - 1, 0, -1):
        path[t - 1] = back[t, path[t]]
    return f0[np.arange(len(f0)), path]
