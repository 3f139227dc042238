# SPDX-License-Identifier: Apache-2.0
"""Reading, moving and removing the emotion stream of tokens, without decoding audio."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from affectcodec.tokens.batch import Tokens

if TYPE_CHECKING:
    from affectcodec.codec import AffectCodec

EMOTION = "emotion"


def split(tokens: Tokens) -> dict[str, Tokens]:
    """Tokens of each block alone: ``{"emotion": ..., "acoustic": ...}``.

    A block that is cut to 0 stages is left out. ``join`` is the inverse.
    """
    return {name: only_block(tokens, name) for name, count in tokens.stages.items() if count}


def only_block(tokens: Tokens, name: str, stages: int | None = None) -> Tokens:
    """One block alone, the others cut to 0 stages.

    Args:
        name: the block; ``"emotion"`` gives an emotion-only stream (150 bit/s a stage by default).
        stages: how many of its stages; None for all that are there.

    Raises:
        ValueError: if the block is unknown or not there.
    """
    if name not in tokens.stages:
        raise ValueError(f"name: unknown block {name!r}; there are {list(tokens.stages)}")
    if not tokens.stages[name]:
        raise ValueError(f"tokens: hold no stage of {name!r}")
    counts = dict.fromkeys(tokens.stages, 0)
    counts[name] = tokens.stages[name] if stages is None else stages
    return tokens.truncate(counts)


def join(parts: Mapping[str, Tokens]) -> Tokens:
    """One token stream of blocks that come from different ones.

    Args:
        parts: for each block the tokens it is taken from; all of the same clips in length. Blocks
            left out are cut to 0 stages. Samples are counted by the first part.

    Raises:
        ValueError: if the parts come from different codecs, or differ in shape.
    """
    if not parts:
        raise ValueError("parts: wanted at least one block, got none")
    first = next(iter(parts.values()))
    for name, part in parts.items():
        _check_same_codec(first, part)
        if name not in part.stages:
            raise ValueError(f"parts: unknown block {name!r}; there are {list(part.stages)}")
        if part.codes.shape[::2] != first.codes.shape[::2] or not torch.equal(
            part.lengths.to(first.lengths), first.lengths
        ):
            raise ValueError(
                f"parts: {name!r} has clips of {part.lengths.tolist()[:8]} frames where "
                f"{next(iter(parts))!r} has {first.lengths.tolist()[:8]}; swap_emotion stretches "
                "one to the other"
            )
    counts = {name: parts[name].stages[name] if name in parts else 0 for name in first.stages}
    first.quantizer.resolve_stages(counts)
    keep = max(counts.values())
    batch, _, frames = first.codes.shape
    codes = first.codes.new_zeros(batch, keep, frames)
    for name, base in first.quantizer.token_bases().items():
        if counts[name]:
            own = parts[name].block_codes(name).to(codes) * base
            codes[:, : counts[name]] += own
    return dataclasses.replace(
        first, codes=codes, stages=counts, frame_stages=_joined_frame_stages(parts, counts)
    )


def _joined_frame_stages(parts: Mapping[str, Tokens], counts: dict[str, int]) -> Tensor | None:
    if all(part.frame_stages is None for part in parts.values()):
        return None
    first = next(iter(parts.values()))
    batch, _, frames = first.codes.shape
    rows = []
    for index, name in enumerate(counts):
        limit = parts[name].frame_stages if name in parts else None
        if limit is None:
            rows.append(first.lengths.new_full((batch, frames), counts[name]))
        else:
            rows.append(limit[:, index].to(first.lengths))
    return torch.stack(rows, 1)


def swap_emotion(to: Tokens, source: Tokens, *, align: str = "stretch") -> Tokens:
    """The clips of ``to`` with the emotion of ``source``.

    Args:
        to: gives all blocks but the emotion block, the length and the samples.
        source: gives the emotion block; as many clips, of any length.
        align: how frames of different counts meet: ``"stretch"`` (nearest frame at the same share
            of the clip), ``"repeat"`` (from the start, again from the start when it ends) or
            ``"exact"`` (an error if the counts differ).

    Raises:
        ValueError: on tokens of different codecs or batch sizes, or an empty source clip.
    """
    _check_same_codec(to, source)
    if len(to) != len(source):
        raise ValueError(f"source: wanted {len(to)} clips as in `to`, got {len(source)}")
    if align not in ("stretch", "repeat", "exact"):
        raise ValueError(f"align: wanted 'stretch', 'repeat' or 'exact', got {align!r}")
    frames = to.num_frames
    have, want = source.lengths.to(to.lengths), to.lengths
    if bool(((have == 0) & (want > 0)).any()):
        raise ValueError("source: a clip has no frames, so no emotion to give")
    if align == "exact" and not torch.equal(have, want):
        raise ValueError(
            f"source: frames differ: {have.tolist()[:8]} against {want.tolist()[:8]} of `to`; "
            "align='stretch' or 'repeat' fits them"
        )
    step = torch.arange(frames, device=to.codes.device)[None]
    if align == "repeat":
        index = step % have[:, None].clamp(min=1)
    else:
        index = (2 * step + 1) * have[:, None] // (2 * want[:, None]).clamp(min=1)
        index = torch.minimum(index, (have[:, None] - 1).clamp(min=0))
    index = torch.where(step < want[:, None], index, 0)
    moved = _at_frames(source, index, want)
    others = {name: to for name in to.stages if name != EMOTION}
    return dataclasses.replace(
        join({**others, EMOTION: moved}), num_samples=to.num_samples, lengths=to.lengths
    )


def _at_frames(tokens: Tokens, index: Tensor, lengths: Tensor) -> Tokens:
    """Frames ``index [B, T]`` of tokens; 0 beyond ``lengths``."""
    if not tokens.num_frames:
        return dataclasses.replace(tokens, lengths=lengths)
    valid = torch.arange(index.shape[1], device=index.device) < lengths[:, None]

    def take(values: Tensor) -> Tensor:
        values = values.to(index.device)
        rows = index[:, None].expand(-1, values.shape[1], -1)
        return values.gather(2, rows).masked_fill(~valid[:, None], 0)

    limit = None if tokens.frame_stages is None else take(tokens.frame_stages)
    return dataclasses.replace(
        tokens, codes=take(tokens.codes), lengths=lengths, frame_stages=limit
    )


def strip_emotion(tokens: Tokens, neutral: Tokens | None = None) -> Tokens:
    """The same clips without their emotion.

    Args:
        neutral: clips whose emotion block takes the place, such as a calm reading; repeated
            where it is shorter. None cuts the emotion block to 0 stages: the decoder then has no
            prosody to follow, which also costs intelligibility.

    Raises:
        ValueError: as :func:`swap_emotion`; or if nothing but emotion is there.
    """
    if neutral is not None:
        return swap_emotion(tokens, neutral, align="repeat")
    return join({name: tokens for name, n in tokens.stages.items() if name != EMOTION and n})


@torch.no_grad()
def interpolate(codec: AffectCodec, a: Tokens, b: Tokens, weight: float) -> Tokens:
    """The clips of ``a`` with an emotion between theirs and that of ``b``.

    The emotion latents are mixed and quantized again, since codes have no order to mix them by.

    Args:
        codec: the codec of the tokens.
        weight: 0 for the emotion of ``a``, 1 for that of ``b``; values outside exaggerate.

    Raises:
        ValueError: as :func:`swap_emotion`; or if ``codec`` is another one, or has no finite
            weight to mix by.
    """
    if codec.fingerprint != a.config_hash:
        raise ValueError(f"codec: is {codec.fingerprint}, the tokens come from {a.config_hash}")
    if not isinstance(weight, (int, float)) or not abs(weight) < 1e3:
        raise ValueError(f"weight: wanted a finite number, usually in 0..1, got {weight!r}")
    moved = swap_emotion(a, b)
    own = codec.quantizer.decode(a.codes, only_block(a, EMOTION).stages)
    other = codec.quantizer.decode(moved.codes, only_block(moved, EMOTION).stages)
    mixed = codec.quantizer.encode(torch.lerp(own, other, float(weight)))
    keep = min(a.stages[EMOTION], moved.stages[EMOTION])
    counts = dict.fromkeys(a.stages, 0) | {EMOTION: keep}
    valid = torch.arange(a.num_frames, device=a.codes.device) < a.lengths[:, None]
    emotion = dataclasses.replace(
        a,
        codes=mixed.masked_fill(~valid[:, None], 0),
        stages=dict.fromkeys(a.stages, mixed.shape[1]),
        frame_stages=None,
    ).truncate(counts)
    others = {name: a for name in a.stages if name != EMOTION and a.stages[name]}
    return dataclasses.replace(join({**others, EMOTION: emotion}), num_samples=a.num_samples)


def _check_same_codec(a: Tokens, b: Tokens) -> None:
    if a.config_hash != b.config_hash or a.quantizer != b.quantizer:
        raise ValueError(
            f"tokens: come from different codecs, {a.config_hash} and {b.config_hash}; their "
            "codes do not mean the same"
        )
