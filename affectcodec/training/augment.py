# SPDX-License-Identifier: Apache-2.0
"""Level, noise and rooms. Waves are float32 ``[N]``; every choice comes from the generator given.

Nothing here moves a sound in time: targets that were made of the clean wave stay true.
"""

from __future__ import annotations

import math

import numpy as np

_PEAK = 0.99


def fit(wav: np.ndarray, gain: float) -> np.ndarray:
    """``wav`` times ``gain``, or times less if it would leave [-0.99, 0.99]."""
    peak = float(np.abs(wav).max(initial=1e-9))
    return (wav * min(gain, _PEAK / peak)).astype(np.float32)


def coloured_noise(length: int, tilt_db_per_octave: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise of unit power whose spectrum falls by a constant number of dB an octave."""
    size = _fast_size(length)
    spectrum = np.fft.rfft(rng.standard_normal(size, dtype=np.float32))
    octave = np.log2(np.maximum(np.arange(len(spectrum)), 1) / len(spectrum))
    spectrum *= 10 ** (-tilt_db_per_octave * octave / 20)
    spectrum[0] = 0
    noise = np.fft.irfft(spectrum, size)[:length]
    return _unit_power(noise)


def room_response(
    seconds: float, direct_db: float, sample_rate: int, rng: np.random.Generator
) -> np.ndarray:
    """Impulse response of a room, its direct sound first, ``float32 [R]``.

    After the direct sound, noise that decays exponentially (Polack's model, 1988) by 60 dB in
    ``seconds``; ``direct_db`` is the ratio of the energies of the two.
    """
    length = max(2, round(seconds * sample_rate))
    decay = np.exp(-math.log(1000) * np.arange(length) / (seconds * sample_rate))
    tail = rng.standard_normal(length) * decay
    # The first reflection comes back after some metres; without a gap it would colour the voice.
    tail[: max(1, round(0.004 * sample_rate))] = 0
    energy = float(np.sum(np.square(tail)))
    if energy > 0:
        tail *= math.sqrt(10 ** (-direct_db / 10) / energy)
    tail[0] = 1.0
    return tail.astype(np.float32)


def reverberate(wav: np.ndarray, response: np.ndarray) -> np.ndarray:
    """The wave in the room, at its length and its power."""
    size = _fast_size(len(wav) + len(response) - 1)
    wet = np.fft.irfft(np.fft.rfft(wav, size) * np.fft.rfft(response, size), size)[: len(wav)]
    before, after = _power(wav), _power(wet)
    return (wet * math.sqrt(before / after if after > 0 else 1.0)).astype(np.float32)


def add_noise(wav: np.ndarray, noise: np.ndarray, snr_db: float) -> np.ndarray:
    """Speech plus noise at a ratio of powers in dB; noise alone makes no sound of silence."""
    power = _power(noise)
    if power <= 0:
        return wav
    gain = math.sqrt(_power(wav) / power / 10 ** (snr_db / 10))
    return (wav + gain * noise).astype(np.float32)


def _power(wav: np.ndarray) -> float:
    return float(np.mean(np.square(wav, dtype=np.float64))) if len(wav) else 0.0


def _unit_power(wav: np.ndarray) -> np.ndarray:
    power = _power(wav)
    return (wav / math.sqrt(power) if power > 0 else wav).astype(np.float32)


def _fast_size(length: int) -> int:
    """The next length of the form 2^k or 3 * 2^k, for which transforms are quick."""
    size = 1 << max(1, (length - 1).bit_length())
    return size * 3 // 4 if size * 3 // 4 >= length and size >= 4 else size
