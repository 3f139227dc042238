# SPDX-License-Identifier: Apache-2.0
"""Whisper on speech whose words are known."""

from __future__ import annotations

import csv
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from affectcodec.audio import load_audio
from affectcodec.evaluation import whisper
from affectcodec.evaluation.words import count_errors

for package in (*whisper.PARTS, "faster_whisper", "rapidfuzz"):
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed", allow_module_level=True)

pytestmark = pytest.mark.slow
SAMPLES = Path(str(files("affectcodec") / "samples"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> whisper.Whisper:
    cache = tmp_path_factory.mktemp("cache")
    folder = whisper.model_folder(cache)
    assert whisper.model_folder(cache) == folder  # made once
    return whisper.Whisper(folder)


def sample(name: str) -> tuple[np.ndarray, str]:
    with (SAMPLES / "manifest.csv").open(newline="") as file:
        words = {row["path"]: row["transcript"] for row in csv.DictReader(file)}
    return load_audio(SAMPLES / name, sample_rate=16000)[0], words[name]


def test_known_words(model: whisper.Whisper) -> None:
    edits = total = 0
    for name in ("female-1.flac", "male-1.flac"):
        wav, words = sample(name)
        errors = count_errors(words, model.transcribe(wav, "en"))
        edits, total = edits + errors.word_edits, total + errors.words
    assert edits / total <= 0.1
    assert total > 20


def test_noise_does_not_run_away(model: whisper.Whisper) -> None:
    noise = 0.05 * np.random.default_rng(0).standard_normal(16000).astype("f4")
    assert len(model.transcribe(noise, "en").split()) < 40


def test_statistics_hear_the_speech_and_not_the_padding(model: whisper.Whisper) -> None:
    wav, _ = sample("male-1.flac")
    own = model.statistics(wav)
    assert own.shape == (whisper.NUM_FEATURES,) and np.isfinite(own).all()
    np.testing.assert_array_equal(own, model.statistics(wav.copy()))
    louder = model.statistics(2.0 * wav)
    other = model.statistics(sample("female-1.flac")[0])
    assert np.linalg.norm(own - louder) < 0.2 * np.linalg.norm(own - other)
    # mean and deviation of nothing but padding are another matter
    assert np.linalg.norm(own - model.statistics(np.zeros(16000, "f4"))) > 1.0


def test_long_and_empty_clips(model: whisper.Whisper) -> None:
    wav, _ = sample("female-2.flac")
    assert model.statistics(np.zeros(0, "f4")).shape == (whisper.NUM_FEATURES,)
    assert np.isfinite(model.statistics(np.tile(wav, 11))).all()  # 34 s: two pieces


def test_an_unknown_language_is_an_error(model: whisper.Whisper) -> None:
    with pytest.raises(ValueError, match="'klingon'"):
        model.transcribe(np.zeros(1600, "f4"), "klingon")


@pytest.mark.parametrize(
    ("seconds", "window"), [(0.1, 10), (9.5, 10), (9.6, 20), (21, 30), (60, 30)]
)
def test_window_depends_on_length_alone(seconds: float, window: int) -> None:
    assert whisper.window_samples(int(seconds * 16000)) == window * 16000
