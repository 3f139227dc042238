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
import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from affectcodec.config import BDRFSQConfig, Block

IDLE_SHARE = 0.5


@dataclass(frozen=True)
class StageUse:
    """Use of one stage of one block.

    Attributes:
        digit_shares: for each code dim, entropy over its maximum (0..1).
        code_bits: entropy of the whole code in bits; at most `max_bits`.
        codes_used: codes that occurred, of `codebook_size`.
    """

    block: str
    stage: int
    digit_shares: tuple[float, ...]
    code_bits: float
    max_bits: float
    codes_used: int
    codebook_size: int
    frames: int

    @property
    def code_share(self) -> float:
        return self.code_bits / self.max_bits

    @property
    def idle_dims(self) -> tuple[int, ...]:
        """Code dims whose share is under 0.5."""
        return tuple(i for i, share in enumerate(self.digit_shares) if share < IDLE_SHARE)


def entropy_bits(counts: np.ndarray) -> float:
    """Entropy of a histogram `[levels]` in bits (0 for an empty one)."""
    counts = counts[counts > 0].astype(np.float64)
    if not counts.size:
        return 0.0
    shares = counts / counts.sum()
    return max(0.0, float(-(shares * np.log2(shares)).sum()))


def digits_of(codes: np.ndarray, levels: Sequence[int]) -> np.ndarray:
    """Codes `[...]` of a block -> digits `[len(levels), ...]`, the first dim in the low place."""
    digits, rest = [], codes
    for level in levels:
        digits.append(rest % level)
        rest = rest // level
    return np.stack(digits)


def stage_use(codes: np.ndarray, block: Block, stage: int) -> StageUse:
    """Use of one stage from its codes `[frames]`, whole numbers in 0..codebook_size-1.

    Raises:
        ValueError: no frame, or a code outside the codebook.
    """
    codes = np.asarray(codes).reshape(-1).astype(np.int64)
    if not codes.size:
        raise ValueError(f"token use: block {block.name!r} stage {stage} has no frame")
    if codes.min() < 0 or codes.max() >= block.codebook_size:
        raise ValueError(
            f"token use: block {block.name!r} has codes {codes.min()}..{codes.max()}, wanted "
            f"0..{block.codebook_size - 1}"
        )
    digits = digits_of(codes, block.levels)
    shares = tuple(
        entropy_bits(np.bincount(row, minlength=level)) / math.log2(level)
        for row, level in zip(digits, block.levels, strict=True)
    )
    _, counts = np.unique(codes, return_counts=True)
    return StageUse(
        block=block.name,
        stage=stage,
        digit_shares=shares,
        code_bits=entropy_bits(counts),
        max_bits=block.bits,
        codes_used=len(counts),
        codebook_size=block.codebook_size,
        frames=len(codes),
    )


def token_use(codes: Mapping[str, np.ndarray], config: BDRFSQConfig) -> list[StageUse]:
    """Use of every block and stage.

    Args:
        codes: block name -> codes `[stages, frames]` of all clips one after the other, padding
            removed. A block may be missing.
    """
    unknown = set(codes) - {block.name for block in config.blocks}
    if unknown:
        raise ValueError(f"token use: no block {sorted(unknown)} in the configuration")
    return [
        stage_use(row, block, stage)
        for block in config.blocks
        if block.name in codes
        for stage, row in enumerate(np.asarray(codes[block.name]))
    ]


def collect_codes(batches: Iterable[Any]) -> dict[str, np.ndarray]:
    """`Tokens` objects -> block name -> `[stages, frames]` without padding."""
    found: dict[str, list[np.ndarray]] = {}
    for tokens in batches:
        lengths = [int(n) for n in tokens.lengths]
        for name in tokens.stages:
            codes = tokens.block_codes(name).cpu().numpy()
            found.setdefault(name, []).extend(
                clip[:, :n] for clip, n in zip(codes, lengths, strict=True)
            )
    return {name: np.concatenate(parts, axis=1) for name, parts in found.items()}


def markdown(uses: Sequence[StageUse], *, command: str, clips: int) -> str:
    """A table with one line a stage, and the idle dims by name."""
    frames = uses[0].frames if uses else 0
    lines = [
        "# Token use",
        f"```\n{command}\n```",
        f"{clips} clips, {frames} frames. Digit shares: entropy over its maximum, dim 0 first.",
    ]
    table = [
        "| block | stage | digit shares | code bits of | share | codes used |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for use in uses:
        digits = " ".join(f"{share:.2f}" for share in use.digit_shares)
        table.append(
            f"| {use.block} | {use.stage + 1} | {digits} | {use.code_bits:.2f} of "
            f"{use.max_bits:.2f} | {use.code_share:.2f} | {use.codes_used} of {use.codebook_size} |"
        )
    lines.append("\n".join(table))
    for name in dict.fromkeys(use.block for use in uses):
        own = [use for use in uses if use.block == name]
        bits, most = sum(u.code_bits for u in own), sum(u.max_bits for u in own)
        lines.append(
            f"Block {name}: {bits:.1f} of {most:.1f} bits a frame ({bits / most:.0%}), "
            f"mean digit share {np.mean([s for u in own for s in u.digit_shares]):.2f}."
        )
    idle = [f"{u.block} stage {u.stage + 1} dim {dim}" for u in uses for dim in u.idle_dims]
    lines.append(f"Digits under {IDLE_SHARE:g}: " + (", ".join(idle) if idle else "none") + ".")
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
    import torch
    from tqdm import tqdm

    from affectcodec.codec import AffectCodec
    from affectcodec.evaluation.reconstruct import load_clip
    from affectcodec.evaluation.reconstruction import shown_command
    from affectcodec.manifest import read_manifest

    torch.set_num_threads(1)
    datasets = [name for name in arguments.datasets.split(",") if name]
    clips = read_manifest(
        arguments.manifest, split=arguments.split, datasets=datasets, limit=arguments.limit
    )
    codec = AffectCodec.from_pretrained(arguments.weights)
    bar = tqdm(clips, unit="clip", disable=arguments.quiet)
    codes = collect_codes(codec.encode(torch.from_numpy(load_clip(clip))) for clip in bar)
    uses = token_use(codes, codec.config.quantizer)
    command = shown_command(
        "affectcodec.evaluation.token_use", arguments, ("manifest", "weights", "out")
    )
    page = markdown(uses, command=command, clips=len(clips))
    if arguments.out:
        out = Path(arguments.out)
        out.mkdir(parents=True, exist_ok=True)
        data = {"command": command, "clips": len(clips), "stages": [asdict(use) for use in uses]}
        (out / "token_use.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
        (out / "token_use.md").write_text(page, encoding="utf-8")
    return page


if __name__ == "__main__":
    sys.exit(main())
