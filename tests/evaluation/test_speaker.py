# SPDX-License-Identifier: Apache-2.0
"""Speaker embeddings: the same person is nearer than another."""

from __future__ import annotations

from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from affectcodec.audio import load_audio
from affectcodec.evaluation import speaker

SAMPLES = Path(str(files("affectcodec") / "samples"))
needs_weights = pytest.mark.skipif(
    find_spec("resemblyzer") is None, reason="resemblyzer not installed"
)


def sample(name: str) -> np.ndarray:
    return load_audio(SAMPLES / name, sample_rate=16000)[0]


@needs_weights
def test_own_voice_is_nearest() -> None:
    halves = {}
    for name in ("female-1.flac", "male-2.flac", "male-3.flac"):
        wav = sample(name)
        middle = len(wav) // 2
        halves[name] = speaker.embed(wav[:middle]), speaker.embed(wav[middle:])
    for name, (first, _) in halves.items():
        own = speaker.similarity(first, halves[name][1])
        others = [speaker.similarity(first, b) for n, (_, b) in halves.items() if n != name]
        assert own > 0.65 and own > max(others) + 0.05


@needs_weights
def test_embedding_is_a_unit_vector_and_raises_quiet_clips() -> None:
    wav = sample("female-2.flac")
    one, quiet = speaker.embed(0.1 * wav), speaker.embed(0.01 * wav)
    assert one.shape == (256,) and np.linalg.norm(one) == pytest.approx(1.0, abs=1e-5)
    assert speaker.similarity(one, quiet) > 0.9999
    assert speaker.embed(wav[:800]).shape == (256,)
    with pytest.raises(ValueError, match="silent"):
        speaker.embed(np.zeros(16000))
    with pytest.raises(ValueError, match="silent"):
        speaker.embed(np.zeros(0))


def test_mel_bands_of_a_tone() -> None:
    t = np.arange(16000) / 16000
    power = speaker.mel_power(np.sin(2 * np.pi * 1000 * t))
    assert power.shape == (101, 40)
    filters = speaker._mel_filters()
    assert np.argmax(power[50]) == np.argmax(filters[:, 25])  # bin 25 is 1000 Hz
    np.testing.assert_allclose(filters.sum(axis=1)[-10:] * 40.0, 1.0, atol=0.1)  # unit area


def test_missing_weights_name_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    speaker._network.cache_clear()
    monkeypatch.setattr(speaker.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install --no-deps resemblyzer"):
        speaker.embed(np.ones(16000))
    speaker._network.cache_clear()
