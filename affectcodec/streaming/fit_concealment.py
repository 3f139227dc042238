# SPDX-License-Identifier: Apache-2.0
"""Fits the predictor of lost frames: ``python -m affectcodec.streaming.fit_concealment DATA...``.

Clips are coded once; each is decoded at stage counts drawn at random, as streams of any rate will
have them. :mod:`affectcodec.streaming.predictor_training` does the rest.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import torch
from tqdm import tqdm

from affectcodec import checkpoint
from affectcodec.audio import load_audio
from affectcodec.codec import AffectCodec
from affectcodec.manifest import Clip, read_manifest
from affectcodec.streaming.engine import Floats, make_decoder, make_encoder
from affectcodec.streaming.predictor import PREDICTOR_NAME
from affectcodec.streaming.predictor_training import FitConfig, fit

_REPORT_STEPS = 50


def latents_of(codec: AffectCodec, clips: list[Clip], seed: int, seconds: float) -> list[Floats]:
    """Quantized latents ``[T, D]`` of each clip, at stage counts of its own."""
    hop, blocks = codec.config.hop_length, len(codec.config.quantizer.blocks)
    encoder, decoder = make_encoder(codec, "auto", 1, 1), make_decoder(codec, "auto", 1, 1)
    generator = np.random.default_rng(seed)
    found = []
    for clip in tqdm(clips, unit="clip", disable=None):
        wav = load_audio(clip.file, sample_rate=codec.config.sample_rate)[0].astype(np.float32)
        frames = min(len(wav) // hop, int(seconds * codec.config.frame_rate))
        if not frames:
            continue
        encoder.reset(0)
        tokens = encoder.encode([0], [frames], wav[: frames * hop].reshape(frames, hop))
        count = int(generator.integers(1, codec.config.quantizer.num_stages + 1))
        found.append(decoder.dequantize(tokens, np.full((frames, blocks), count)))
    return found


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("data", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--weights", help="Weights: the name of shipped ones, or a folder.")
@click.option("--split", default="train", show_default=True)
@click.option(
    "--limit",
    "limits",
    type=click.IntRange(min=1),
    multiple=True,
    help="At most this many clips of each DATA, spread evenly; or once for each of them.",
)
@click.option("--seconds", default=6.0, show_default=True, help="Of each clip, at most.")
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    default=FitConfig.steps,
    show_default=True,
    help="Steps through the decoder; about 0.15 s each on one core.",
)
@click.option("--seed", default=0, show_default=True)
def main(
    data: tuple[Path, ...],
    weights: str | None,
    split: str,
    limits: tuple[int, ...],
    seconds: float,
    steps: int,
    seed: int,
) -> None:
    """Fit on the clips of each DATA/manifest.csv; writes into the folder of the weights."""
    if len(limits) not in (0, 1, len(data)):
        raise click.BadParameter(
            f"{len(limits)} limits for {len(data)} folders; give one, or one for each",
            param_hint="--limit",
        )
    each: list[int | None] = [*limits] * (len(data) if len(limits) == 1 else 1)
    torch.set_num_threads(1)
    codec = AffectCodec.from_pretrained(weights)
    clips = [
        clip
        for folder, limit in zip(data, each or [None] * len(data), strict=True)
        for clip in read_manifest(folder / "manifest.csv", split=split, limit=limit)
    ]
    sequences = latents_of(codec, clips, seed, seconds)
    config = replace(FitConfig(), steps=steps)
    sums: dict[str, float] = {}

    def report(step: int, losses: dict[str, float]) -> None:
        for name, value in losses.items():
            sums[name] = sums.get(name, 0.0) + value / _REPORT_STEPS
        if (step + 1) % _REPORT_STEPS == 0:
            found = ", ".join(f"{name} {value:.4f}" for name, value in sums.items())
            click.echo(f"step {step + 1}: {found}")
            sums.clear()

    predictor = fit(codec, sequences, config, seed, report)
    path = checkpoint.resolve(weights) / PREDICTOR_NAME
    predictor.save(path)
    click.echo(f"{path}: {path.stat().st_size} bytes, from {sum(map(len, sequences))} frames")


if __name__ == "__main__":
    main()
