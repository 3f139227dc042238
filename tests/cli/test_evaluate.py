# SPDX-License-Identifier: Apache-2.0
"""``affectcodec evaluate``: what the user sees before anything is computed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from tests.evaluation.sounds import corpus

Run = Callable[..., Result]


def test_help_teaches(run: Run) -> None:
    done = run("evaluate", "--help")
    assert done.exit_code == 0
    for words in ("Examples:", "--codec", "--matched", "egemaps", "transcript"):
        assert words in done.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--codec", "mp3:8"], "'mp3:8' is unknown"),
        (["--codec", "original", "--measure", "magic"], "magic"),
        (["--codec", "original", "--split", "nowhere"], "no clip in split 'nowhere'"),
        (["--codec", "original", "--compare", "original=opus:6"], "both among"),
        (["--codec", "original", "--matched", "opus:6"], "matched"),
    ],
)
def test_wrong_use_is_one_line(run: Run, tmp_path: Path, arguments: list[str], words: str) -> None:
    manifest = corpus(tmp_path, train=0, test=1, takes=1)
    done = run("evaluate", manifest, *arguments, "--out", tmp_path / "out", "-q")
    assert done.exit_code == 1 and words in done.stderr
    assert "Traceback" not in done.output


def test_a_manifest_must_be_there(run: Run, tmp_path: Path) -> None:
    done = run("evaluate", tmp_path / "none.csv", "--out", tmp_path)
    assert done.exit_code == 2 and "does not exist" in done.stderr
