# SPDX-License-Identifier: Apache-2.0
"""The shipped clips, and the user's own."""

from __future__ import annotations

import csv
import hashlib

import pytest
import soundfile as sf

from affectcodec.audio import AudioError
from affectcodec.demo.clips import MAX_SECONDS, own_clips, samples_folder, shipped_clips
from tests.cli.clips import make_clip

LICENCES = {"Public domain", "CC BY 4.0"}


def manifest() -> list[dict[str, str]]:
    with (samples_folder() / "manifest.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_manifest_and_folder_agree():
    rows = manifest()
    names = {path.name for path in samples_folder().glob("*.flac")}
    assert {row["path"] for row in rows} == names and len(rows) == len(names) >= 4
    for row in rows:
        path = samples_folder() / row["path"]
        assert hashlib.sha256(path.read_bytes()).hexdigest() == row["sha256"], row["path"]
        info = sf.info(path)
        assert (info.samplerate, info.channels) == (16000, 1)
        assert info.duration == pytest.approx(float(row["duration"]), abs=1e-3)
        assert 2 <= info.duration <= 6


def test_every_clip_may_be_given_away_and_is_credited():
    text = (samples_folder() / "LICENSES.md").read_text(encoding="utf-8")
    for row in manifest():
        assert row["licence"] in LICENCES
        assert row["attribution"] and row["speaker"] and row["source_id"]
        assert row["path"].removesuffix(".flac") in text
    assert sum(p.stat().st_size for p in samples_folder().iterdir()) < 1_500_000


def test_speakers_and_genders_differ():
    rows = manifest()
    assert len({(row["source"], row["speaker"]) for row in rows}) == len(rows)
    assert {row["gender"] for row in rows} == {"f", "m"}


def test_shipped_clips_load():
    clips = shipped_clips(16000)
    assert [clip.name for clip in clips] == [row["path"][:-5] for row in manifest()]
    assert all(clip.text and "(" in clip.credit and clip.wave.ndim == 1 for clip in clips)
    assert all(0.01 < abs(clip.wave).max() <= 1 for clip in clips)


def test_own_clips_are_cut_and_named_apart(tmp_path):
    first = make_clip(tmp_path / "a.wav", MAX_SECONDS + 1, rate=8000)
    second = make_clip(tmp_path / "sub/a.flac", 0.5, rate=44100, channels=2)
    clips = own_clips([first, second], 16000)
    assert [clip.name for clip in clips] == ["a", "a-2"]
    assert len(clips[0].wave) == MAX_SECONDS * 16000 and "first 30 s" in clips[0].title
    assert len(clips[1].wave) == 8000 and clips[1].title == "a.flac"


def test_a_bad_file_is_named(tmp_path):
    with pytest.raises(AudioError, match="nope.wav"):
        own_clips([tmp_path / "nope.wav"], 16000)
