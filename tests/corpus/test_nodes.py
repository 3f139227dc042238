# SPDX-License-Identifier: Apache-2.0
"""Two Ray nodes share a job, one is killed, and the job finishes complete."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("pyarrow")
pytest.importorskip("ray")

from affectcodec.corpus.finish import finish
from affectcodec.corpus.plan import Plan
from affectcodec.corpus.work import do_part
from affectcodec.tokens import Vocabulary
from tests.corpus.corpora import save_codec, settings_for, snapshot, wav_bytes
from tests.corpus.nodes import ACCESS, two_nodes

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        os.environ.get("AFFECTCODEC_RAY_NODES") != "1",
        reason="Ray may give up its start on a busy machine; AFFECTCODEC_RAY_NODES=1 runs it",
    ),
    pytest.mark.skipif(sys.platform != "linux", reason="Ray joins nodes of one machine on Linux"),
]
COUNT = 120


def command(source: Path, target: Path, weights: Path, *more: str) -> list[str]:
    return [
        *(sys.executable, "-m", "affectcodec", "tokenize", str(source), str(target)),
        *("--weights", str(weights), "--stages", "2", "--clips-per-part", "1", "-q", *more),
    ]


def make_clips(root: Path) -> Path:
    """Clips of some seconds, so that the job outlasts the loss of a node; some are broken."""
    root.mkdir()
    for index in range(COUNT):
        good = wav_bytes(40000 + 4000 * (index % 5), index)
        (root / f"clip{index:04d}.wav").write_bytes(b"RIFF" if index % 20 == 7 else good)
    return root


def parts_of(target: Path) -> int:
    return len(list((target / "tokens").glob("part-*")))


@contextlib.contextmanager
def job(log: Path, *arguments: str) -> Iterator[subprocess.Popen]:
    """A running command, which ends with the test."""
    quiet = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0", **ACCESS}
    with log.open("wb") as file:
        process = subprocess.Popen(arguments, stdout=file, stderr=file, env=quiet)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.mark.parametrize("client", [False, True], ids=["address", "ray-client"])
def test_a_job_outlives_one_of_its_two_nodes(tmp_path: Path, client: bool) -> None:
    codec = save_codec(tmp_path / "weights")
    source = make_clips(tmp_path / "in")
    plan = Plan.make(
        tmp_path / "local",
        settings_for(source, tmp_path / "weights", codec, clips_per_part=1),
    )
    for number, part in plan.parts():
        do_part(plan.folder, number, part, plan.settings, codec)
    finish(plan, codec.config.sample_rate)
    Vocabulary.of(codec, "split").save(plan.folder / "vocabulary.json")
    target, log = tmp_path / "ray", tmp_path / "job.log"
    run = command(source, target, tmp_path / "weights", "--engine", "ray")
    with two_nodes(tmp_path / "nodes.log") as (worker, address, ray_address):
        chosen = ray_address if client else address
        with job(log, *run, "--address", chosen, "-j", "2") as process:
            deadline = time.monotonic() + 400
            # The node goes while parts are written, in the middle of one of its own.
            while parts_of(target) < 10 or not _working(worker):
                assert process.poll() is None, log.read_text()[-3000:]
                assert time.monotonic() < deadline, log.read_text()[-3000:]
                time.sleep(0.02)
            at = parts_of(target)
            assert worker.kill() > 0
            assert at < COUNT, "the job was over before the node was killed"
            assert process.wait(400) == 0, log.read_text()[-3000:]
    print(f"killed at {at} of {COUNT} parts")
    assert snapshot(target) == snapshot(plan.folder)


def _working(node) -> bool:
    """Whether an actor of the job is at work on a part on a node: Ray's titles say so."""
    for pid in node.processes():
        try:
            name = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if b"MapWorker" in name and b".submit" in name:
            return True
    return False
