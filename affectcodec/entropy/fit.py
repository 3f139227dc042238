# SPDX-License-Identifier: Apache-2.0
"""Fit the prior of a codec's tokens: ``python -m affectcodec.entropy.fit MANIFEST... --weights W``.

Tokens of the manifests' training clips are made first, then the prior is fitted and written beside
the weights. The dev split, where there is one, tells what it saves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
from affectcodec.entropy.prior import FILE_NAME, Prior, load, save
from affectcodec.entropy.training import PriorFit, fit
from affectcodec.evaluation.tables import table
from affectcodec.manifest import Clip, read_manifests


def tokens_of(codec: AffectCodec, clips: Sequence[Clip], title: str) -> list[list[IntArray]]:
    """Codes per block ``[K, T]`` of each clip at all stages, int32."""
    found = []
    for clip in tqdm(clips, desc=title, unit="clip", disable=None):
        wav = load_audio(clip.file, sample_rate=codec.config.sample_rate, mono=True)[0]
        codes, _ = clip_codes(codec.encode(wav))
        found.append([block.astype(np.int32) for block in codes])
    return found


@dataclass(frozen=True)
class StageCost:
    """What stages cost, mean over frames.

    Attributes:
        stages: of every block.
        plain, coded: kbit/s of so many, as codes and entropy coded; packets' restarts are in,
            stage counts are not.
        last: bits a frame of the last of these stages, block by block.
    """

    stages: int
    plain: float
    coded: float
    last: tuple[float, ...]


def stage_costs(
    coder: PriorCoder, clips: Sequence[Sequence[IntArray]], frame_rate: float
) -> list[StageCost]:
    """Costs of clips' codes per block ``[K, T]`` at each stage count."""
    layout, rows = coder.prior.layout, []
    plain = sum(np.log2(np.prod(levels)) for levels in layout.levels)
    frames = sum(clip[0].shape[1] for clip in clips)
    for count in range(1, layout.num_stages + 1):
        bits = np.zeros(layout.num_digits)
        for clip in clips:
            stages = np.full((len(layout.names), clip[0].shape[1]), count, np.uint8)
            bits += coder.costs(clip, stages).sum(0)
        bits /= frames
        newest = layout.stage_of == count - 1
        rows.append(
            StageCost(
                count,
                count * plain * frame_rate / 1000,
                bits.sum() * frame_rate / 1000,
                tuple(
                    float(bits[newest & (layout.block_of == block)].sum())
                    for block in range(len(layout.names))
                ),
            )
        )
    return rows


def markdown(rows: Sequence[StageCost], names: Sequence[str]) -> str:
    """A row a stage count."""
    head = ["stages", "kbit/s, plain", "kbit/s, entropy coded", "of it"]
    head += [f"{name}: bits of the last stage" for name in names]
    return table(
        head,
        [
            [
                str(row.stages),
                f"{row.plain:.2f}",
                f"{row.coded:.2f}",
                f"{row.coded / row.plain:.0%}",
                *(f"{bits:.1f}" for bits in row.last),
            ]
            for row in rows
        ],
    )


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
@click.option(
    "--overwrite",
    is_flag=True,
    help="Replace a prior that is there. Files that were coded with it can then not be read.",
)
@click.option("--score", is_flag=True, help="Fit nothing: what does the prior that is there save?")
def main(
    manifests: tuple[Path, ...],
    weights: str | None,
    out: Path | None,
    steps: int,
    limit: int | None,
    seed: int,
    threads: int,
    overwrite: bool,
    score: bool,
) -> None:
    """Fit the prior of a codec's tokens on the train split of MANIFESTS.

    Then, or with --score at once, a table of what it saves on their dev split.
    """
    torch.set_num_threads(threads)
    folder = out or checkpoint.resolve(weights)
    path = folder / FILE_NAME
    if path.exists() and not (overwrite or score):
        raise click.ClickException(
            f"out: {path} is there, and files coded with it need it; give another folder with "
            "--out, or replace it with --overwrite"
        )
    codec = AffectCodec.from_pretrained(weights)
    try:
        if not score:
            clips = read_manifests(manifests, split="train", limit=limit)
            save_fitted(folder, codec, tokens_of(codec, clips, "tokens"), steps, seed)
            click.echo(f"{path}: prior {load(folder).id}\n")
        coder = PriorCoder(load(folder))
        clips = read_manifests(manifests, split="dev", limit=limit)
    except (ValueError, FileNotFoundError) as error:
        raise click.ClickException(str(error)) from error
    found = stage_costs(coder, tokens_of(codec, clips, "dev"), codec.config.frame_rate)
    click.echo(markdown(found, codec.config.quantizer.names))


def save_fitted(
    folder: Path, codec: AffectCodec, clips: Sequence[Sequence[IntArray]], steps: int, seed: int
) -> None:
    """Fit a prior to codes per block ``[K, T]`` of clips, and write it."""
    quantizer = codec.config.quantizer
    layout = DigitLayout(
        quantizer.names, tuple(block.levels for block in quantizer.blocks), quantizer.num_stages
    )
    with tqdm(total=steps, desc="fit", unit="step", disable=None) as bar:

        def report(step: int, bits: float) -> None:
            bar.update()
            bar.set_postfix_str(f"{bits:.3f} bits a digit", refresh=False)

        network = fit(layout, clips, PriorFit(steps=steps, seed=seed), report)
    folder.mkdir(parents=True, exist_ok=True)
    save(folder, Prior(layout, arrays(network)))


if __name__ == "__main__":
    main()
