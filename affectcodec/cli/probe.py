# SPDX-License-Identifier: Apache-2.0
"""``affectcodec probe``: what the tokens of each block tell."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from affectcodec.cli.batch import set_threads


@click.command(short_help="Leakage probes, bits used, isolation.")
@click.argument(
    "manifests",
    metavar="MANIFEST...",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, path_type=Path),
)
@click.option(
    "--weights",
    metavar="NAME|FOLDER",
    help="Weights: the name of shipped ones, or a folder. Default: the shipped ones.",
)
@click.option("--kbps", type=float, help="Rate to probe. Default: the highest.")
@click.option("--train-split", default="train", show_default=True, help="Split to learn on.")
@click.option("--split", default="test", show_default=True, help="Split to score on.")
@click.option("--limit", type=click.IntRange(min=2), help="At most this many clips of each split.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for probes.json and probes.md.",
)
@click.option("--quiet", "-q", is_flag=True, help="No progress bar.")
def probe(
    manifests: tuple[Path, ...],
    weights: str | None,
    kbps: float | None,
    train_split: str,
    split: str,
    limit: int | None,
    out: Path | None,
    quiet: bool,
) -> None:
    """Probe the tokens: spectrum, pitch and energy from each block, emotion from each block, on
    speakers that the probes never saw; with the bits that each digit uses and the isolation check.

    \b
    Examples:
      affectcodec probe data/manifest.csv --out results/probes
      affectcodec probe data/manifest.csv --weights runs/dense --kbps 1.5
    """
    from tqdm import tqdm

    from affectcodec.codec import AffectCodec
    from affectcodec.evaluation.evaluate import Plan, check_speakers, read_clips
    from affectcodec.evaluation.probes import look_at, markdown, quantizer_facts, stages_at
    from affectcodec.evaluation.probes import probe as run_probes
    from affectcodec.evaluation.runs import shown_path, write_results
    from affectcodec.evaluation.token_use import join

    set_threads(1)
    plan = Plan(manifests, Path())
    train, clips = read_clips(plan, train_split, limit), read_clips(plan, split, limit)
    check_speakers(train, clips)
    codec = AffectCodec.from_pretrained(weights)
    stages = None if kbps is None else stages_at(codec, kbps)
    bar = tqdm(total=len(train) + len(clips), unit="clip", disable=quiet)

    def look(some: list) -> list:
        found = []
        for clip in some:
            found.append(look_at(codec, clip, stages))
            bar.update()
        return found

    learned, scored = look(train), look(clips)
    bar.close()
    tokens = [own for _, own in scored]
    results = run_probes(
        [own for own, _ in learned], [own for own, _ in scored], codec.config.quantizer.names
    )
    parts = ["affectcodec", "probe", *(shown_path(path) for path in manifests), "--split", split]
    parts += ["--weights", shown_path(weights)] if weights else []
    parts += ["--kbps", f"{kbps:g}"] if kbps is not None else []
    parts += ["--limit", str(limit)] if limit else []
    results |= {
        "command": shlex.join(parts),
        "quantizer": quantizer_facts(codec, join(tokens)),
        "train_clips": len(train),
        "train_speakers": len({(clip.dataset, clip.speaker) for clip in train}),
        "clips": len(clips),
        "speakers": len({(clip.dataset, clip.speaker) for clip in clips}),
        "frames": int(sum(int(own.lengths.sum()) for own in tokens)),
        "kbps": tokens[0].kbps,
    }
    page = markdown(results)
    if out is not None:
        write_results(out, "probes", results, page)
    click.echo(page)
