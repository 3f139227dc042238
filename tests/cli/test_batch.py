# SPDX-License-Identifier: Apache-2.0
"""Running many tasks: order of blame, processes, interrupts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

import pytest
import torch

from affectcodec.cli.batch import Done, Outcome, run_batch, set_threads
from tests.cli.clips import make_clip


@dataclass(frozen=True)
class Task:
    name: str


def work(task: Task) -> Done:
    if task.name == "bad":
        raise ValueError("bad: no good")
    if task.name == "stop":
        raise KeyboardInterrupt
    if task.name == "die":
        os._exit(3)
    warnings = ("w",) if task.name == "warned" else ()
    return Done(task.name, 1.0, 10, notes=("n",), warnings=warnings)


def batch(*names: str, jobs: int = 1, quiet: bool = False) -> Outcome:
    return run_batch([Task(n) for n in names], work, jobs=jobs, threads=1, quiet=quiet)


def test_failures_are_collected(capsys):
    outcome = batch("a", "bad", "b")
    assert [d.text for d in outcome.done] == ["a", "b"]
    assert outcome.failures == ["bad: no good"] and outcome.exit_code == 1
    assert capsys.readouterr().err.count(": n") == 2


def test_quiet_keeps_warnings(capsys):
    outcome = batch("a", "warned", quiet=True)
    assert outcome.exit_code == 3
    assert capsys.readouterr().err == "Warning: warned: w\n"


def test_an_interrupt_keeps_what_is_done():
    outcome = batch("a", "stop", "b")
    assert [d.text for d in outcome.done] == ["a"]
    assert outcome.interrupted and outcome.exit_code == 130


def test_no_task_is_no_error():
    assert batch().exit_code == 0


@pytest.mark.slow
def test_a_worker_that_dies_is_a_failure_and_no_hang():
    outcome = batch("die", "die", jobs=2)
    assert len(outcome.failures) == 2 and outcome.exit_code == 1


def test_threads():
    set_threads(3)
    assert torch.get_num_threads() == 3
    set_threads(None)
    assert torch.get_num_threads() == 3
    set_threads(None, jobs=10_000)
    assert torch.get_num_threads() == 1


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_ctrl_c_leaves_whole_files_only(tmp_path, weights, jobs):
    for index in range(60):
        make_clip(tmp_path / f"in/{index:02}.wav", 4.0)
    out = tmp_path / "out"
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "affectcodec", "encode", str(tmp_path / "in"), "-o", str(out)),
            *("--weights", weights, "--jobs", str(jobs), "--threads", "1"),
        ],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A background job of a shell ignores interrupts, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 90
    while len(list(out.glob("*.afc"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: every process gets it
    text = process.communicate(timeout=60)[1]
    assert process.returncode == 130, text
    assert "Interrupted: " in text and "Traceback" not in text
    files = sorted(out.iterdir())
    sizes = {file.stat().st_size for file in files}
    assert 2 <= len(files) < 60 and len(sizes) == 1 and all(f.suffix == ".afc" for f in files)
    assert f"Interrupted: {len(files)} of 60" in text
