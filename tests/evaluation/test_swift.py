# SPDX-License-Identifier: Apache-2.0
"""SwiftF0 on signals whose pitch is known, whatever they lack and however loud they are."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from affectcodec.evaluation import swift
from tests.evaluation.test_pitch import voice


def cents(f0: np.ndarray, truth: np.ndarray | float) -> np.ndarray:
    return 1200 * np.log2(f0 / truth)


@pytest.fixture(autouse=True)
def _installed() -> None:
    pytest.importorskip("swift_f0")


def pulses(hz: float, seconds: float = 1.0) -> np.ndarray:
    """One sample a period, through a resonance at 700 Hz: a voice without any weak harmonic."""
    x = np.zeros(int(seconds * 16000))
    x[np.rint(np.arange(0, len(x) - 1, 16000 / hz)).astype(int)] = 1.0
    ring = np.exp(-np.arange(200) / 40) * np.sin(2 * np.pi * 700 * np.arange(200) / 16000)
    return np.convolve(x, ring)[: len(x)]


@pytest.mark.parametrize("hz", [70.0, 100.0, 160.0, 320.0, 500.0])
def test_a_pulse_train(hz: float) -> None:
    inner = swift.track(pulses(hz), 60.0, 700.0)[20:-20]
    assert (inner > 0).all() and np.abs(cents(inner, hz)).max() < 15


@pytest.mark.parametrize("lowest", [2, 3, 4])
def test_the_octave_is_right_without_the_fundamental(lowest: int) -> None:
    inner = swift.track(voice(110.0, lowest=lowest), 60.0, 700.0)[20:-20]
    assert np.abs(cents(inner, 110.0)).max() < 15


def test_a_glide_at_its_instants() -> None:
    hz = 100 * 2 ** np.linspace(0, 1.5, 32000)
    f0 = swift.track(voice(hz, 2.0), 60.0, 700.0)
    inner = slice(20, -20)
    error = cents(f0[inner], np.append(hz, hz[-1])[::80][inner])
    # a shift of one 5 ms frame would be 4.5 cents
    assert abs(np.median(error)) < 3 and np.abs(error).max() < 20


def test_the_level_does_not_matter() -> None:
    x = voice(np.linspace(120, 240, 16000)) * (np.sin(np.arange(16000) / 2000) > -0.3)
    wanted = swift.track(x, 60.0, 700.0)
    assert 0.3 < (wanted > 0).mean() < 0.9
    for gain in (1e-200, 1e-4, 10.0, 1e200):
        np.testing.assert_allclose(swift.track(x * gain, 60.0, 700.0), wanted, rtol=1e-4)


def test_voicing_begins_and_ends_where_the_voice_does() -> None:
    x = np.concatenate([np.zeros(8000), voice(150.0, 0.5), np.zeros(8000)])
    x += 1e-4 * np.random.default_rng(0).standard_normal(len(x))
    f0 = swift.track(x, 60.0, 700.0)
    voiced = np.flatnonzero(f0)
    assert abs(voiced[0] - 100) <= 5 and abs(voiced[-1] - 200) <= 5
    # also at the edges, where the network's next frame holds no pitch
    assert np.abs(cents(f0[voiced], 150.0)).max() < 60


@pytest.mark.parametrize("length", [0, 1, 80, 799])
def test_under_50_ms_is_unvoiced(length: int) -> None:
    x = voice(200.0)[:length]
    np.testing.assert_array_equal(swift.track(x, 60.0, 700.0), np.zeros(1 + length // 80))


@pytest.mark.parametrize("length", [800, 801, 1023, 16001])
def test_every_length_has_its_frames(length: int) -> None:
    assert swift.track(voice(200.0, 1.1)[:length], 60.0, 700.0).shape == (1 + length // 80,)


def test_silence_and_an_offset_are_unvoiced() -> None:
    assert not swift.track(np.zeros(16000), 60.0, 700.0).any()
    assert not swift.track(np.full(16000, 0.3), 60.0, 700.0)[10:-10].any()


def test_pitch_outside_of_the_range_is_never_told() -> None:
    for hz in (50.0, 900.0):
        f0 = swift.track(voice(hz), 60.0, 700.0)
        assert ((f0 == 0) | ((f0 >= 60) & (f0 <= 700))).all()


def test_one_session_a_process() -> None:
    assert swift.load_swift() is swift.load_swift()


def test_the_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "swift_f0", None)
    swift.load_swift.cache_clear()
    with pytest.raises(ImportError, match=r"swift-f0.*pip install 'affectcodec\[eval\]'"):
        swift.track(voice(100.0), 60.0, 700.0)
    # silence asks for no network
    assert not swift.track(np.zeros(1600), 60.0, 700.0).any()
