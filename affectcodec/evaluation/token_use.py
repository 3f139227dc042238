# SPDX-License-Identifier: Apache-2.0
"""Command: how much of each digit and each code the quantizer uses.

    python -m affectcodec.evaluation.token_use --manifest data/manifest.csv --split dev \\
        --out results/token_use

A digit with L levels can carry log2 L bits. Its share is the entropy of its histogram over that:
1 where all levels are equally frequent, 0 for a constant. Under 0.5 a digit is named as idle. The
entropy of whole codes also sees digits that repeat each other; both ignore what neighbouring frames
tell, so they are upper bounds of the information sent.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from affectcodec.nn.diagnostics import UsageReport, usage_report
from affectcodec.tokens import Tokens


def join(parts: Iterable[Tokens]) -> Tokens:
    """All clips one after the other as a single one, padding left out.

    Raises:
        ValueError: without any clip.
    """
    clips = [tokens.select(i) for tokens in parts for i in range(len(tokens))]
    if not clips:
        raise ValueError("token use: got no clip, wanted at least one")
    return dataclasses.replace(
        clips[0],
        codes=torch.cat([clip.codes for clip in clips], 2),
        lengths=torch.stack([clip.lengths for clip in clips]).sum(0),
        num_samples=torch.stack([clip.num_samples for clip in clips]).sum(0),
    )


def markdown(report: UsageReport, *, command: str, clips: int) -> str:
    """A table with one line a stage, and the idle dims by name."""
    lines = [
        "# Token use",
        f"```\n{command}\n```",
        f"{clips} clips, {report.codes[0].frames} frames. Digit shares: entropy over its maximum, "
        "dim 0 first.",
    ]
    table = [
        "| block | stage | digit shares | code bits of | share | codes used |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for use in report.codes:
        own = [d for d in report.digits if (d.block, d.stage) == (use.block, use.stage)]
        digits = " ".join(f"{digit.share:.2f}" for digit in own)
        table.append(
            f"| {use.block} | {use.stage} | {digits} | {use.bits:.2f} of {use.max_bits:.2f} | "
            f"{use.bits / use.max_bits:.2f} | {use.used} of {use.codebook_size} |"
        )
    lines.append("\n".join(table))
    for name in dict.fromkeys(use.block for use in report.codes):
        stages = [use for use in report.codes if use.block == name]
        bits, most = sum(use.bits for use in stages), sum(use.max_bits for use in stages)
        shares = [digit.share for digit in report.digits if digit.block == name]
        lines.append(
            f"Block {name}: {bits:.1f} of {most:.1f} bits a frame ({bits / most:.0%}), "
            f"mean digit share {sum(shares) / len(shares):.2f}."
        )
    idle = [
        f"{digit.block} stage {digit.stage} dim {digit.dim}"
        for digit in report.digits
        if digit.share < report.threshold
    ]
    lines.append(f"Digits under {report.threshold:g}: " + (", ".join(idle) or "none") + ".")
    return "\n\n".join(lines) + "\n"


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m affectcodec.evaluation.token_use",
        description="Entropy of the quantizer's digits and codes over the clips of a manifest.",
    )
    parser.add_argument("--manifest", required=True, help="CSV: path, dataset, speaker, split")
    parser.add_argument("--split", default="dev", help="split of the manifest (default: dev)")
    parser.add_argument("--datasets", default="", help="comma-separated (default: all)")
    parser.add_argument("--weights", help="folder with weights (default: the shipped ones)")
    parser.add_argument("--limit", type=int, help="at most this many clips, evenly spread")
    parser.add_argument("--out", help="folder for token_use.json and token_use.md")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = build_parser()
    arguments = parser.parse_args(argv)
    try:
        print(evaluate(arguments))
    except (ValueError, ImportError) as error:
        parser.exit(1, f"error: {error}\n")
    return 0


def evaluate(arguments: argparse.Namespace) -> str:
    """Encodes the clips at full rate and reports; the Markdown page."""
    from tqdm import tqdm

    from affectcodec.codec import AffectCodec
    from affectcodec.evaluation.reconstruct import load_clip
    from affectcodec.evaluation.reconstruction import shown_command
    from affectcodec.evaluation.runs import write_results
    from affectcodec.manifest import read_manifest

    torch.set_num_threads(1)
    datasets = [name for name in arguments.datasets.split(",") if name]
    clips = read_manifest(
        arguments.manifest, split=arguments.split, datasets=datasets, limit=arguments.limit
    )
    codec = AffectCodec.from_pretrained(arguments.weights)
    bar = tqdm(clips, unit="clip", disable=arguments.quiet)
    tokens = join(codec.encode(torch.from_numpy(load_clip(clip))) for clip in bar)
    report = usage_report(tokens, codec.config.quantizer)
    command = shown_command(
        "affectcodec.evaluation.token_use", arguments, ("manifest", "weights", "out")
    )
    page = markdown(report, command=command, clips=len(clips))
    if arguments.out:
        data = {"command": command, "clips": len(clips), **report.to_dict()}
        write_results(Path(arguments.out), "token_use", data, page)
    return page


if __name__ == "__main__":
    sys.exit(main())
