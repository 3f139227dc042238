# SPDX-License-Identifier: Apache-2.0
"""What the processes of a distributed test do; started by torchrun, one action each.

distributed_run.py gradients CACHE OUT
distributed_run.py train CACHE OUT RUN KILL_AT
distributed_run.py sharded CACHE OUT RUN STEPS
distributed_run.py start CACHE OUT
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from affectcodec.training.cache import ClipCache
from affectcodec.training.config import AdversarialConfig, DiscriminatorConfig
from affectcodec.training.config_run import ScaleConfig
from affectcodec.training.distributed import World, join, leave, was_restarted
from affectcodec.training.trainer import Trainer
from tests.training.sounds import tiny_run

ADVERSARIAL = AdversarialConfig(
    start=0,
    warmup_steps=0,
    ramp_steps=1,
    crop_samples=2048,
    discriminators=DiscriminatorConfig(
        periods=(2, 3), period_channels=(4, 8), spectrum_sizes=(256,), spectrum_channels=(4, 8)
    ),
)


def settings(**changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "precision": "fp32",
        "batch_size": 4,
        "adversarial": ADVERSARIAL,
        "independent_stages": 1.0,
        "eval_every": 100,
        "steps": 7,
        "checkpoint_every": 2,
    }
    return {**values, **changes}


def gradients(cache: ClipCache, folder: Path, world: World) -> dict[str, torch.Tensor]:
    """Gradients of the first step, of codec, heads and discriminators."""
    trainer = Trainer(tiny_run(**settings()), cache, None, folder, world=world)
    trainer._part(trainer.next_batch(), 1.0, last=True)
    return {
        f"{name}.{key}": p.grad.clone()
        for name, module in trainer.modules.items()
        for key, p in module.named_parameters()
        if p.grad is not None
    }


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    """All weights, averaged ones and discriminators included."""
    return {
        f"{name}.{key}": value.detach().clone().contiguous()
        for name, module in trainer.modules.items()
        for key, value in module.state_dict().items()
    }


def train(cache: ClipCache, out: Path, run: Path, kill_at: int, world: World) -> None:
    """A run of which the last process is killed once, without a word, after step ``kill_at``."""
    trainer = Trainer(tiny_run(**settings()), cache, None, run, world=world)
    trainer.resume()
    step = trainer.train_step

    def step_and_be_killed() -> dict[str, float]:
        figures = step()
        if trainer.step == kill_at and not was_restarted() and world.rank == world.size - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return figures

    trainer.train_step = step_and_be_killed  # type: ignore[method-assign]
    trainer.run(progress=False)
    if world.leads:
        save_file(weights(trainer), out)


def sharded(cache: ClipCache, out: Path, run: Path, steps: int, world: World) -> None:
    """A sharded run, resumed if it was begun."""
    config = tiny_run(**settings(steps=steps, scale=ScaleConfig(shard=True)))
    trainer = Trainer(config, cache, None, run, world=world)
    trainer.resume()
    trainer.run(progress=False)
    trainer.export(out)


def start(cache: ClipCache, out: Path, world: World) -> None:
    """A run whose quantizer comes in after a step; each process writes its quantizer."""
    config = tiny_run(**settings(quantizer_warmup=1, crop_frames=64))
    trainer = Trainer(config, cache, None, out.parent / "start", world=world)
    for _ in range(2):
        trainer.train_step()
    found = {k: v.contiguous() for k, v in trainer.codec.quantizer.state_dict().items()}
    save_file(found, out.with_name(f"{world.rank}-{out.name}"))


def main() -> None:
    action, cache, out = sys.argv[1], ClipCache(Path(sys.argv[2])), Path(sys.argv[3])
    torch.set_num_threads(1)
    world = join("cpu")
    if action == "gradients":
        found = gradients(cache, out.parent / "gradients", world)
        if world.leads:
            save_file(found, out)
    elif action == "train":
        train(cache, out, Path(sys.argv[4]), int(sys.argv[5]), world)
    elif action == "start":
        start(cache, out, world)
    else:
        sharded(cache, out, Path(sys.argv[4]), int(sys.argv[5]), world)
    leave()


if __name__ == "__main__":
    main()
