# SPDX-License-Identifier: Apache-2.0
"""Augmentation: ratios are what was asked for, nothing moves, nothing clips."""

from __future__ import annotations

import numpy as np
import pytest

from affectcodec.training import augment
from affectcodec.training.config_data import AugmentConfig, LoaderConfig

RATE = 16000


def power(x: np.ndarray) -> float:
    return float(np.mean(np.square(x, dtype=np.float64)))


def test_levels_never_leave_full_scale() -> None:
    x = np.array([0.1, -0.5], np.float32)
    np.testing.assert_allclose(augment.fit(x, 1.5), 1.5 * x)
    assert np.abs(augment.fit(x, 100.0)).max() == pytest.approx(0.99)
    assert not augment.fit(np.zeros(3, np.float32), 10.0).any()
    assert augment.fit(np.zeros(0, np.float32), 10.0).shape == (0,)


@pytest.mark.parametrize("tilt", [0.0, 6.0])
def test_noise_has_its_tilt(tilt: float) -> None:
    noise = augment.coloured_noise(1 << 16, tilt, np.random.default_rng(0))
    assert power(noise) == pytest.approx(1.0)
    spectrum = np.square(np.abs(np.fft.rfft(noise)))
    octaves = [spectrum[1 << k : 2 << k].mean() for k in range(8, 14)]
    slopes = np.diff(10 * np.log10(octaves))
    assert slopes.mean() == pytest.approx(-tilt, abs=0.3)


def test_the_ratio_of_speech_to_noise() -> None:
    rng = np.random.default_rng(0)
    speech = rng.standard_normal(RATE).astype(np.float32)
    noise = rng.standard_normal(RATE).astype(np.float32)
    mixed = augment.add_noise(speech, noise, 12.0)
    assert 10 * np.log10(power(speech) / power(mixed - speech)) == pytest.approx(12, abs=1e-3)
    assert augment.add_noise(speech, np.zeros(RATE), 0.0) is speech
    silence = np.zeros(RATE, np.float32)
    assert not augment.add_noise(silence, noise, 0.0).any()


def test_a_room_decays_as_asked_and_starts_with_the_direct_sound() -> None:
    response = augment.room_response(0.5, 6.0, RATE, np.random.default_rng(1))
    assert response[0] == 1 and not response[1 : RATE // 250].any()
    assert 10 * np.log10(1 / np.square(response[1:]).sum()) == pytest.approx(6, abs=0.01)
    early = power(response[1000:2000])
    late = power(response[5000:6000])
    # 4000 samples are half of 0.5 s: 30 dB.
    assert 10 * np.log10(early / late) == pytest.approx(30, abs=1.5)


def test_reverberation_keeps_time_and_power() -> None:
    wav = np.zeros(4000, np.float32)
    wav[1500] = 0.5
    response = augment.room_response(0.2, 10.0, RATE, np.random.default_rng(2))
    wet = augment.reverberate(wav, response)
    assert wet.shape == wav.shape and wet.dtype == np.float32
    assert np.abs(wet[:1500]).max() < 1e-6
    assert int(np.abs(wet).argmax()) == 1500
    assert power(wet) == pytest.approx(power(wav), rel=1e-5)
    assert not augment.reverberate(np.zeros(100, np.float32), response).any()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: AugmentConfig(noise=1.5), "noise is a share"),
        (lambda: AugmentConfig(reverb=float("nan")), "reverb is a share"),
        (lambda: AugmentConfig(noise_snr_db=(9.0, 3.0)), "the smaller first"),
        (lambda: AugmentConfig(reverb_seconds=(0.0, 1.0)), "from 0.01 on"),
        (lambda: LoaderConfig(workers=-1), "workers must be an integer from 0 on"),
        (lambda: LoaderConfig(prefetch=0), "prefetch must be"),
    ],
)
def test_bad_settings_are_named(make, words: str) -> None:
    with pytest.raises(ValueError) as caught:
        make()
    assert words in str(caught.value)
