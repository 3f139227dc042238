# SPDX-License-Identifier: Apache-2.0
"""Recipes run: every option and setting in them is one that there is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "recipes").glob("*.sh"))


def run(recipe: Path, *options: str) -> str:
    done = subprocess.run(
        ["bash", str(recipe), "runs/never-made", *options],
        env={**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not (ROOT / "runs" / "never-made").exists()
    return done.stdout


def test_there_are_recipes() -> None:
    names = ["finetune.sh", "paper-1gpu.sh", "paper-8gpu.sh", "stream-cpu.sh"]
    assert [path.name for path in RECIPES] == names
    assert all(os.access(path, os.X_OK) for path in RECIPES)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_a_configuration_that_can_be_run(recipe: Path) -> None:
    config = json.loads(run(recipe, "--show-config"))
    assert config["adversarial"]["start"] is not None
    # Short crops and few of them, so that the big preset is quick here; all else as it stands.
    parts = 8 if recipe.stem == "paper-8gpu" else config["scale"]["accumulate"]
    small = ("--set", f"batch_size={parts}", "--set", "crop_frames=24", "--set", "rates=[2]")
    shown = run(recipe, "--dry-run", *small)
    for words in ("parameters", "memory of one device", "TFLOP a step"):
        assert words in shown
    assert f"on each of {8 if recipe.stem == 'paper-8gpu' else 1} device(s)" in shown
