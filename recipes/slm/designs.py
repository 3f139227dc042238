# SPDX-License-Identifier: Apache-2.0
"""Token designs that are compared, and where each of their codes stands in a sequence."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from affectcodec import AffectCodec
from affectcodec.config import BDRFSQConfig, Block
from affectcodec.tokens import Pattern, Tokens, Vocabulary

CODECS = ("bd-rfsq", "rvq")


@dataclass(frozen=True)
class Design:
    """A codec and how its tokens are laid out: 30 bits a frame, 1.5 kbit/s, in all of them."""

    codec: str
    layout: str
    pattern: str
    stages: int

    @property
    def name(self) -> str:
        return f"{self.codec}-{self.pattern}"


DESIGNS: tuple[Design, ...] = (
    Design("bd-rfsq", "split", "emotion_first", 2),
    Design("rvq", "offset", "flatten", 3),
    Design("bd-rfsq", "split", "flatten", 2),
    Design("bd-rfsq", "split", "delay", 2),
    Design("rvq", "offset", "delay", 3),
    Design("bd-rfsq", "split", "parallel", 2),
    Design("rvq", "offset", "parallel", 3),
)
BY_NAME = {design.name: design for design in DESIGNS}


def rvq_config(config: BDRFSQConfig) -> BDRFSQConfig:
    """Residual VQ of the same width: 3 stages of 1,024 entries, the 30 bits of two of BD-RFSQ."""
    emotion, acoustic = config.blocks
    blocks = (
        Block(emotion.name, emotion.width, (2,)),
        Block(acoustic.name, acoustic.width, (8,) * 3),
    )
    return BDRFSQConfig(blocks=blocks, num_stages=3, kind="rvq")


def fit_rvq(codec: AffectCodec, latents: Tensor, *, passes: int = 2) -> AffectCodec:
    """The same encoder and decoder around residual VQ that is fitted on latents.

    k-means of all latents a stage, then `passes` of moving averages over them in batches.

    Args:
        latents: `[N, D]` of the encoder, before quantization.
    """
    config = replace(codec.config, quantizer=rvq_config(codec.config.quantizer), name="rvq")
    with torch.inference_mode(False):
        made = AffectCodec(config)
        kept = {k: v for k, v in codec.state_dict().items() if not k.startswith("quantizer.")}
        made.load_state_dict(kept, strict=False)
        made.quantizer.train()
        made.quantizer(latents[None], channels_last=True)
        generator = torch.Generator().manual_seed(0)
        for _ in range(passes):
            order = torch.randperm(len(latents), generator=generator)
            for part in order.split(8192):
                made.quantizer(latents[None, part], channels_last=True)
    return made.eval().requires_grad_(False)


@dataclass(frozen=True, eq=False)
class Layout:
    """Places of a sequence of `frames` frames, the same for every clip.

    Codes of row `r` have the numbers `starts[r] .. starts[r] + sizes[r] - 1`, special ids follow.

    Attributes:
        pattern: of the library; with bos, without eos.
        frames: frames of a sequence.
        row: int64 `[S, L]`, the row of `pattern.rows` that each place holds, -1 for special ids.
        frame: int64 `[S, L]`, its frame.
        fixed: int64 `[S, L]`, the number that stands at special places.
        numbers: int64 `[vocabulary.size]`, from ids of the vocabulary to numbers.
        ids: its inverse.
    """

    pattern: Pattern
    frames: int
    row: Tensor
    frame: Tensor
    fixed: Tensor
    numbers: Tensor
    ids: Tensor
    starts: tuple[int, ...]
    sizes: tuple[int, ...]

    @property
    def streams(self) -> int:
        return self.row.shape[0]

    @property
    def steps(self) -> int:
        return self.row.shape[1]

    @property
    def size(self) -> int:
        """Numbers in all."""
        return len(self.ids)

    @property
    def bos(self) -> int:
        return int(self.numbers[self.pattern.vocabulary.special("bos")])

    def encode(self, tokens: Tokens) -> Tensor:
        """Numbers `[B, S, L]`, without bos."""
        ids = self.pattern.encode(tokens).ids
        ids = ids[:, None] if self.pattern.flat else ids
        return self.numbers[ids[..., 1:]]

    def decode(self, numbers: Tensor) -> Tokens:
        """Tokens of numbers `[B, S, L]`."""
        ids = self.ids[numbers]
        bos = torch.full_like(ids[..., :1], self.pattern.vocabulary.special("bos"))
        ids = torch.cat([bos, ids], -1)
        lengths = torch.full((len(ids),), ids.shape[-1])
        return self.pattern.decode(ids[:, 0] if self.pattern.flat else ids, lengths)


def make_layout(design: Design, codec: AffectCodec, frames: int) -> Layout:
    """The layout of a design for clips of so many frames."""
    vocabulary = Vocabulary.of(codec, design.layout)
    pattern = Pattern(design.pattern, vocabulary, stages=design.stages, eos=False)
    rows = pattern.rows
    starts, total = [], 0
    numbers = torch.full((vocabulary.size,), -1, dtype=torch.int64)
    for row in rows:
        starts.append(total)
        numbers[row.offset : row.offset + row.size] = torch.arange(total, total + row.size)
        total += row.size
    special = [vocabulary.special(name) for name in vocabulary.specials]
    numbers[special] = torch.arange(total, total + len(special))
    blank = Tokens(
        torch.zeros(1, design.stages, frames, dtype=torch.int32),
        torch.tensor([frames]),
        torch.tensor([(frames - 1) * codec.config.hop_length]),
        dict.fromkeys(codec.config.quantizer.names, design.stages),
        codec.config.quantizer,
        codec.fingerprint,
    )
    ids = pattern.encode(blank).ids
    ids = (ids if pattern.flat else ids[0])[:, 1:]
    places = numbers[ids]
    row = torch.full_like(places, -1)
    for index, (start, own) in enumerate(zip(starts, rows, strict=True)):
        row[(places >= start) & (places < start + own.size)] = index
    frame = torch.zeros_like(places)
    for index in range(len(rows)):
        here = row == index
        frame[here] = torch.arange(frames)
    inverse = torch.empty(total + len(special), dtype=torch.int64)
    known = (numbers >= 0).nonzero()[:, 0]
    inverse[numbers[known]] = known
    sizes = tuple(own.size for own in rows)
    return Layout(pattern, frames, row, frame, places, numbers, inverse, tuple(starts), sizes)
