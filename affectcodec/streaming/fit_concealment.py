# SPDX-License-Identifier: Apache-2.0
"""Fits the predictor of lost frames: ``python -m affectcodec.streaming.fit_concealment DATA...``.

Ridge regression from the last two latents to the one ``j`` frames later, for each ``j``, cut to the
directions that hold most of the predicted variance. Clips are decoded at stage counts drawn at
random, as streams of any rate will have them.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
import torch

from affectcodec import checkpoint
from affectcodec.audio import load_audio
from affectcodec.codec import AffectCodec
from affectcodec.manifest import Clip, read_manifest
from affectcodec.streaming.concealment import INPUT_FRAMES, PREDICTOR_NAME, Predictor
from affectcodec.streaming.engine import Floats, make_decoder, make_encoder

Doubles = npt.NDArray[np.float64]


def latents_of(codec: AffectCodec, clips: list[Clip], seed: int, seconds: float) -> list[Floats]:
    """Quantized latents ``[T, D]`` of each clip, at stage counts of its own."""
    hop, blocks = codec.config.hop_length, len(codec.config.quantizer.blocks)
    encoder, decoder = make_encoder(codec, "auto", 1, 1), make_decoder(codec, "auto", 1, 1)
    generator = np.random.default_rng(seed)
    found = []
    for clip in clips:
        wav = load_audio(clip.file, sample_rate=codec.config.sample_rate)[0].astype(np.float32)
        frames = min(len(wav) // hop, int(seconds * codec.config.frame_rate))
        if not frames:
            continue
        encoder.reset(0)
        tokens = encoder.encode([0], [frames], wav[: frames * hop].reshape(frames, hop))
        count = int(generator.integers(1, codec.config.quantizer.num_stages + 1))
        found.append(decoder.dequantize(tokens, np.full((frames, blocks), count)))
    return found


def fit(
    sequences: list[Floats], fingerprint: str, *, horizon: int = 10, rank: int = 24
) -> Predictor:
    """Predictor of latents ``[T, D]`` a clip."""
    mean = np.concatenate(sequences).astype(np.float64).mean(0)
    weights, basis = [], []
    for j in range(1, horizon + 1):
        pairs = [_pairs(s - mean, j) for s in sequences if len(s) >= INPUT_FRAMES + j]
        x, y = (np.concatenate(part) for part in zip(*pairs, strict=True))
        gram = x.T @ x + 0.005 * len(x) * np.eye(x.shape[1])
        full = np.linalg.solve(gram, x.T @ y)
        _, directions = np.linalg.eigh(full.T @ (x.T @ x) @ full)
        kept = directions[:, -min(rank, y.shape[1]) :]
        basis.append(kept)
        weights.append((full @ kept).T)
    return Predictor(
        mean.astype(np.float32),
        np.stack(weights).astype(np.float32),
        np.stack(basis).astype(np.float32),
        fingerprint,
    )


def _pairs(z: Doubles, distance: int) -> tuple[Doubles, Doubles]:
    """Inputs, newest frame first, and targets ``distance`` frames after the newest."""
    last = np.arange(INPUT_FRAMES - 1, len(z) - distance)
    return np.concatenate([z[last - i] for i in range(INPUT_FRAMES)], 1), z[last + distance]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("data", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--weights", help="Weights: the name of shipped ones, or a folder.")
@click.option("--split", default="train", show_default=True)
@click.option("--limit", type=int, help="At most this many clips of each folder.")
@click.option("--seconds", default=8.0, show_default=True, help="Of each clip, at most.")
@click.option("--seed", default=0, show_default=True)
def main(
    data: tuple[Path, ...],
    weights: str | None,
    split: str,
    limit: int | None,
    seconds: float,
    seed: int,
) -> None:
    """Fit on the clips of each DATA/manifest.csv; writes into the folder of the weights."""
    torch.set_num_threads(1)
    codec = AffectCodec.from_pretrained(weights)
    clips = [c for d in data for c in read_manifest(d / "manifest.csv", split=split, limit=limit)]
    sequences = latents_of(codec, clips, seed, seconds)
    predictor = fit(sequences, codec.fingerprint)
    path = checkpoint.resolve(weights) / PREDICTOR_NAME
    predictor.save(path)
    click.echo(f"{path}: {path.stat().st_size} bytes, from {sum(map(len, sequences))} frames")


if __name__ == "__main__":
    main()
