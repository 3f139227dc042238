# SPDX-License-Identifier: Apache-2.0
"""Between composite codes and rows of ids."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from affectcodec.config import BDRFSQConfig
from affectcodec.tokens.batch import Tokens
from affectcodec.tokens.vocabulary import Row

Subset = dict[str, tuple[int, ...]]


def digit(codes: Tensor, quantizer: BDRFSQConfig, name: str) -> Tensor:
    """Code of one block inside composite codes."""
    base = quantizer.token_bases()[name]
    size = quantizer.blocks[quantizer.names.index(name)].codebook_size
    if base & (base - 1) or size & (size - 1):
        return codes // base % size
    # Shift and mask: an integer division costs ten times as much.
    return (codes >> (base.bit_length() - 1)) & (size - 1)


def take(codes: Tensor, stages: Sequence[int]) -> Tensor:
    """Stages of ``[B, K, T]``, without a copy where they are neighbours."""
    first, count = stages[0], len(stages)
    if tuple(stages) == tuple(range(first, first + count)):
        return codes[:, first : first + count]
    return codes[:, list(stages)]


def write_rows(out: Tensor, tokens: Tokens, rows: Sequence[Row], subset: Subset) -> None:
    """Ids of rows into ``out [B, T, S]``; as many frames as it has room for."""
    quantizer, frames = tokens.quantizer, out.shape[1]
    start = 0
    for block in dict.fromkeys(row.block for row in rows):
        own = [row for row in rows if row.block == block]
        stages = [row.stage for row in own]
        codes = take(tokens.codes[..., :frames], stages)
        if block is not None:
            codes = digit(codes, quantizer, block)
        elif len(set(subset.values())) > 1:
            codes = without_cut(codes, quantizer, stages, subset)
        target = out[..., start : start + len(own)]
        target.copy_(codes.transpose(1, 2))
        offsets = [row.offset for row in own]
        if any(offsets):
            target += torch.tensor(offsets, device=out.device)
        start += len(own)


def without_cut(
    codes: Tensor, quantizer: BDRFSQConfig, stages: list[int], subset: Subset
) -> Tensor:
    """Composite codes in which a block is 0 at the stages that do not keep it."""
    kept = torch.zeros_like(codes)
    for name, base in quantizer.token_bases().items():
        used = torch.tensor([stage in subset[name] for stage in stages], device=codes.device)
        kept += digit(codes, quantizer, name) * used[:, None] * base
    return kept


def check_present(tokens: Tokens, subset: Subset) -> None:
    for name, kept in subset.items():
        if kept and kept[-1] >= tokens.stages[name]:
            raise ValueError(
                f"tokens: hold {tokens.stages[name]} stages of {name!r}, but the pattern asks for "
                f"stage {kept[-1]} (counted from 0); make the pattern with fewer stages"
            )
    if tokens.frame_stages is None:
        return
    wanted = [max(kept, default=-1) + 1 for kept in subset.values()]
    need = torch.tensor(wanted, device=tokens.codes.device)[None, :, None]
    valid = torch.arange(tokens.num_frames, device=tokens.codes.device) < tokens.lengths[:, None]
    short = (tokens.frame_stages < need).any(1) & valid
    if bool(short.any()):
        clip, frame = (int(x) for x in short.nonzero()[0])
        raise ValueError(
            f"tokens: clip {clip} keeps {tokens.frame_stages[clip, :, frame].tolist()} stages of "
            f"{list(subset)} at frame {frame}, fewer than the pattern asks for ({wanted}): ids "
            "cannot mark what is missing; make the pattern with fewer stages"
        )
