# SPDX-License-Identifier: Apache-2.0
"""``affectcodec train``: from a manifest to weights that encode takes."""

from __future__ import annotations

import csv
import json
import os
import sys
from pathlib import Path

import pytest
import torch

from affectcodec.config import CodecConfig
from affectcodec.training.cache import ClipCache
from tests.cli.clips import make_clip
from tests.training.bad_data import write_bad_corpus

TINY = (
    "--set", "batch_size=2", "--set", "crop_frames=40", "--set", "checkpoint_every=1",
    "--set", "eval_every=100", "--set", "speeds=[1.0]",
    "--set", "codec.network.acoustic_width=16", "--set", "codec.network.acoustic_blocks=1",
    "--set", "codec.network.emotion_width=16", "--set", "codec.network.emotion_blocks=1",
    "--set", "codec.network.decoder_width=16", "--set", "codec.network.decoder_blocks=1",
)  # fmt: skip


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    rows = []
    for index, split in enumerate(("train", "train", "dev")):
        make_clip(tmp_path / f"data/{index}.wav", 1.0)
        rows.append((f"{index}.wav", "tones", f"s{index}", "happy", split))
    path = tmp_path / "data/manifest.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("path", "dataset", "speaker", "emotion", "split"), *rows])
    return path


def shown(run, *arguments: object) -> dict:
    done = run("train", "--show-config", *arguments)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_configuration_is_laid_in_layers(run, manifest, tmp_path):
    given = tmp_path / "c.json"
    given.write_text(json.dumps({"steps": 7, "batch_size": 3, "loss": {"mel": 5.0}}))
    config = shown(
        run, "--manifest", manifest, "--out", tmp_path / "run", "--config", given,
        "--set", "loss.f0=0.5", "--set", "batch_size=4", "--steps", 9,
        "--datasets-weights", "tones=2", "--datasets-weights", "b=0.5",
    )  # fmt: skip
    assert (config["steps"], config["batch_size"]) == (9, 4)
    assert (config["loss"]["mel"], config["loss"]["f0"]) == (5.0, 0.5)
    assert config["dataset_weights"] == {"tones": 2.0, "b": 0.5}
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--set", "stepz=3"), "did you mean steps?"),
        (("--set", "loss.mell=3"), "did you mean loss.mel?"),
        (("--set", "loss=3"), "is a group of"),
        (("--set", "steps"), "wanted KEY=VALUE"),
        (("--set", "steps=none"), "steps must be a positive integer"),
        (("--datasets-weights", "a=-1"), "a weight of 0 or more"),
        (("--datasets-weights", "a"), "wanted NAME=WEIGHT"),
        (("--resume",), "no checkpoint in"),
        (("--preset", "huge"), "unknown name 'huge'"),
        (("--preset", "stream", "--weights", "stream"), "leave --preset out"),
        (("--shards", "no-name"), "wanted NAME=PATTERN"),
        (("--shards", "x=/nowhere/*.tar"), "names no tar file"),
        (("--dry-run", "--gpus", "5"), "cannot be shared by 5 processes"),
        (("--manifest", "nope.csv"), "nope.csv"),
    ],
)
def test_wrong_use(run, manifest, tmp_path, arguments, message):
    done = run("train", "--manifest", manifest, "--out", tmp_path / "run", *arguments)
    assert done.exit_code == 2
    assert message in done.stderr.replace("\n", " ")


@pytest.mark.parametrize("text", ["[1]", "{broken"])
def test_bad_configuration_file(run, manifest, tmp_path, text):
    given = tmp_path / "c.json"
    given.write_text(text)
    done = run("train", "--manifest", manifest, "--out", tmp_path / "r", "--config", given)
    assert done.exit_code == 2 and "c.json" in done.stderr


def test_a_split_without_clips_is_an_error(run, manifest, tmp_path):
    done = run("train", "--manifest", manifest, "--out", tmp_path / "r", "--train-split", "x")
    assert done.exit_code == 1 and "no clip in split 'x'" in done.stderr


