# SPDX-License-Identifier: Apache-2.0
"""Which frames get how many stages, so that a clip comes to a bit rate.

Bits go where there is speech: frames far below the clip's loudest get fewer stages, and where the
rate does not suffice for one more stage everywhere, the louder frames get it. Decisions hold for a
fifth of a second, because telling the decoder of a change costs about ten bits.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from affectcodec.audio import resample
from affectcodec.entropy.coder import PACKET_FRAMES, PriorCoder, clip_codes
from affectcodec.entropy.layout import IntArray
from affectcodec.tokens.batch import Tokens

if TYPE_CHECKING:
    from affectcodec.codec import AffectCodec

_SEARCH = 16
_PASSES = 4


@dataclass(frozen=True)
class RateControl:
    """How bits are shared out.

    Args:
        block_frames: frames for which a decision holds.
        quiet_db: frames so far below the clip's loudest are quiet.
        quiet_steps: steps of the ladder by which quiet frames stay behind.
        lead: stages that the first block, the emotion block, is ahead of the others.
    """

    block_frames: int = 10
    quiet_db: float = 40.0
    quiet_steps: float = 3.0
    lead: int = 1

    def __post_init__(self) -> None:
        if self.block_frames < 1 or self.quiet_db <= 0 or self.quiet_steps < 0 or self.lead < 0:
            raise ValueError(
                "RateControl: wanted block_frames of 1 or more, quiet_db above 0, quiet_steps and "
                f"lead of 0 or more, got {self}"
            )


_DEFAULT = RateControl()


def ladder(num_stages: int, groups: int, lead: int) -> npt.NDArray[np.uint8]:
    """Stage counts ``[L, G]`` in rising order: the first block ``lead`` ahead of the others."""
    levels = np.arange(1, num_stages + 1)
    ahead = np.minimum(num_stages, levels + np.where(levels > 1, lead, 0))
    return np.stack([ahead] + [levels] * (groups - 1), 1).astype(np.uint8)


def frame_levels(
    wav: npt.NDArray[np.floating], hop: int, frames: int, block_frames: int
) -> npt.NDArray[np.float64]:
    """Level of each frame in dB, ``[frames]``: that of the loudest frame of its block."""
    padded = np.zeros((frames + 1) * hop)
    part = np.asarray(wav, float)[: frames * hop]
    padded[hop : hop + len(part)] = part
    hops = (padded.reshape(frames + 1, hop) ** 2).mean(1)
    # a frame's tokens shape the two hops that its synthesis window covers
    power = np.maximum(hops[:-1], hops[1:])
    blocks = -(-frames // block_frames)
    loudest = np.pad(power, (0, blocks * block_frames - frames)).reshape(blocks, block_frames)
    return 10 * np.log10(np.repeat(loudest.max(1, initial=0), block_frames)[:frames] + 1e-12)


def plan(
    levels_db: npt.NDArray[np.float64],
    quality: float,
    steps: npt.NDArray[np.uint8],
    control: RateControl,
) -> npt.NDArray[np.uint8]:
    """Stage counts ``[G, T]`` of frames of these levels.

    Args:
        levels_db: ``[T]``.
        quality: place on the ladder, 0 to its length; between two steps the louder frames are up.
        steps: the ladder ``[L, G]``.
        control: how bits are shared out.
    """
    quiet = levels_db < levels_db.max(initial=-120.0) - control.quiet_db
    values, rank = np.unique(levels_db[~quiet], return_inverse=True)
    share = np.zeros(len(levels_db))
    if len(values):
        counts = np.bincount(rank)
        share[~quiet] = ((np.cumsum(counts) - counts / 2) / counts.sum())[rank]
    place = np.where(quiet, quality - control.quiet_steps, quality - 1 + share)
    return np.ascontiguousarray(steps[np.clip(np.floor(place), 0, len(steps) - 1).astype(int)].T)


def payload_bits(
    coder: PriorCoder,
    codes: Sequence[IntArray],
    stages: npt.NDArray[np.uint8],
    packet_frames: int = PACKET_FRAMES,
) -> float:
    """Bits of a clip's codes ``[K, T]`` with stage counts ``[G, T]``, to a few bits a packet."""
    digits = float(coder.costs(codes, stages, packet_frames).sum())
    return digits + coder.count_bits(stages, packet_frames)


def encode_to_rate(
    codec: AffectCodec,
    wav: Any,
    kbps: float,
    *,
    sample_rate: int = 16000,
    coder: PriorCoder,
    control: RateControl = _DEFAULT,
    packet_frames: int = PACKET_FRAMES,
) -> Tokens:
    """Tokens of one clip whose entropy-coded form has a bit rate, see :func:`to_rate`.

    Args:
        codec: the codec.
        wav: float ``[N]``, ``[1, N]`` or ``[1, 1, N]``, samples in [-1, 1].
        kbps: bit rate wanted, above 0.
        sample_rate: in Hz; anything but the codec's own rate is resampled.
        coder: entropy coder that fits the codec.
        control: how bits are shared out.
        packet_frames: frames of the packets that will be written; the prior starts anew in each.

    Raises:
        ValueError: as of `AffectCodec.encode`, and on more than one clip.
    """
    samples = np.asarray(wav.detach().cpu() if isinstance(wav, torch.Tensor) else wav)
    if samples.ndim < 1 or samples.size != samples.shape[-1]:
        raise ValueError(f"wav: wanted one clip, [N] or [1, 1, N], got {list(samples.shape)}")
    samples = samples.reshape(-1)
    tokens = codec.encode(samples, sample_rate)  # refuses what is no audio
    if sample_rate != codec.config.sample_rate:
        samples = resample(samples, sample_rate, codec.config.sample_rate)
    return to_rate(tokens, samples, kbps, coder, control, packet_frames)


