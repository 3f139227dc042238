# SPDX-License-Identifier: Apache-2.0
"""How fast a training step is, and where its time goes.

    python -m benchmarks.training_step --threads 2

Trains the preset on the sample clips that ship with the package, without and with discriminators,
and prints seconds of audio a second (the median step) and the share of each part. What is learned
is thrown away.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import click
import torch

import affectcodec
from affectcodec.config import CodecConfig
from affectcodec.training.cache import ClipCache
from affectcodec.training.config import AdversarialConfig, TrainConfig
from affectcodec.training.data import Clip
from affectcodec.training.trainer import Trainer


def sample_clips() -> list[Clip]:
    """The clips that ship with the package."""
    folder = Path(affectcodec.__file__).parent / "samples"
    return [Clip(str(f), "samples", f.stem, -1) for f in sorted(folder.glob("*.flac"))]


def seconds_of_steps(trainer: Trainer, warm: int, steps: int) -> list[float]:
    """Wall time of each of ``steps`` steps after ``warm`` others; parts of all are measured."""
    found = []
    for step in range(warm + steps):
        if step == warm:
            trainer.timer.take()
        start = time.perf_counter()
        trainer.train_step()
        found.append(time.perf_counter() - start)
    return found[warm:]


@click.command(help=__doc__)
@click.option("--preset", default="stream", show_default=True)
@click.option("--threads", type=int, default=torch.get_num_threads(), show_default=True)
@click.option("--batch-size", type=int, default=None, help="Crops a step; default: the preset's.")
@click.option("--warm", default=4, show_default=True, help="Steps that are not counted.")
@click.option("--steps", default=12, show_default=True, help="Steps that are.")
def main(preset: str, threads: int, batch_size: int | None, warm: int, steps: int) -> None:
    torch.set_num_threads(threads)
    base = TrainConfig(codec=CodecConfig.preset(preset))
    base = replace(base, batch_size=batch_size or base.batch_size)
    audio = base.batch_size * base.crop_frames * base.codec.hop_length / base.codec.sample_rate
    kinds = {
        "reconstruction": base,
        "with discriminators": replace(
            base, adversarial=AdversarialConfig(start=0, warmup_steps=0, ramp_steps=0)
        ),
    }
    click.echo(f"{preset}, {base.batch_size} crops of {audio / base.batch_size:.2f} s, ", nl=False)
    click.echo(f"{threads} threads, {base.precision}")
    with tempfile.TemporaryDirectory() as work:
        cache = ClipCache.build(sample_clips(), base.codec, Path(work) / "cache", base.speeds)
        for name, config in kinds.items():
            trainer = Trainer(config, cache, None, Path(work) / name)
            taken = seconds_of_steps(trainer, warm, steps)
            parts = trainer.timer.take()
            total = sum(parts.values())
            shares = ", ".join(f"{part} {100 * s / total:.1f} %" for part, s in parts.items() if s)
            click.echo(f"{name}: {audio / statistics.median(taken):.1f} s of audio a second")
            click.echo(f"  {shares}")


if __name__ == "__main__":
    main()
