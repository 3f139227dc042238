# SPDX-License-Identifier: Apache-2.0
"""Pictures as PNG bytes and SVG text, with NumPy alone: spectrograms, tokens, F0 contours.

Pictures carry no text and no axes: the page adds both, so that they follow its colours.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import numpy as np

# "magma" of matplotlib (CC0) at nine points; linear in between.
_ANCHORS = np.array(
    [
        (0, 0, 4), (28, 16, 68), (79, 18, 123), (129, 37, 129), (181, 54, 122),
        (229, 80, 100), (251, 135, 97), (254, 194, 135), (252, 253, 191),
    ],
    dtype=np.float64,
)  # fmt: skip

# Eight colours of like weight that stay apart for colour-blind eyes (after Okabe and Ito).
_EIGHT = np.array(
    [
        (0, 114, 178), (86, 180, 233), (0, 158, 115), (240, 228, 66),
        (230, 159, 0), (213, 94, 0), (204, 121, 167), (150, 150, 150),
    ],
    dtype=np.uint8,
)  # fmt: skip

_FFT, _HOP, _BANDS = 512, 128, 128
_RANGE_DB = 75.0


def colour_map(values: np.ndarray) -> np.ndarray:
    """Values in 0..1 of any shape -> uint8 ``[..., 3]``."""
    place = np.clip(values, 0, 1) * (len(_ANCHORS) - 1)
    channels = [np.interp(place, np.arange(len(_ANCHORS)), _ANCHORS[:, i]) for i in range(3)]
    return np.rint(np.stack(channels, -1)).astype(np.uint8)


def png(pixels: np.ndarray) -> bytes:
    """PNG of uint8 ``[height, width, 3]``, or of colour map indices ``[height, width]``."""
    height, width = pixels.shape[:2]
    palette = b""
    kind = 2
    if pixels.ndim == 2:
        kind = 3
        palette = _chunk(b"PLTE", colour_map(np.arange(256) / 255).tobytes())
    rows = pixels.astype(np.uint8).reshape(height, -1)
    # Filter 1, differences to the pixel on the left, suits pictures; indices pack best as they are.
    step = 3 if kind == 2 else 0
    if step:
        rows = np.concatenate([rows[:, :step], rows[:, step:] - rows[:, :-step]], 1)
    lines = np.concatenate([np.full((height, 1), 1 if step else 0, np.uint8), rows], 1)
    head = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    data = zlib.compress(lines.tobytes(), 9)
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", head)
        + palette
        + _chunk(b"IDAT", data)
        + _chunk(b"IEND", b"")
    )


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def spectrum_db(wave: np.ndarray) -> np.ndarray:
    """Wave ``[n]`` -> levels in dB, ``[128 bands, frames]``, lowest band first, linear in Hz."""
    padded = np.pad(np.asarray(wave, np.float64), (_FFT // 2, _FFT))
    frames = np.lib.stride_tricks.sliding_window_view(padded, _FFT)[::_HOP]
    count = max(1, -(-len(wave) // _HOP))
    power = np.abs(np.fft.rfft(frames[:count] * np.hanning(_FFT), axis=1)[:, : 2 * _BANDS]) ** 2
    pooled = power.reshape(len(power), _BANDS, 2).max(-1)
    return 10 * np.log10(pooled.T + 1e-10)


def spectrogram_png(wave: np.ndarray, top_db: float) -> bytes:
    """Spectrogram from 0 Hz (bottom) to half the rate (top).

    Args:
        wave: ``[n]``.
        top_db: level of the brightest colour, e.g. the maximum of ``spectrum_db(original)``: the
            same one for all versions of a clip.
    """
    level = (spectrum_db(wave) - top_db) / _RANGE_DB + 1
    return png(np.rint(np.clip(level, 0, 1) * 255).astype(np.uint8)[::-1])


def codes_png(codes: np.ndarray, codebook_size: int) -> bytes:
    """Codes ``[stages, frames]`` as one pixel each, first stage on top.

    Eight codes have eight colours; 4096 codes are the 12 bits of a colour, four for each of red,
    green and blue; other codebooks are spread over the colour map.
    """
    if codebook_size == 8:
        return png(_EIGHT[codes])
    if codebook_size == 4096:
        channels = np.stack([codes & 15, codes >> 4 & 15, codes >> 8 & 15], -1)
        return png((40 + channels * 12).astype(np.uint8))
    return png(colour_map(codes / max(1, codebook_size - 1)))


def contour_paths(f0: np.ndarray, low: float, high: float) -> str:
    """SVG path of a pitch contour in a box of 1000 x 100, logarithmic in Hz.

    Args:
        f0: ``[frames]`` in Hz, 0 where unvoiced: the line breaks there.
        low, high: Hz at the bottom and the top of the box.
    """
    x = np.arange(len(f0)) * 1000 / max(1, len(f0) - 1)
    with np.errstate(divide="ignore"):
        y = 100 - 100 * np.log(np.clip(f0, low, high) / low) / np.log(high / low)
    parts: list[str] = []
    pen_down = False
    for here, (across, up) in enumerate(zip(x, y, strict=True)):
        if f0[here] <= 0:
            pen_down = False
            continue
        parts.append(f"{'L' if pen_down else 'M'}{across:.1f} {up:.1f}")
        pen_down = True
    return "".join(parts)


def contour_range(contours: Sequence[np.ndarray]) -> tuple[float, float]:
    """Hz at the bottom and top of a box that holds all contours, rounded to 25 Hz."""
    voiced = np.concatenate([f0[f0 > 0] for f0 in contours])
    if not len(voiced):
        return 50.0, 400.0
    low, high = np.percentile(voiced, [0.5, 99.5])
    bottom = max(50.0, 25 * np.floor(low / 1.15 / 25))
    return float(bottom), float(max(bottom + 50, 25 * np.ceil(high * 1.15 / 25)))
