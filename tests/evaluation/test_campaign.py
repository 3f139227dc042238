# SPDX-License-Identifier: Apache-2.0
"""Cache, delay and failures of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from affectcodec.audio import save_audio
from affectcodec.evaluation import campaign
from affectcodec.evaluation.alignment import shift
from affectcodec.evaluation.baselines import Coded
from affectcodec.evaluation.campaign import CODING, Measured, bitrate, find_delay, measure_all
from affectcodec.evaluation.controls import PassThrough
from affectcodec.evaluation.measures import Measure, Pair
from affectcodec.evaluation.store import Store
from affectcodec.manifest import Clip, read_manifest
from tests.evaluation.sounds import corpus


@dataclass
class Late:
    """Comes 240 samples late at a gain."""

    gain: float = 0.5
    calls: list[int] = field(default_factory=list)
    name: str = "late"

    @property
    def fingerprint(self) -> str:
        return f"{self.name}-{self.gain}"

    def roundtrip(self, wav: np.ndarray) -> Coded:
        self.calls.append(len(wav))
        return Coded(shift(np.float32(self.gain) * wav, -240, len(wav) + 400), 500.0)


def level(pair: Pair) -> dict[str, float]:
    if pair.clip.emotion == "sad":
        raise ValueError("too sad to say")
    return {"ratio": float(np.dot(pair.ref, pair.deg) / np.dot(pair.ref, pair.ref))}


LEVEL = Measure("level", 1, level, "gain")
SPEECH = Measure("speech", 1, lambda pair: pair.speech[:5], "first samples")


@pytest.fixture
def clips(tmp_path: Path) -> list[Clip]:
    return read_manifest(corpus(tmp_path, train=0, test=1, takes=1), split="test")


@pytest.fixture
def made_up_codecs(monkeypatch: pytest.MonkeyPatch) -> dict[str, Late]:
    codecs = {"late": Late()}
    monkeypatch.setattr(campaign, "make_codecs", lambda names, _: [codecs[n] for n in names])
    monkeypatch.setattr(campaign, "BY_NAME", {"level": LEVEL, "speech": SPEECH})
    return codecs


def run(clips: list[Clip], codec: Late, store: Store, *measures: Measure) -> Measured:
    return measure_all(
        [(clips, [codec.name], measures)], [codec], store, weights={}, progress=False
    )


def test_delay_is_found_once_and_removed(
    clips: list[Clip], made_up_codecs: dict[str, Late], tmp_path: Path
) -> None:
    codec = made_up_codecs["late"]
    with Store(tmp_path / "cache") as store:
        measured = run(clips, codec, store, LEVEL)
        assert (measured.delays["late"].samples, measured.delays["late"].clips) == (240, 6)
        found = measured.value(clips[0], "late", "level")
        assert isinstance(found, dict) and found["ratio"] == pytest.approx(0.5, abs=0.01)
        calls = len(codec.calls)
        find_delay(codec, store)
        assert len(codec.calls) == calls


def test_only_what_is_missing_is_measured(
    clips: list[Clip], made_up_codecs: dict[str, Late], tmp_path: Path
) -> None:
    codec = made_up_codecs["late"]
    with Store(tmp_path / "cache") as store:
        run(clips[:2], codec, store, LEVEL)
        codec.calls.clear()
        run(clips[:2], codec, store, LEVEL)
        assert codec.calls == []
        run(clips, codec, store, LEVEL)
        assert len(codec.calls) == 1
        run(clips, codec, store, LEVEL, SPEECH)  # one coding a clip, whatever is missing
        assert len(codec.calls) == 4
    # other weights under the same name, and other content under the same path, are not old results
    made_up_codecs["late"] = changed = Late(gain=0.25)
    with Store(tmp_path / "cache") as store:
        measured = run(clips[:1], changed, store, LEVEL)
        found = measured.value(clips[0], "late", "level")
        assert isinstance(found, dict) and found["ratio"] == pytest.approx(0.25, abs=0.01)
        changed.calls.clear()
        save_audio(clips[0].file, np.ones(16000, "f4") * 0.1, 16000)
        run(clips[:1], changed, store, LEVEL)
        assert changed.calls == [16000]


def test_a_measure_without_a_value_says_why(
    clips: list[Clip], made_up_codecs: dict[str, Late], tmp_path: Path
) -> None:
    sad = next(clip for clip in clips if clip.emotion == "sad")
    with Store(tmp_path / "cache") as store:
        measured = run(clips, made_up_codecs["late"], store, LEVEL)
    assert measured.value(sad, "late", "level") is None
    assert measured.reason(sad, "late", "level") == "too sad to say"
    assert measured.value(sad, "late", "speech") is None
    assert measured.reason(clips[0], "late", "level") == ""
    assert isinstance(measured.value(sad, "late", CODING), dict)


def test_a_silent_original_is_told(made_up_codecs: dict[str, Late], tmp_path: Path) -> None:
    save_audio(tmp_path / "nothing.wav", np.zeros(8000, "f4"), 16000)
    clip = Clip("nothing.wav", tmp_path / "nothing.wav", "x", "s")
    with Store(tmp_path / "cache") as store:
        measured = run([clip], made_up_codecs["late"], store, SPEECH)
    assert measured.reason(clip, "late", "speech") == "the original is silent"


def test_bits_are_those_really_used(
    clips: list[Clip], made_up_codecs: dict[str, Late], tmp_path: Path
) -> None:
    with Store(tmp_path / "cache") as store:
        measured = run(clips, made_up_codecs["late"], store)
    assert bitrate(measured, clips, "late") == pytest.approx(500 / 1.2 / 1000)
    assert np.isnan(bitrate(measured, clips, "another"))


@pytest.mark.slow
def test_processes_give_the_same(tmp_path: Path) -> None:
    pytest.importorskip("opensmile")
    from affectcodec.evaluation.measures import find_measures

    clips = read_manifest(corpus(tmp_path, train=0, test=1), split="test")
    codecs = [PassThrough("original", 16000), PassThrough("narrowband", 8000)]
    names = [codec.name for codec in codecs]
    found = []
    for jobs in (1, 2):
        with Store(tmp_path / f"cache{jobs}") as store:
            measured = measure_all(
                [(clips, names, find_measures(["egemaps"]))],
                codecs,
                store,
                weights={},
                jobs=jobs,
                progress=False,
            )
        found.append([measured.value(c, name, "egemaps") for c in clips for name in names])
    for one, two in zip(*found, strict=True):
        assert isinstance(one, np.ndarray)
        np.testing.assert_array_equal(one, two)
