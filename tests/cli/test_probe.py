# SPDX-License-Identifier: Apache-2.0
"""``affectcodec probe`` on a random codec and made-up speech."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from tests.evaluation.sounds import corpus

Run = Callable[..., Result]


def test_one_command_one_table(run: Run, weights: str, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    manifest = corpus(tmp_path, train=3, test=1, takes=1)
    out = tmp_path / "out"
    done = run("probe", manifest, "--weights", weights, "--out", out, "-q")
    assert done.exit_code == 0, done.output
    for words in ("R2 of shape", "UAR of emotion, made", "isolated", "bits used a frame", "dim 0"):
        assert words in done.output
    results = json.loads((out / "probes.json").read_text())
    assert results["quantizer"]["isolated"] is True
    assert results["train_speakers"] == 3 and results["speakers"] == 1
    assert (out / "probes.md").read_text() == done.output.rstrip("\n") + "\n"


def test_no_split_is_one_line(run: Run, weights: str, tmp_path: Path) -> None:
    manifest = corpus(tmp_path, train=0, test=1, takes=1)
    done = run("probe", manifest, "--weights", weights, "-q")
    assert done.exit_code == 1 and "no clip in split 'train'" in done.stderr
