# SPDX-License-Identifier: Apache-2.0
"""``affectcodec ablate``: the budget before anything is trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from click.testing import Result

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
