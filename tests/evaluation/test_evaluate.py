# SPDX-License-Identifier: Apache-2.0
"""A whole run on a made-up corpus, from manifest to tables."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from affectcodec.evaluation.evaluate import (
    Plan,
    check_speakers,
    read_clips,
    run,
    shown_command,
)
from affectcodec.manifest import Clip
from tests.evaluation.sounds import corpus


def test_a_speaker_in_both_splits_is_refused() -> None:
    one, two = (Clip("p", Path("p"), dataset, "s1") for dataset in ("a", "b"))
    check_speakers([one], [two])  # the same name in another corpus is another person
    with pytest.raises(ValueError, match="s1 of a"):
        check_speakers([one], [one])


def test_clips_of_several_manifests(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    both = (corpus(tmp_path / "a", train=1, test=1), corpus(tmp_path / "b", train=0, test=1))
    assert len(read_clips(Plan(both, tmp_path), "test", None)) == 12
    assert len(read_clips(Plan(both, tmp_path), "test", 2)) == 4
    assert len(read_clips(Plan(both, tmp_path), "train", None)) == 6  # one of them has none
    with pytest.raises(ValueError, match="no clip in split"):
        read_clips(Plan(both, tmp_path), "nowhere", None)
    with pytest.raises(ValueError, match="no clip of"):
        read_clips(Plan(both, tmp_path, datasets=("other",)), "test", None)
    with pytest.raises(ValueError, match="no known naming scheme"):
        read_clips(Plan((tmp_path / "a",), tmp_path), "test", None)
    for actor in range(1, 6):
        name = f"03-01-05-02-01-02-{actor:02}.wav"
        (tmp_path / name).write_bytes((tmp_path / "a" / "s0-sad-0.wav").read_bytes())
    (tmp_path / "ravdess").mkdir()
    for path in tmp_path.glob("03-*.wav"):
        path.rename(tmp_path / "ravdess" / path.name)
    some = read_clips(Plan((tmp_path / "ravdess",), tmp_path), "train", None)
    assert [clip.speaker for clip in some] == ["ravdess_01", "ravdess_02", "ravdess_03"]
    with pytest.raises(ValueError, match="no file"):
        read_clips(Plan((tmp_path / "none.csv",), tmp_path), "test", None)


def test_the_command_shows_no_private_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plan = Plan(
        ("/far/away/data/m.csv",),  # type: ignore[arg-type]
        Path("out"),
        codecs=("opus:6",),
        weights=("mine=/far/runs/mine",),
        split="dev",
        jobs=2,
    )
    assert shown_command(plan) == (
        "affectcodec evaluate data/m.csv --split dev --codec opus:6 --weights mine=runs/mine "
        "--out out"
    )


@pytest.mark.slow
def test_from_manifest_to_tables(tmp_path: Path) -> None:
    for package in ("opensmile", "sklearn", "pesq", "pystoi", "swift_f0"):
        pytest.importorskip(package)
    plan = Plan(
        (corpus(tmp_path),),
        tmp_path / "out",
        codecs=("narrowband",),
        measures=("egemaps", "reconstruction"),
        compare=("narrowband=narrowband",),
        cache=tmp_path / "cache",
        quiet=True,
    )
    page = run(plan)
    assert run(plan) == page  # everything from the cache
    results = json.loads((plan.out / "results.json").read_text())
    # One judge's measure was asked for: that one judges, and no other.
    assert list(results["emotion"]["made"]) == ["egemaps_svm"]
    judge = results["emotion"]["made"]["egemaps_svm"]
    # the emotions differ by pitch, level and pace: any judge has to find them
    assert judge["codecs"]["original"]["uar"]["mean"] == 1.0
    assert judge["codecs"]["narrowband"]["kept"]["mean"] > 0.6
    assert judge["classes"] == ["angry", "neutral", "sad"] and judge["clips"] == 12
    assert results["metrics"]["all"]["codecs"]["narrowband"]["kbps"] == pytest.approx(128, rel=0.01)
    assert results["metrics"]["all"]["codecs"]["original"]["metrics"]["stoi"]["mean"] > 0.999
    assert results["concordance"]["original"]["all"]["mean"] == pytest.approx(1.0)
    assert results["concordance"]["narrowband"]["f0"]["mean"] > 0.8
    assert "joint" not in results["emotion"]  # one corpus only
    for words in ("Emotion, made: eGeMAPS + SVM", "| `narrowband` | 128.0", "open"):
        assert words in page
    assert (plan.out / "results.md").read_text() == page
    report = (plan.out / "report.html").read_text()
    assert "<svg" not in report  # controls have no rate to draw over
    assert report.count("<audio") == 4 and "Confusion" not in report and "made" in report
