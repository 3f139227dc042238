# SPDX-License-Identifier: Apache-2.0
"""Between composite codes and rows of ids."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from affectcodec.config import BDRFSQConfig
from affectcodec.tokens.batch import Tokens
from affectcodec.tokens.chunks import Piece, each, fresh
from affectcodec.tokens.vocabulary import Row

Subset = dict[str, tuple[int, ...]]
_FEW_ROWS = 4


def digit(codes: Tensor, quantizer: BDRFSQConfig, name: str) -> Tensor:
    """Code of one block inside composite codes."""
    base = quantizer.token_bases()[name]
    size = quantizer.blocks[quantizer.names.index(name)].codebook_size
    if base & (base - 1) or size & (size - 1):
        return codes // base % size
    # Shift and mask: an integer division costs ten times as much.
    if base == 1:
        return codes & (size - 1)
    found = codes >> (base.bit_length() - 1)
    found &= size - 1
    return found


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
        top = max(row.offset + row.size for row in own)
        kind = torch.int64 if top > 2**31 - 1 else codes.dtype
        offsets = torch.tensor([row.offset for row in own], dtype=kind, device=out.device)
        _write(out[..., start : start + len(own)], codes, quantizer, block, stages, subset, offsets)
        start += len(own)


def _write(
    out: Tensor,
    codes: Tensor,
    quantizer: BDRFSQConfig,
    block: str | None,
    stages: list[int],
    subset: Subset,
    offsets: Tensor,
) -> None:
    """Ids ``[B, T, S]`` of codes ``[B, S, T]``, of one block or of all."""
    moved = bool(offsets.any())

    def work(piece: Piece) -> bool:
        clips, steps = piece
        found = codes[clips, :, steps]
        if block is not None:
            found = digit(found, quantizer, block)
        elif len(set(subset.values())) > 1:
            found = without_cut(found, quantizer, stages, subset)
        if moved and block is not None and offsets.dtype == found.dtype:
            found += offsets[:, None]  # `digit` made it
        elif moved:
            found = found + offsets[:, None]
        target = out[clips, steps]
        if len(stages) > _FEW_ROWS:
            target.copy_(found.transpose(1, 2))
            return True
        # One copy of all steps through the few rows of a frame innermost.
        for row in range(len(stages)):
            target[..., row].copy_(found[:, row])
        return True

    each(work, codes.shape[0], codes.shape[2], codes.device)


def read_composite(
    ids: Tensor, first: int, frames: Tensor, rows: Sequence[Row], quantizer: BDRFSQConfig
) -> Tensor | None:
    """Composite codes ``[B, K, T]`` of ids that list all rows of a frame after one another.

    Args:
        ids: int32 or int64 ``[B, L]``.
        first: where the first frame begins in every clip.
        frames: int64 ``[B]``, frames of each clip; codes beyond them are 0.
        rows: all of one composite layout, or for each block the same stages as for the others.

    Returns:
        None if an id is not possible at its place.
    """
    batch, top = ids.shape[0], int(frames.max())
    own = len(dict.fromkeys(row.block for row in rows))
    stages, device = len(rows) // own, ids.device
    dtype = torch.int64 if quantizer.codebook_size > 2**31 else torch.int32
    last = max(row.offset + row.size for row in rows)
    narrow = dtype if last < 2**31 else torch.int64
    offsets = torch.tensor([row.offset for row in rows], dtype=narrow, device=device)
    bases = list(quantizer.token_bases().values()) if own > 1 else [1]
    body = ids[:, first : first + top * len(rows)].unflatten(1, (top, len(rows)))
    codes = fresh((batch, stages, top), dtype, device)
    even, moved = bool((frames == top).all()), bool(offsets.any())

    def work(piece: Piece) -> bool:
        clips, steps = piece
        part = body[clips, steps]
        values = torch.empty(part.shape[0], len(rows), part.shape[1], dtype=narrow, device=device)
        # No id may wrap into a possible one, neither here nor less its offset.
        if not _within(part, 0, 2**31 if narrow == torch.int32 else 2**63):
            return False
        values.copy_(part.transpose(1, 2))
        if moved:
            values -= offsets[:, None]
        if not even:
            place = torch.arange(steps.start, steps.stop, device=device)
            values.masked_fill_((place >= frames[clips, None])[:, None], 0)
        for block, base in enumerate(bases):
            found = values[:, block * stages : (block + 1) * stages]
            if not _within(found, 0, rows[block * stages].size):
                return False
            if base != 1:
                found *= base
            if block:
                values[:, :stages] += found
        codes[clips, :, steps] = values[:, :stages]
        return True

    return codes if each(work, batch, top, device) else None


def _within(values: Tensor, low: int, end: int) -> bool:
    if not values.numel():
        return True
    least, most = torch.aminmax(values)
    return int(least) >= low and int(most) < end


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