def test_missing_extras_are_named(run, manifest, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    done = run("train", "--manifest", manifest, "--out", tmp_path / "r")
    assert done.exit_code == 1
    assert "tensorboard" in done.stderr and "pip install 'affectcodec[train]'" in done.stderr


def test_threads_limit_the_caching_of_clips_too(run, manifest, tmp_path, monkeypatch):
    asked = []

    def build(*arguments, workers=None, **others):
        asked.append(workers)
        raise ValueError("seen enough")

    monkeypatch.setattr(ClipCache, "build", build)
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    run("train", "--manifest", manifest, "--out", tmp_path / "r", "--threads", 3)
    assert asked == [3, 3]


def test_what_to_train_on_and_where_to_must_be_named(run, tmp_path):
    done = run("train", "--out", tmp_path / "r")
    assert done.exit_code == 2 and "name what to train on" in done.stderr
    done = run("train", "--folder", tmp_path)
    assert done.exit_code == 2 and "--out: name the folder" in done.stderr
    done = run("train", "--resume")
    assert done.exit_code == 2 and "--resume goes on with the run in --out" in done.stderr


def test_presets_and_weights_set_the_codec(run):
    assert shown(run, "--preset", "paper")["codec"]["network"]["kind"] == "snake"
    assert shown(run)["codec"]["name"] == "stream"
    config = shown(run, "--weights", "stream", "--set", "dataset_weights_end={}")
    assert config["codec"] == CodecConfig().to_dict()


def test_a_dry_run_needs_no_data_and_leaves_nothing(run, tmp_path):
    done = run("train", "--dry-run", "--gpus", 2, *TINY, "--out", tmp_path / "r", "--tflops", 5)
    assert done.exit_code == 0, done.output
    for words in ("[1, 40, 256]", "GiB", "on each of 2 device(s)", "at 5 TFLOP/s"):
        assert words in done.stdout
    assert not (tmp_path / "r").exists()


@pytest.mark.slow
def test_bad_data_does_not_stop_a_run_and_all_of_it_is_listed_at_its_end(run, tmp_path):
    """More than thirty kinds of it, between clips that train; from weights, and on from there."""
    make_clip(tmp_path / "data/train/a/0.wav", 1.0)
    manifest, wants = write_bad_corpus(tmp_path / "bad")
    out = tmp_path / "run"
    pairs = zip(TINY[::2], TINY[1::2], strict=True)
    small = [text for pair in pairs if "codec" not in pair[1] for text in pair]
    done = run(
        "train", "--folder", tmp_path / "data", "--manifest", manifest,
        "--out", out, "--weights", "stream",
        "--threads", 1, *small, "--steps", 1, "--export", tmp_path / "w", "--export-warm",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "starting from stream" in done.stderr
    report = json.loads((out / "data.json").read_text())
    used = [name for name, (what, _) in wants.items() if what != "skipped"]
    assert report["used"] == len(used) + 2  # the folder's clip, and the one that is listed twice
    assert len(report["skipped"]) >= len(wants) - len(used)
    for name, (what, _) in wants.items():
        if what != "used" and not name.startswith("row"):
            item = os.path.realpath(tmp_path / "bad" / name)
            assert item in report[what], name
    assert f"{report['used']} clips used" in done.stderr
    warm = run(
        "train", "--folder", tmp_path / "data", "--out", tmp_path / "next",
        "--weights", tmp_path / "w", "--threads", 1, *small, "--steps", 1,
    )  # fmt: skip
    assert warm.exit_code == 0, warm.output
    assert "with its emotion_head, optimizer" in warm.stderr


@pytest.mark.slow
def test_train_resume_export_encode(run, manifest, tmp_path):
    out, weights = tmp_path / "run", tmp_path / "weights"
    common = ("train", "--manifest", manifest, "--out", out, "--threads", 1)
    done = run(*common, *TINY, "--steps", 2, "--dev-split", "none")
    assert done.exit_code == 0, done.output
    again = run(*common)
    assert again.exit_code == 2 and "--resume" in again.stderr
    done = run(*common, "--resume", "--steps", 3, "--export", weights)
    assert done.exit_code == 0, done.output
    assert "going on from step 2" in done.stderr and "trained 3 steps" in done.stderr
    stored = json.loads((out / "config.json").read_text())
    assert stored["batch_size"] == 2 and stored["steps"] == 3
    clip = manifest.parent / "0.wav"
    assert run("encode", clip, "--weights", weights).exit_code == 0
