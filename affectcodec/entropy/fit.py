# SPDX-License-Identifier: Apache-2.0
"""Fit the prior of a codec's tokens: ``python -m affectcodec.entropy.fit MANIFEST... --weights W``.

Tokens of the manifests' training clips are made first, then the prior is fitted and written beside
the weights. The dev split, where there is one, tells what it saves.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
import torch
from tqdm import tqdm

from affectcodec import checkpoint
from affectcodec.audio import load_audio
from affectcodec.codec import AffectCodec
from affectcodec.entropy.coder import PriorCoder, clip_codes
from affectcodec.entropy.layout import DigitLayout, IntArray
from affectcodec.entropy.network import arrays
from affectcodec.entropy.prior import FILE_NAME, Prior, save
from affectcodec.entropy.training import PriorFit, fit
from affectcodec.manifest import Clip, read_manifest


def tokens_of(codec: AffectCodec, clips: Sequence[Clip], title: str) -> list[list[IntArray]]:
    """Codes per block ``[K, T]`` of each clip at all stages, int32."""
    found = []
    for clip in tqdm(clips, desc=title, unit="clip", disable=None):
        wav = load_audio(clip.file, sample_rate=codec.config.sample_rate, mono=True)[0]
        codes, _ = clip_codes(codec.encode(wav))
        found.append([block.astype(np.int32) for block in codes])
    return found


def rates(
    coder: PriorCoder, clips: Sequence[Sequence[IntArray]], frame_rate: float
) -> list[tuple[int, float, float]]:
    """Of each stage count: plain and entropy-coded kbit/s, packets' restarts included."""
    layout, rows = coder.prior.layout, []
    plain = sum(np.log2(np.prod(levels)) for levels in layout.levels)
    frames = sum(clip[0].shape[1] for clip in clips)
    for count in range(1, layout.num_stages + 1):
        bits = 0.0
        for clip in clips:
            stages = np.full((len(layout.names), clip[0].shape[1]), count, np.uint8)
            bits += coder.costs(clip, stages).sum()
        rows.append((count, count * plain * frame_rate / 1000, bits / frames * frame_rate / 1000))
    return rows


def _clips(manifests: Sequence[Path], split: str, limit: int | None) -> list[Clip]:
    found: list[Clip] = []
    for manifest in manifests:
        try:
            found += read_manifest(manifest, split=split, limit=limit, needed=("path", "split"))
        except ValueError as error:
            if "no clip in split" not in str(error):  # a list may lack a split
                raise
    return found


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument(
    "manifests",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
@click.option("--weights", help="Weights: the name of shipped ones, or a folder.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the prior. Default: beside the weights.",
)
@click.option("--steps", default=PriorFit.steps, show_default=True, help="Optimizer steps.")
@click.option("--limit", type=click.IntRange(min=1), help="Clips of each manifest and split.")
@click.option("--seed", default=0, show_default=True)
@click.option("--threads", default=1, show_default=True, help="Threads of PyTorch.")
def main(
    manifests: tuple[Path, ...],
    weights: str | None,
    out: Path | None,
    steps: int,
    limit: int | None,
    seed: int,
    threads: int,
) -> None:
    """Fit the prior of a codec's tokens on the train split of MANIFESTS."""
    torch.set_num_threads(threads)
    folder = out or checkpoint.resolve(weights)
    codec = AffectCodec.from_pretrained(weights)
    quantizer = codec.config.quantizer
    layout = DigitLayout(
        quantizer.names, tuple(block.levels for block in quantizer.blocks), quantizer.num_stages
    )
    clips = tokens_of(codec, _clips(manifests, "train", limit), "tokens")
    if not clips:
        raise click.ClickException(f"manifests: no clip of the train split in {list(manifests)}")
    held = tokens_of(codec, _clips(manifests, "dev", limit), "tokens, dev")
    with tqdm(total=steps, desc="fit", unit="step", disable=None) as bar:

        def report(step: int, bits: float) -> None:
            bar.update()
            bar.set_postfix_str(f"{bits:.3f} bits a digit", refresh=False)

        network = fit(layout, clips, PriorFit(steps=steps, seed=seed), report)
    prior = Prior(layout, arrays(network))
    folder.mkdir(parents=True, exist_ok=True)
    save(folder, prior)
    click.echo(f"{folder / FILE_NAME}: prior {prior.id}")
    if held:
        click.echo(
            "\n| stages | kbit/s, plain | kbit/s, entropy coded | of it |\n|---|---|---|---|"
        )
        for count, plain, coded in rates(PriorCoder(prior), held, codec.config.frame_rate):
            click.echo(f"| {count} | {plain:.2f} | {coded:.2f} | {coded / plain:.0%} |")


if __name__ == "__main__":
    main()
