# SPDX-License-Identifier: Apache-2.0
"""Sources of clips, and that nothing bad in them stops a run or is lost without a word."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import numpy as np
import pytest

from affectcodec.training.cache import ClipCache
from affectcodec.training.data import (
    EMOTIONS,
    Clip,
    folder_clips,
    hub_clips,
    manifest_clips,
)
from affectcodec.training.data_report import DataReport
from tests.codec_fixtures import speech_like, tiny_config
from tests.training.bad_data import (
    NOTED,
    RATE,
    SKIPPED,
    USED,
    wav_bytes,
    write_bad_corpus,
    write_bad_lines,
)


def cached(clips: list[Clip], folder: Path) -> ClipCache:
    return ClipCache.build(clips, tiny_config(), folder, progress=False, workers=1)


def test_thirty_kinds_of_bad_data_are_all_accounted_for(tmp_path: Path) -> None:
    manifest, wants = write_bad_corpus(tmp_path / "bad")
    assert len([what for what, _ in wants.values() if what != USED]) >= 30
    report = DataReport()
    clips = manifest_clips(manifest, "train", report)
    cache = cached(clips, tmp_path / "cache")
    cache.describe(report)
    used = {clip.path for clip in cache.clips}
    for name, (what, words) in wants.items():
        if name.startswith("row: "):
            reasons = [r for item, r in report.skipped.items() if f"{manifest}:" in item]
            assert [words] in reasons, name
            continue
        item = os.path.realpath(tmp_path / "bad" / name)
        found = {SKIPPED: report.skipped, NOTED: report.noted}.get(what, {})
        if what != USED:
            assert item in found, f"{name}: not {what}: {report.skipped}"
            assert words in "; ".join(found[item]), name
        else:
            assert item not in report.skipped and item not in report.noted, name
        assert (item in used) == (what != SKIPPED or name == "good.wav"), name
    assert report.used == len(used) == len(cache.clips)
    # Every row of the manifest is in one of the three.
    assert {clip.path for clip in clips} <= used | set(report.skipped)
    report.write(tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text())["used"] == len(used)
    assert all(line.isprintable() for line in report.summary(limit=99))


def test_a_file_without_permission_is_skipped(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    for name in ("a.wav", "b.wav"):
        (tmp_path / name).write_bytes(wav_bytes(speech_like(RATE, 1).numpy()))
    (tmp_path / "a.wav").chmod(0)
    clips = [Clip(str(tmp_path / name), "x", "", -1) for name in ("a.wav", "b.wav")]
    cache = cached(clips, tmp_path / "cache")
    assert [Path(clip.path).name for clip in cache.clips] == ["b.wav"]
    assert "permission" in cache.skipped[0][1]


def test_json_lines(tmp_path: Path) -> None:
    path, wants = write_bad_lines(tmp_path)
    report = DataReport()
    (clip,) = manifest_clips(path, "train", report)
    assert clip.emotion == EMOTIONS.index("happy")
    assert (clip.arousal, clip.valence) == (0.0, None)
    assert len(report.skipped) == len(wants)
    for words, reasons in zip(wants, report.skipped.values(), strict=True):
        assert words in reasons[0]


def test_a_folder_is_walked_once_and_in_order(tmp_path: Path) -> None:
    for name in ("b/2.wav", "b/1.wav", "a/x.flac", "notes.txt"):
        (tmp_path / "c" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "c" / name).write_bytes(b"")
    (tmp_path / "c" / "a" / "again").symlink_to(tmp_path / "c")
    report = DataReport()
    clips = folder_clips(tmp_path / "c", "train", report)
    assert [Path(c.path).name for c in clips] == ["x.flac", "1.wav", "2.wav"]
    assert [(c.dataset, c.speaker) for c in clips] == [("c", "a"), ("c", "b"), ("c", "b")]
    assert [Path(item).name for item in report.skipped] == ["notes.txt"]
    assert folder_clips(tmp_path / "c", "dev", report) == []
    (tmp_path / "c" / "dev").mkdir()
    (tmp_path / "c" / "dev" / "d.wav").write_bytes(b"")
    assert [Path(c.path).name for c in folder_clips(tmp_path / "c", "dev", report)] == ["d.wav"]
    assert folder_clips(tmp_path / "c", "train", report) == []  # it has splits, and no such one
    with pytest.raises(ValueError, match="no folder"):
        folder_clips(tmp_path / "nowhere", "train", report)


def test_hugging_face_data_sets(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    (tmp_path / "outside.wav").write_bytes(wav_bytes(speech_like(RATE, 2).numpy()))
    rows = {
        "audio": [
            {"bytes": wav_bytes(speech_like(RATE, 0).numpy()), "path": None},
            {"bytes": None, "path": str(tmp_path / "outside.wav")},
            {"bytes": b"no sound", "path": None},
            None,
        ],
        "emotion": [1, 0, 0, 0],
        "speaker": ["s1", "s2", "s3", "s4"],
        "arousal": [0.25, None, 1.0, 1.0],
    }
    features = datasets.Features(
        {
            "audio": {"bytes": datasets.Value("binary"), "path": datasets.Value("string")},
            "emotion": datasets.ClassLabel(names=["bored", "happy"]),
            "speaker": datasets.Value("string"),
            "arousal": datasets.Value("float32"),
        }
    )
    made = datasets.Dataset.from_dict(rows, features=features)
    made = made.cast_column("audio", datasets.Audio(decode=False))
    datasets.DatasetDict({"train": made}).save_to_disk(tmp_path / "hub")
    report = DataReport()
    clips = hub_clips(str(tmp_path / "hub"), "train", report)
    assert [clip.speaker for clip in clips] == ["s1", "s2", "s3", "s4"]
    assert [clip.emotion for clip in clips] == [EMOTIONS.index("happy"), -1, -1, -1]
    assert clips[0].arousal == 0.25 and clips[1].arousal is None
    assert len(report.noted) == 3  # 'bored' is not a label that is known
    assert hub_clips(str(tmp_path / "hub"), "dev", report) == []
    cache = cached(list(clips), tmp_path / "cache")
    assert [c.path for c in cache.clips] == [clips[0].path, clips[1].path]
    got = cache.pcm[: cache.clips[0].num_samples] / 32767
    assert np.abs(got - speech_like(RATE, 0).numpy()).max() < 1e-4
    assert [Path(item).name for item, _ in cache.skipped] == ["hub[train][2]", "hub[train][3]"]
    assert cached(list(clips), tmp_path / "cache").folder == cache.folder
    with pytest.raises(ValueError, match="no column 'sound'"):
        hub_clips(str(tmp_path / "hub"), "train", report, column="sound")
    with pytest.raises(ValueError, match="cannot be read"):
        hub_clips(str(tmp_path / "nothing-here"), "train", report)


def test_pipes_are_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "p.wav")
    assert stat.S_ISFIFO(os.stat(tmp_path / "p.wav").st_mode)
    with pytest.raises(ValueError, match="pipe or device"):
        Clip(str(tmp_path / "p.wav"), "", "", -1).open()
