# SPDX-License-Identifier: Apache-2.0
"""Several processes train what one would, and a killed one costs nothing but time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from affectcodec import AffectCodec
from affectcodec.training.cache import ClipCache
from affectcodec.training.config_run import ScaleConfig
from affectcodec.training.distributed import World, join, shared_count
from affectcodec.training.trainer import Trainer
from tests.training import distributed_run
from tests.training.sounds import same_tensors, tiny_run

ROOT = Path(__file__).parents[2]
PATIENCE = 280  # seconds; a launch takes about 8 on an idle machine
pytestmark = pytest.mark.timeout(600)


def torchrun(processes: int, *arguments: object, restarts: int = 0) -> None:
    """Run ``distributed_run.py`` in so many processes; fails with their output."""
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *("--nproc-per-node", str(processes), "--max-restarts", str(restarts)),
        *(str(ROOT / "tests/training/distributed_run.py"), *map(str, arguments)),
    ]
    environment = {
        **{k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE")},
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }
    # In a session of its own, so that no process outlives a launcher that takes too long.
    with subprocess.Popen(
        command,
        env=environment,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as launcher:
        try:
            _, said = launcher.communicate(timeout=PATIENCE)
        finally:
            if launcher.poll() is None:
                os.killpg(launcher.pid, signal.SIGKILL)
    assert launcher.returncode == 0, said[-3000:]


@pytest.mark.slow
def test_two_processes_have_the_gradients_of_one(tmp_path: Path, cache: ClipCache) -> None:
    """On the same global batch, with stage counts of each clip and block of its own."""
    torchrun(2, "gradients", cache.folder, tmp_path / "two.safetensors")
    two = load_file(tmp_path / "two.safetensors")
    one = distributed_run.gradients(cache, tmp_path / "one", World())
    batch = Trainer(
        tiny_run(**distributed_run.settings()), cache, None, tmp_path / "b"
    ).next_batch()
    halves = batch.stages[:2], batch.stages[2:]
    assert not torch.equal(*halves)
    assert one.keys() == two.keys()
    assert any(name.startswith("adversary") for name in one)
    for part in ("codec", "emotion_head", "adversary"):
        names = [name for name in one if name.startswith(part)]
        whole = torch.stack([one[name].norm() for name in names]).norm()
        for name in names:
            error = (two[name] - one[name]).norm()
            assert error <= 5e-5 * whole, name  # what is left of sums that cancel
        errors = [float((two[n] - one[n]).norm() / one[n].norm().clamp(min=1e-12)) for n in names]
        assert sorted(errors)[len(errors) // 2] < 5e-6, part


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_killed_worker_is_started_again_and_the_run_ends_in_the_same_bits(
    tmp_path: Path, cache: ClipCache, processes: int
) -> None:
    # Between two checkpoints, so that steps are lost and made again.
    kill_at = int.from_bytes(os.urandom(1), "big") % 2 * 2 + 3
    whole, killed = tmp_path / "whole.safetensors", tmp_path / "killed.safetensors"
    torchrun(processes, "train", cache.folder, whole, tmp_path / "a", -1)
    torchrun(processes, "train", cache.folder, killed, tmp_path / "b", kill_at, restarts=1)
    assert same_tensors(load_file(killed), load_file(whole)), f"killed after step {kill_at}"
    lines = (tmp_path / "b" / "environment.jsonl").read_text().splitlines()
    assert len(lines) == 2 and f'"step": {kill_at - 1}' in lines[1]


@pytest.mark.slow
def test_a_sharded_run_learns_the_same_and_resumes_in_fewer_processes(
    tmp_path: Path, cache: ClipCache
) -> None:
    torchrun(2, "sharded", cache.folder, tmp_path / "w4", tmp_path / "run", 4)
    torchrun(1, "sharded", cache.folder, tmp_path / "w6", tmp_path / "run", 6)
    plain = Trainer(tiny_run(**distributed_run.settings(steps=4)), cache, None, tmp_path / "p")
    start = {name: p.clone() for name, p in plain.ema.named_parameters()}
    for _ in range(4):
        plain.train_step()
    got = AffectCodec.from_pretrained(tmp_path / "w4").state_dict()
    # Adam makes much of rounding where a gradient is almost 0, so weights are judged as a whole.
    want = dict(plain.ema.named_parameters())
    error = torch.stack([(got[name] - want[name]).norm() for name in want]).norm()
    moved = torch.stack([(start[name] - want[name]).norm() for name in want]).norm()
    assert error < 0.02 * moved
    later = AffectCodec.from_pretrained(tmp_path / "w6").state_dict()
    assert not same_tensors(got, later)


@pytest.mark.slow
def test_a_quantizer_starts_alike_in_all_processes(tmp_path: Path, cache: ClipCache) -> None:
    """From the latents of the first, though each has clips of its own; in its warm-up, too, all
    parameters take part, as the exchange of gradients wants."""
    torchrun(2, "start", cache.folder, tmp_path / "q.safetensors")
    first, second = (load_file(tmp_path / f"{rank}-q.safetensors") for rank in (0, 1))
    assert first.keys() == second.keys() and len(first) > 6
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_parts_of_a_batch_add_up(tmp_path: Path, cache: ClipCache, parts: int) -> None:
    """Losses that are plain means over clips do not see that a batch came in parts."""
    config = tiny_run(**distributed_run.settings(scale=ScaleConfig(accumulate=parts)))
    run = Trainer(config, cache, None, tmp_path)
    whole = Trainer(tiny_run(**distributed_run.settings()), cache, None, tmp_path)
    for trainer in (run, whole):
        trainer.adversary = None
        decode = trainer.objective.decode
        trainer.objective.decode = lambda *a, d=decode, **k: (d(*a, **k)[0], {}, {})  # type: ignore
        trainer._heard = lambda d, step: ({"p": d.wav.square().mean()}, {})  # type: ignore
    figures = run.train_step()
    want = whole.train_step()
    assert figures["loss"] == pytest.approx(want["loss"], rel=1e-5)
    assert figures["gradient_norm"] == pytest.approx(want["gradient_norm"], rel=1e-4)


@pytest.mark.parametrize("recompute", [False, True])
def test_recomputation_changes_no_bit(tmp_path: Path, cache: ClipCache, recompute: bool) -> None:
    runs = [
        Trainer(tiny_run(scale=ScaleConfig(recompute=again)), cache, None, tmp_path)
        for again in (False, recompute)
    ]
    for run in runs:
        run.train_step()
    assert same_tensors(*(run.codec.state_dict() for run in runs))


def test_a_batch_that_cannot_be_shared_is_named(tmp_path: Path, cache: ClipCache) -> None:
    with pytest.raises(ValueError, match="4 crops cannot be shared by 1 processes times 3 parts"):
        Trainer(tiny_run(batch_size=4, scale=ScaleConfig(accumulate=3)), cache, None, tmp_path)


def test_a_process_alone() -> None:
    world = join("cpu")
    assert (world.rank, world.size, world.leads) == (0, 1, True)
    assert world.agree(1.5, float("nan"))[0] == 1.5
    assert world.mean(2.0) == [2.0]
    assert float(shared_count(torch.tensor(0))) == 1 and float(shared_count(torch.tensor(7))) == 7
    for device, words in (("cuda:99", "is not there"), ("abacus", "is none")):
        with pytest.raises(ValueError, match=words):
            join(device)


@pytest.mark.slow
def test_compiled_networks_learn_the_same(tmp_path: Path, cache: ClipCache) -> None:
    settings = {"precision": "fp32", "steps": 3}
    plain = Trainer(tiny_run(**settings), cache, None, tmp_path)
    compiled = Trainer(tiny_run(**settings, scale=ScaleConfig(compile=True)), cache, None, tmp_path)
    for _ in range(2):
        want, got = plain.train_step(), compiled.train_step()
        assert got["loss"] == pytest.approx(want["loss"], rel=1e-3)
    assert plain.codec.state_dict().keys() == compiled.codec.state_dict().keys()
