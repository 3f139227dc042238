# SPDX-License-Identifier: Apache-2.0
"""Controls do what they are there for."""

from __future__ import annotations

import numpy as np
import pytest

from affectcodec.evaluation.controls import LowPass, MuLaw, PassThrough, World
from affectcodec.evaluation.metrics import measure
from affectcodec.evaluation.pitch import f0_track
from tests.evaluation.sounds import speech, voice


def test_pass_through() -> None:
    x = voice(1.0)
    same = PassThrough("original", 16000).roundtrip(x)
    np.testing.assert_allclose(same.wav, x, atol=1 / 32768)
    assert same.bits == 256_000
    narrow = PassThrough("narrowband", 8000).roundtrip(x)
    assert narrow.bits == 128_000 and len(narrow.wav) == len(x)
    upper = np.abs(np.fft.rfft(narrow.wav))[4200:]
    assert upper.max() < 0.01 * np.abs(np.fft.rfft(x)).max()


def test_low_pass_keeps_what_is_below() -> None:
    x = np.random.default_rng(0).standard_normal(16000).astype("f4") * 0.1
    coded = LowPass(2.0).roundtrip(x)
    before, after = np.abs(np.fft.rfft(x)), np.abs(np.fft.rfft(coded.wav))
    assert coded.bits == 256_000
    np.testing.assert_allclose(after[100:1500], before[100:1500], rtol=0.05, atol=0.5)
    assert after[3000:].max() < 1e-3 * before.max()
    assert LowPass(2.0).roundtrip(x[:3]).wav.shape == (3,)


def test_mu_law_noise_is_known() -> None:
    t = np.arange(16000) / 16000
    x = (0.5 * np.sin(2 * np.pi * 440 * t)).astype("f4")
    coded = MuLaw().roundtrip(x)
    ratio = 10 * np.log10(np.mean(x**2) / np.mean((x - coded.wav) ** 2))
    assert 35.0 < ratio < 41.0  # 38 dB, whatever the level
    quiet = MuLaw().roundtrip(x * np.float32(0.05))
    ratio = 10 * np.log10(np.mean((0.05 * x) ** 2) / np.mean((0.05 * x - quiet.wav) ** 2))
    assert ratio > 28.0
    assert coded.bits == 128_000
    assert MuLaw().roundtrip(np.array([0, 2, -2], dtype="f4")).wav.tolist() == [0.0, 1.0, -1.0]


def test_flat_f0_is_flat_and_only_that() -> None:
    for package in ("pyworld", "swift_f0"):
        pytest.importorskip(package)
    x = speech("angry", 3, seconds=1.5)
    same, flat = World(flat=False).roundtrip(x).wav, World(flat=True).roundtrip(x).wav
    tracks = [f0_track(wav) for wav in (x, same, flat)]
    spread = [np.std(1200 * np.log2(track[track > 0])) for track in tracks]
    assert spread[1] > 0.7 * spread[0] and spread[2] < 0.2 * spread[0]
    assert len(same) == len(flat) == len(x)


def test_prosody_metrics_see_the_flat_contour() -> None:
    for package in ("pyworld", "pesq", "pystoi", "swift_f0"):
        pytest.importorskip(package)
    x = speech("angry", 4, seconds=1.5)
    found = {flat: measure(x, World(flat=flat).roundtrip(x).wav).values for flat in (False, True)}
    assert found[False]["f0_corr"] > 0.9 and not found[True]["f0_corr"] > 0.5
    assert found[False]["f0_range_ratio"] > 0.7 and found[True]["f0_range_ratio"] < 0.3
    assert found[True]["energy_corr"] > 0.8


def test_a_clip_without_voice_passes() -> None:
    pytest.importorskip("pyworld")
    x = np.zeros(4000, dtype="f4")
    np.testing.assert_array_equal(World(flat=True).roundtrip(x).wav, x)
