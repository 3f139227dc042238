# SPDX-License-Identifier: Apache-2.0
"""``affectcodec ablate``: the budget before anything is trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import Result

from affectcodec.codec import AffectCodec
from affectcodec.evaluation.ablation import plan_runs
from tests.evaluation.sounds import corpus
from tests.training.sounds import tiny_run

Run = Callable[..., Result]


def test_the_budget_is_stated_first(run: Run, tmp_path: Path) -> None:
    manifest = corpus(tmp_path, train=1, test=0, takes=1)
    config = tmp_path / "config.json"
    config.write_text(json.dumps(tiny_run().to_dict()))
    out = tmp_path / "out"
    done = run("ablate", manifest, "--config", config, "--out", out, "--seeds", 2, "--dry-run")
    assert done.exit_code == 0, done.output
    for words in ("7 runs of 6 steps", "bd-rfsq+mrt+cem-s1", "rfsq-s2", "not known"):
        assert words in done.stderr
    assert not list(out.iterdir())  # nothing was begun


def test_no_time_is_a_sitting_without_steps(run: Run, tmp_path: Path) -> None:
    manifest = corpus(tmp_path, train=1, test=0, takes=1)
    config = tmp_path / "config.json"
    config.write_text(json.dumps(tiny_run().to_dict()))
    done = run("ablate", manifest, "--config", config, "--out", tmp_path / "out", "--hours", 0)
    assert done.exit_code == 130
    assert (tmp_path / "out" / "ablation.json").is_file()


def test_unknown_names_are_told(run: Run, tmp_path: Path) -> None:
    manifest = corpus(tmp_path, train=1, test=0, takes=1)
    done = run("ablate", manifest, "--out", tmp_path / "out", "--only", "magic", "--dry-run")
    assert done.exit_code == 1 and "magic" in done.stderr


def test_without_training_there_must_be_something_finished(run: Run, tmp_path: Path) -> None:
    manifest = corpus(tmp_path, train=1, test=0, takes=1)
    done = run("ablate", manifest, "--out", tmp_path / "out", "--no-train")
    assert done.exit_code == 2 and "no run in" in done.stderr
    assert not (tmp_path / "out").exists()


def test_what_is_finished_is_compared(run: Run, tmp_path: Path) -> None:
    """Untrained codecs stand for runs: emotion kept, emotion ahead, and leakage on one page."""
    pytest.importorskip("opensmile")
    manifest = corpus(tmp_path, train=2, test=2, takes=1)
    config = tmp_path / "config.json"
    base = tiny_run()
    config.write_text(json.dumps(base.to_dict()))
    out = tmp_path / "out"
    for planned in plan_runs(base, names=("rfsq", "bd-rfsq"), seeds=1):
        torch.manual_seed(1)
        AffectCodec(planned.config.codec).save_pretrained(out / planned.label / "weights")
    kbps = base.codec.kbps(2)
    words = ["--no-train", "--split", "test", "--kbps", kbps, "--measure", "egemaps", "--quiet"]
    where = ["--config", config, "--out", out, "--evaluation-cache", tmp_path / "cache"]
    done = run("ablate", manifest, *where, *words)
    assert done.exit_code == 0, done.output
    results = json.loads((out / "comparison.json").read_text())
    assert set(results["leakage"]) == {"rfsq-s1", "bd-rfsq-s1"}
    assert results["leakage"]["rfsq-s1"]["prosody"]["log-mel"] > 0
    (judge,) = results["compared"]["judges"].values()
    assert list(judge["configurations"]) == ["rfsq", "bd-rfsq", "bd-rfsq@lead"]
    pairs = {(pair["first"], pair["second"]) for pair in judge["differences"]}
    assert ("bd-rfsq", "rfsq") in pairs and ("bd-rfsq@lead", "rfsq") in pairs
    assert "spectral detail" in done.stdout and "`bd-rfsq@lead` - `bd-rfsq`" in done.stdout