def to_rate(
    tokens: Tokens,
    wav: npt.NDArray[np.floating],
    kbps: float,
    coder: PriorCoder,
    control: RateControl = _DEFAULT,
    packet_frames: int = PACKET_FRAMES,
) -> Tokens:
    """Tokens of one clip with stage counts by frame, whose entropy-coded form has this rate.

    Args:
        tokens: one clip, all stages.
        wav: its samples ``[N]`` at the codec's rate.
        kbps: bit rate wanted, payload over duration. A clip of which even one stage of every frame
            costs more gets one stage.
        coder: the entropy coder that will write the tokens.
        control: how bits are shared out.
        packet_frames: frames of the packets that will be written; the prior starts anew in each.

    Returns:
        Tokens with ``frame_stages``, at that rate or below it, give or take some bytes a packet.

    Raises:
        ValueError: more than one clip, tokens of another layout, or a rate that is not above 0.
    """
    if not kbps > 0:
        raise ValueError(f"kbps: wanted a rate above 0, got {kbps}")
    coder.check(tokens)
    codes, _ = clip_codes(tokens)
    frames, names = codes[0].shape[1], tokens.quantizer.names
    steps = ladder(min(tokens.stages.values()), len(names), control.lead)
    levels = frame_levels(wav, tokens.hop_length, frames, control.block_frames)
    budget = kbps * 1000 * float(tokens.duration[0])
    step_costs = _step_costs(coder, codes, steps, packet_frames)
    fewest = plan(levels, 0.0, steps, control)
    best, ratio = fewest, 1.0
    for _ in range(_PASSES):
        # Costs with all stages present tell what a plan costs but for a factor; the prior says it.
        low, high = 0.0, len(steps) + control.quiet_steps
        stages, guess = fewest, 0.0
        for _ in range(_SEARCH):
            middle = (low + high) / 2
            tried = plan(levels, middle, steps, control)
            cost = _guess(step_costs, tried, coder, packet_frames)
            if cost * ratio <= budget:
                low, stages, guess = middle, tried, cost
            else:
                high = middle
        real = payload_bits(coder, codes, stages, packet_frames)
        if real <= budget and stages.sum() >= best.sum():
            best = stages
        if not guess or 0.99 * budget <= real <= budget:
            break
        # a little too little rather than too much
        ratio = real / guess * (1.0 if real <= budget else 1.003)
    return with_frame_stages(tokens, best)


def _step_costs(
    coder: PriorCoder,
    codes: Sequence[IntArray],
    steps: npt.NDArray[np.uint8],
    packet_frames: int,
) -> npt.NDArray[np.float64]:
    """Bits ``[G, T, K + 1]`` of the first k stages of each block and frame, all being present."""
    layout = coder.prior.layout
    frames, most = codes[0].shape[1], int(steps.max())
    full = np.full((len(codes), frames), most, np.uint8)
    costs = coder.costs(codes, full, packet_frames)
    out = np.zeros((len(codes), frames, most + 1))
    for block in range(len(codes)):
        for stage in range(most):
            part = (layout.block_of == block) & (layout.stage_of == stage)
            out[block, :, stage + 1] = out[block, :, stage] + costs[:, part].sum(1)
    return out


def _guess(
    step_costs: npt.NDArray[np.float64],
    stages: npt.NDArray[np.uint8],
    coder: PriorCoder,
    packet_frames: int,
) -> float:
    chosen = np.take_along_axis(step_costs, stages[..., None].astype(np.int64), 2)
    return float(chosen.sum()) + coder.count_bits(stages, packet_frames)


def with_frame_stages(tokens: Tokens, stages: npt.NDArray[np.uint8]) -> Tokens:
    """One clip with these stage counts ``[G, T]``; digits of absent stages are 0."""
    counts = torch.from_numpy(stages.astype(np.int64))
    most = [int(c.max()) if c.numel() else 1 for c in counts]
    keep = max([1, *most])
    codes = torch.zeros_like(tokens.codes[:, :keep])
    stage = torch.arange(keep)[:, None]
    for index, (name, base) in enumerate(tokens.quantizer.token_bases().items()):
        block = tokens.block_codes(name)[:, :keep].to(codes.dtype)
        there = stage[: block.shape[1]] < counts[index][None]
        codes[:, : block.shape[1]] += block * there.to(codes.dtype) * base
    return dataclasses.replace(
        tokens,
        codes=codes,
        stages=dict(zip(tokens.quantizer.names, most, strict=True)),
        frame_stages=counts[None],
    )
