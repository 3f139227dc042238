# SPDX-License-Identifier: Apache-2.0
"""Pictures: that they can be read, and that they show what is there."""

from __future__ import annotations

import io

import numpy as np
import pytest

from affectcodec.demo.pictures import (
    codes_png,
    colour_map,
    contour_paths,
    contour_range,
    png,
    spectrogram_png,
    spectrum_db,
)

Image = pytest.importorskip("PIL.Image")


def opened(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def test_png_keeps_colours_and_indices():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    assert np.array_equal(opened(png(pixels)), pixels)
    indices = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    assert np.array_equal(opened(png(indices)), colour_map(indices / 255))


def test_a_tone_is_a_line_at_its_frequency():
    time = np.arange(16000) / 16000
    wave = 0.5 * np.sin(2 * np.pi * 2000 * time)
    levels = spectrum_db(wave)
    assert levels.shape == (128, 125)
    assert set(levels[:, 20:100].argmax(0)) == {32}  # 2 of 8 kHz in 128 bands
    picture = opened(spectrogram_png(wave, levels.max())).sum(-1)
    assert picture.shape == (128, 125) and picture[:, 60].argmax() == 127 - 32  # low at the bottom
    quieter = opened(spectrogram_png(wave / 100, levels.max())).sum(-1)
    assert quieter[95, 60] < picture[95, 60]


def test_one_sample_and_silence_have_a_picture():
    assert opened(spectrogram_png(np.zeros(1), 0.0)).shape == (128, 1, 3)


@pytest.mark.parametrize("size", [8, 4096, 5, 1000])
def test_every_code_has_its_colour(size):
    codes = np.arange(size)[None]
    picture = opened(codes_png(codes, size))[0]
    distinct = len({tuple(p) for p in picture})
    assert distinct == size or (size == 1000 and distinct > 200)


def test_contours_break_where_unvoiced():
    path = contour_paths(np.array([0, 100, 200, 0, 400.0]), 100, 400)
    assert path == "M250.0 100.0L500.0 50.0M1000.0 0.0"
    assert contour_paths(np.zeros(4), 100, 400) == ""
    assert contour_paths(np.array([900.0]), 100, 400) == "M0.0 0.0"  # stays in the box


def test_contour_range():
    low, high = contour_range([np.array([0, 120, 240.0])])
    assert low <= 120 / 1.1 and high >= 240 * 1.1
    assert contour_range([np.zeros(5)]) == (50.0, 400.0)
