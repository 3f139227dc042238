# SPDX-License-Identifier: Apache-2.0
"""Engines: the same output from both, killed at any moment, and from nodes that die."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("pyarrow")

from affectcodec.corpus.engines import EngineError, run_local
from affectcodec.corpus.finish import missing_parts
from affectcodec.corpus.plan import Plan
from tests.corpus.corpora import make_folder, save_codec, settings_for, snapshot


def command(source: Path, target: Path, weights: Path, *more: str) -> list[str]:
    return [
        *(sys.executable, "-m", "affectcodec", "tokenize", str(source), str(target)),
        *("--weights", str(weights), "--stages", "2", "--clips-per-part", "2", "-q", *more),
    ]


def tokenize(*args, **kwargs) -> subprocess.CompletedProcess:
    return subprocess.run(command(*args), capture_output=True, text=True, timeout=110, **kwargs)


def parts_of(target: Path) -> int:
    return len(list((target / "tokens").glob("part-*")))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_again_and_again_the_output_is_that_of_one_run(tmp_path: Path) -> None:
    save_codec(tmp_path / "weights")
    make_folder(tmp_path / "in", 40)
    first = tokenize(tmp_path / "in", tmp_path / "whole", tmp_path / "weights", "-j", "1")
    assert first.returncode == 0, first.stderr
    assert "8 clips were set aside" in first.stderr
    pick, target = random.Random(0), tmp_path / "killed"
    for _ in range(3):
        before = parts_of(target)
        process = subprocess.Popen(
            command(tmp_path / "in", target, tmp_path / "weights", "-j", "2"),
            stderr=subprocess.DEVNULL,
        )
        # Killed once something was written, so that every try gets further.
        deadline = time.monotonic() + 100
        while parts_of(target) == before and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(pick.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        process.wait()
    last = tokenize(tmp_path / "in", target, tmp_path / "weights", "-j", "2")
    assert last.returncode == 0, last.stderr
    assert snapshot(target) == snapshot(tmp_path / "whole")


def test_two_runs_do_not_write_one_folder(tmp_path: Path) -> None:
    import fcntl

    save_codec(tmp_path / "weights")
    make_folder(tmp_path / "in", 2)
    (tmp_path / "out").mkdir()
    with (tmp_path / "out" / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        result = tokenize(tmp_path / "in", tmp_path / "out", tmp_path / "weights")
    assert result.returncode == 1
    assert "another run is writing here" in result.stderr


def test_workers_with_other_weights_are_refused(tmp_path: Path) -> None:
    codec = save_codec(tmp_path / "weights")
    make_folder(tmp_path / "in", 2)
    settings = settings_for(tmp_path / "in", tmp_path / "weights", codec, fingerprint="0" * 16)
    plan = Plan.make(tmp_path / "out", settings)
    with pytest.raises(EngineError, match="a worker process died|run was planned with"):
        list(run_local(plan, missing_parts(plan), jobs=1, threads=1))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_ray_writes_what_the_local_engine_writes(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    save_codec(tmp_path / "weights")
    make_folder(tmp_path / "in", 10)
    local = tokenize(tmp_path / "in", tmp_path / "local", tmp_path / "weights", "-j", "1")
    assert local.returncode == 0, local.stderr
    environment = {**os.environ, "RAY_DISABLE_IMPORT_WARNING": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    result = subprocess.run(
        command(tmp_path / "in", tmp_path / "ray", tmp_path / "weights", "--engine", "ray"),
        capture_output=True,
        text=True,
        timeout=250,
        env=environment,
    )
    assert result.returncode == 0, result.stderr
    assert snapshot(tmp_path / "ray") == snapshot(tmp_path / "local")
