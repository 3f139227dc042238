# SPDX-License-Identifier: Apache-2.0
"""F0 by SwiftF0, a small convolutional network (package `swift-f0`) that no codec learns from."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

SAMPLE_RATE = 16000
HOP = 80  # 5 ms; the network itself has a frame each 16 ms
VOICED = 0.5  # the network's confidence is calibrated to this
# The network hears level: the softer a wave, the fewer frames it calls voiced. Every wave is
# therefore brought to -26 dB, the level at which speech codecs are tested.
LEVEL_DB = -26.0


@functools.cache
def load_swift() -> Any:
    """The detector, on one thread, so that processes side by side do not crowd each other out.

    Raises:
        ImportError: swift-f0, or the onnxruntime that it runs on, is not installed.
    """
    try:
        from swift_f0 import SwiftF0
    except ImportError as error:
        raise ImportError(
            f"F0 needs the package swift-f0, which does not import ({error}): "
            "pip install 'affectcodec[eval]' (or pip install swift-f0)."
        ) from error
    return SwiftF0(threads=1)


def track(x: np.ndarray, floor_hz: float, ceil_hz: float) -> np.ndarray:
    """F0 in Hz each 5 ms of a 16 kHz wave `[n]`: float64 `[1 + n // 80]`, 0 where unvoiced.

    Confidence is interpolated between the frames of the network, and so is log F0, between its
    voiced frames alone: what it answers for unvoiced ones is no pitch. All zero for silence and
    under 50 ms, which hold too few periods. The level of the wave does not matter.

    Raises:
        ImportError: see `load_swift`.
    """
    wave = np.asarray(x, dtype=np.float64)
    num_frames = 1 + len(wave) // HOP
    peak = np.abs(wave).max(initial=0.0)
    if len(wave) < SAMPLE_RATE // 20 or not peak > 0:
        return np.zeros(num_frames)
    wave = wave / peak  # first, so that no square leaves the range of floats
    wave *= 10.0 ** (LEVEL_DB / 20.0) / np.sqrt(np.mean(wave**2))
    found = load_swift().detect(wave.astype(np.float32), SAMPLE_RATE, floor_hz, ceil_hz)
    sure = found.confidence >= VOICED
    if not sure.any():
        return np.zeros(num_frames)
    times = np.arange(num_frames) * (HOP / SAMPLE_RATE)
    voiced = np.interp(times, found.timestamps, found.confidence) >= VOICED
    log_f0 = np.interp(times, found.timestamps[sure], np.log(found.pitch_hz[sure]))
    return np.where(voiced, np.clip(np.exp(log_f0), floor_hz, ceil_hz), 0.0)
