# SPDX-License-Identifier: Apache-2.0
"""The clip cache: what it keeps, what it skips, and the targets it computes."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from affectcodec.training.cache import (
    EMOTIONS,
    Clip,
    ClipCache,
    prosody_targets,
    read_manifest,
)
from affectcodec.training.cache import _key as cache_key
from tests.codec_fixtures import HOP, speech_like, tiny_config
from tests.training.bad_data import wav_bytes
from tests.training.sounds import RATE, build_cache, cache_of, tone


def test_readable_clips_are_kept_in_order(cache: ClipCache) -> None:
    assert [clip.dataset for clip in cache.clips] == ["a", "a", "b", "b"]
    assert [clip.num_samples for clip in cache.clips] == [2 * RATE, RATE, RATE, RATE]
    assert cache.seconds == 5
    want = [EMOTIONS.index("happy"), EMOTIONS.index("sad"), -1, -1]
    assert [clip.emotion for clip in cache.clips] == want  # unknown labels are no labels


def test_unusable_clips_are_listed_with_the_reason(cache: ClipCache) -> None:
    reasons = {Path(path).name: reason for path, reason in cache.skipped}
    assert sorted(reasons) == ["broken.wav", "short.wav", "silent.wav"]
    assert "400 samples" in reasons["short.wav"]
    assert "no active speech" in reasons["silent.wav"]
    assert "cannot be decoded" in reasons["broken.wav"]


def test_samples_and_targets_belong_to_their_clip(cache: ClipCache) -> None:
    for clip, wave in zip(
        cache.clips[:2], (speech_like(2 * RATE, 0), speech_like(RATE, 1)), strict=True
    ):
        got = cache.pcm[clip.sample_offset : clip.sample_offset + clip.num_samples] / 32767
        assert np.abs(got - wave.numpy()).max() < 1e-4
        assert clip.num_frames == tiny_config().num_frames(clip.num_samples)
        assert 0 <= clip.active_start < clip.active_end <= clip.num_frames
    last = cache.clips[-1]
    assert len(cache.pcm) == last.sample_offset + last.num_samples
    assert len(cache.prosody) == last.frame_offset + last.num_frames


def test_a_cache_is_reused_and_a_changed_manifest_makes_a_new_one(
    corpus: Path, cache: ClipCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    monkeypatch.setattr(ClipCache, "_write", lambda *a: made.append(1))
    assert build_cache(corpus).folder == cache.folder
    assert made == []
    with pytest.raises(FileNotFoundError):
        build_cache(corpus, speeds=(1.0, 0.9))
    assert made == [1]


def one_clip(folder: Path, seed: int = 0) -> Clip:
    path = folder / "a.wav"
    path.write_bytes(wav_bytes(speech_like(RATE, seed).numpy()))
    return Clip(str(path), "a", "", -1)


def test_an_edit_that_keeps_the_size_makes_a_new_cache(tmp_path: Path) -> None:
    before = cache_of([one_clip(tmp_path)], tmp_path)
    size = (tmp_path / "a.wav").stat().st_size
    assert cache_of([one_clip(tmp_path, seed=1)], tmp_path).folder != before.folder
    assert (tmp_path / "a.wav").stat().st_size == size


def test_a_cache_named_without_times_serves_while_its_files_are_older(tmp_path: Path) -> None:
    """Caches of older releases are not made again."""
    clip = one_clip(tmp_path)
    os.utime(clip.path, (1000, 1000))
    made = cache_of([clip], tmp_path)
    old = made.folder.with_name(cache_key([clip], tiny_config(), (1.0,), times=False))
    made.folder.rename(old)
    record = json.loads((old / "index.json").read_text())
    record.pop("noted")
    later = ("path", "speaker", "speed", "arousal", "valence", "digest")
    for entry in record["clips"]:
        for name in later:
            del entry[name]
    (old / "index.json").write_text(json.dumps(record))
    again = cache_of([clip], tmp_path)
    assert again.folder == old and again.noted == [] and len(again.clips) == 1
    # A file of the same size that is younger than the cache is another file.
    os.utime(clip.path, (2e9, 2e9))
    assert cache_of([clip], tmp_path).folder != old


def test_a_cache_pickles_as_its_folder(cache: ClipCache) -> None:
    data = pickle.dumps(cache)
    assert len(data) < 500
    again = pickle.loads(data)
    assert again.clips == cache.clips and np.array_equal(again.pcm, cache.pcm)


def test_speeds_are_further_clips(corpus: Path) -> None:
    clips = read_manifest(corpus / "manifest.csv", "dev")
    cache = cache_of(clips, corpus, speeds=(1.0, 0.8))
    plain, slow = cache.clips
    assert slow.num_samples == pytest.approx(plain.num_samples / 0.8, abs=2)
    f0 = [
        np.exp(np.median(cache.prosody[c.frame_offset : c.frame_offset + c.num_frames, 0]))
        for c in (plain, slow)
    ]
    assert f0[1] / f0[0] == pytest.approx(0.8, rel=0.02)


def test_a_corpus_without_a_usable_clip_is_an_error(tmp_path: Path) -> None:
    clip = Clip(str(tmp_path / "missing.wav"), "a", "", -1)
    with pytest.raises(ValueError, match="none of the clips can be used.*missing.wav"):
        cache_of([clip], tmp_path)
    with pytest.raises(ValueError, match="clips: got none"):
        cache_of([], tmp_path)


def test_a_manifest_without_its_columns_or_rows_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("file,split\na.wav,train\n")
    with pytest.raises(ValueError, match="path"):
        read_manifest(path, "train")
    path.write_text("path,dataset,speaker,emotion,split\na.wav,d,s,sad,train\n")
    with pytest.raises(ValueError, match="'test'"):
        read_manifest(path, "test")
    assert [Path(clip.path).name for clip in read_manifest(path, "train")] == ["a.wav"]


@pytest.mark.parametrize("hz", [90.0, 200.0, 350.0])
def test_targets_of_a_tone(hz: float) -> None:
    targets = prosody_targets(tone(hz), tiny_config())
    assert targets.shape == (tiny_config().num_frames(RATE), 3)
    assert targets.dtype == np.float32
    inside = targets[5:-5]
    assert inside[:, 1].all() and inside[:, 2].all()
    cents = 1200 / math.log(2) * np.abs(inside[:, 0] - math.log(hz))
    assert cents.max() < 20


def test_targets_need_no_fundamental() -> None:
    t = np.arange(RATE) / RATE
    voice = sum(np.sin(2 * np.pi * 110.0 * k * t) for k in range(3, 16)).astype(np.float32) * 0.05
    inside = prosody_targets(voice, tiny_config())[5:-5]
    assert inside[:, 1].all()
    assert np.abs(1200 * np.log2(np.exp(inside[:, 0]) / 110.0)).max() < 10


@pytest.mark.parametrize("rate", [24000, 48000])
def test_targets_at_other_rates(rate: int) -> None:
    hop = rate // 50
    network = dataclasses.replace(
        tiny_config().network,
        analysis_window=hop * 3 // 2,
        analysis_hop=hop // 2,
        pitch_window=rate // 10,
    )
    config = dataclasses.replace(tiny_config(), sample_rate=rate, hop_length=hop, network=network)
    hz = np.linspace(120, 240, rate)
    wave = 0.3 * np.sin(2 * np.pi * np.cumsum(hz) / rate)
    targets = prosody_targets(wave.astype(np.float32), config)
    assert len(targets) == config.num_frames(rate)
    centres = np.minimum(np.arange(len(targets)) * hop, rate - 1)
    cents = 1200 / math.log(2) * np.abs(targets[:, 0] - np.log(hz[centres]))
    assert cents[5:-5].max() < 30


def test_targets_of_silence_and_noise() -> None:
    silent = prosody_targets(np.zeros(RATE, np.float32), tiny_config())
    assert not silent[:, 1:].any()
    assert np.isfinite(silent).all()
    noise = np.random.default_rng(0).standard_normal(RATE).astype(np.float32) * 0.1
    assert prosody_targets(noise, tiny_config())[:, 1].mean() < 0.5


def test_voicing_follows_the_sound() -> None:
    wave = np.concatenate([np.zeros(RATE // 2, np.float32), tone(150.0), np.zeros(RATE // 2)])
    targets = prosody_targets(wave.astype(np.float32), tiny_config())
    start, end = RATE // 2 // HOP, (RATE // 2 + RATE) // HOP
    assert not targets[: start - 3, 1:].any()
    assert targets[start + 3 : end - 3, 1:].all()
    assert not targets[end + 3 :, 1:].any()
    # Gaps are filled, so that the source always has a pitch to follow.
    assert abs(np.exp(targets[0, 0]) - 150) < 5
