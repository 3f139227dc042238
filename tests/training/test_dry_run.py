# SPDX-License-Identifier: Apache-2.0
"""The dry run: its figures against a real step, and how they scale."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from affectcodec.config import CodecConfig
from affectcodec.training.config import TrainConfig
from affectcodec.training.config_run import ScaleConfig
from affectcodec.training.dry_run import dry_run, kept_for_backward, made_up_batch
from affectcodec.training.trainer import Trainer
from tests.training.distributed_run import ADVERSARIAL
from tests.training.sounds import tiny_run

ROOT = Path(__file__).parents[2]


def test_what_autograd_keeps_is_counted_once() -> None:
    weight = torch.nn.Parameter(torch.randn(64, 64))
    x = torch.randn(8, 64)
    with kept_for_backward({weight.untyped_storage().data_ptr()}) as found:
        hidden = torch.tanh(x @ weight)
        total = (hidden * hidden).sum()
    total.backward()
    assert sum(found.values()) == x.nbytes + hidden.nbytes


def test_figures_follow_the_configuration() -> None:
    config = tiny_run(batch_size=8, crop_frames=40)
    one = dry_run(config)
    codec = Trainer(config, None, None, "").codec
    count = sum(p.numel() for p in codec.parameters())
    assert one.parameters["codec"] == count
    assert one.memory.averaged >= 4 * count
    assert one.memory.optimizer == 2 * one.memory.gradients
    assert one.shapes["wave"] == (8, 39 * 320) and one.shapes["latent"] == (8, 40, 36)
    four = dry_run(config, 4)
    assert four.crops == 2
    assert four.memory.gradients == one.memory.gradients
    assert four.memory.activations < 0.5 * one.memory.activations
    assert four.flops == pytest.approx(one.flops, rel=0.05)
    sharded = dry_run(dataclasses.replace(config, scale=ScaleConfig(shard=True)), 4)
    assert sharded.memory.optimizer == one.memory.optimizer // 4
    parts = dry_run(dataclasses.replace(config, scale=ScaleConfig(accumulate=4)))
    assert parts.memory == four.memory
    again = dry_run(dataclasses.replace(config, scale=ScaleConfig(recompute=True)))
    assert again.memory.activations < one.memory.activations
    more = dry_run(dataclasses.replace(config, adversarial=ADVERSARIAL))
    assert more.memory.activations > one.memory.activations
    assert more.parameters["adversary"] > 0
    with pytest.raises(ValueError, match="8 crops cannot be shared by 3 processes"):
        dry_run(config, 3)
    text = "\n".join(one.lines(tflops=10.0))
    for words in ("parameters", "activations", "TFLOP a step", "on this machine", "at 10 TFLOP/s"):
        assert words in text
    assert json.loads(json.dumps(one.to_dict()))["memory"]["total"] == one.memory.total


def test_activations_are_those_of_a_real_pass_of_other_size() -> None:
    config = tiny_run(batch_size=5, crop_frames=61)
    run = Trainer(config, None, None, "")
    batch = made_up_batch(config, 5, 61)
    known = {
        t.untyped_storage().data_ptr()
        for module in run.modules.values()
        for t in (*module.parameters(), *module.buffers())
    }
    with kept_for_backward(known) as found:
        decoded, _, _ = run.objective.decode(batch, run.codec)
        run.objective.heard(decoded.wav, batch, 0)
    assert dry_run(config).memory.activations == pytest.approx(sum(found.values()), rel=0.05)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_memory_of_the_paper_preset_is_what_a_step_allocates() -> None:
    """Asked for eight devices, against the size of a process that trains one device's share."""
    codec = CodecConfig.preset("paper")
    asked = dry_run(TrainConfig(codec=codec, batch_size=8, crop_frames=40), 8).memory
    script = ROOT / "tests/training/memory_of_a_step.py"
    environment = {
        **os.environ,
        "MALLOC_MMAP_THRESHOLD_": "65536",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, str(script), "paper", "1", "40"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    real = json.loads(done.stdout)
    assert asked.total == pytest.approx(real["total"], rel=0.15), (asked, real)
    assert asked.gradients == pytest.approx(real["gradients"], rel=0.15)
    assert asked.activations == pytest.approx(real["activations"], rel=0.15)
