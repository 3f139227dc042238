# SPDX-License-Identifier: Apache-2.0
"""``Tokens``: what the encoder gives and the decoder takes, with all that is needed to read it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from affectcodec.config import BDRFSQConfig, StageSpec


@dataclass(frozen=True, eq=False)
class Tokens:
    """Composite tokens of a batch of clips. Equal where all parts are, on whatever device.

    Attributes:
        codes: int32 (int64 for codebooks above 2**31) ``[B, K, T]``; ``K`` is the largest stage
            count of any block. Where a block is cut earlier its digits are 0 and not decoded.
        lengths: int64 ``[B]``, valid frames of each clip.
        num_samples: int64 ``[B]``, samples of each clip at ``sample_rate``.
        stages: stage count of every block.
        quantizer: configuration that gives the digits their meaning.
        config_hash: fingerprint of the codec that made the tokens.
        sample_rate: in Hz.
        hop_length: samples a frame.
        frame_stages: optional int64 ``[B, G, T]``, the stage count of each block at each frame
            where it varies inside a clip (a damaged or rate-adapted stream); ``stages`` holds
            the maxima.
    """

    codes: Tensor
    lengths: Tensor
    num_samples: Tensor
    stages: dict[str, int]
    quantizer: BDRFSQConfig
    config_hash: str
    sample_rate: int = 16000
    hop_length: int = 320
    frame_stages: Tensor | None = None

    def __post_init__(self) -> None:
        if self.codes.ndim != 3 or self.codes.dtype not in (torch.int32, torch.int64):
            raise ValueError(
                f"Tokens: codes must be an int32 or int64 tensor [B, K, T], "
                f"got {self.codes.dtype} {tuple(self.codes.shape)}"
            )
        batch = self.codes.shape[0]
        for name in ("lengths", "num_samples"):
            value = getattr(self, name)
            if tuple(value.shape) != (batch,):
                raise ValueError(
                    f"Tokens: {name} must be [B] = [{batch}], got {tuple(value.shape)}"
                )
        counts = self.quantizer.resolve_stages(self.stages)
        object.__setattr__(self, "stages", counts)
        if self.codes.shape[1] != max(counts.values()):
            raise ValueError(
                f"Tokens: codes hold {self.codes.shape[1]} stages but stages={counts} "
                f"need {max(counts.values())}"
            )
        shape = (batch, len(counts), self.codes.shape[2])
        if self.frame_stages is not None and tuple(self.frame_stages.shape) != shape:
            raise ValueError(
                f"Tokens: frame_stages must be [B, G, T] = {shape}, "
                f"got {tuple(self.frame_stages.shape)}"
            )

    # Written out: the one that dataclasses generate asks a tensor for its truth value.
    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tokens):
            return NotImplemented
        for field in dataclasses.fields(self):
            own, its = getattr(self, field.name), getattr(other, field.name)
            if isinstance(own, Tensor) and isinstance(its, Tensor):
                if own.shape != its.shape or not bool((own.cpu() == its.cpu()).all()):
                    return False
            elif isinstance(own, Tensor) or isinstance(its, Tensor) or own != its:
                return False
        return True

    def __len__(self) -> int:
        return self.codes.shape[0]

    @property
    def batch_size(self) -> int:
        """Number of clips."""
        return self.codes.shape[0]

    @property
    def num_frames(self) -> int:
        """Frames of the padded batch, ``T``."""
        return self.codes.shape[2]

    @property
    def duration(self) -> Tensor:
        """Seconds of each clip, float64 ``[B]``."""
        return self.num_samples.double() / self.sample_rate

    @property
    def kbps(self) -> float:
        """Nominal bit rate of the tokens in kbit/s, container excluded."""
        bits = sum(self.quantizer.bits(self.stages).values())
        return bits * self.sample_rate / self.hop_length / 1000

    def to(self, device: torch.device | str) -> Tokens:
        """The same tokens on another device."""
        moved = {
            name: getattr(self, name).to(device) for name in ("codes", "lengths", "num_samples")
        }
        if self.frame_stages is not None:
            moved["frame_stages"] = self.frame_stages.to(device)
        return dataclasses.replace(self, **moved)

    def select(self, index: int) -> Tokens:
        """One clip as a batch of one, cut to its own length."""
        frames = int(self.lengths[index])
        cut = slice(index, index + 1) if index >= 0 else slice(index, index + 1 or None)
        return dataclasses.replace(
            self,
            codes=self.codes[cut, :, :frames],
            lengths=self.lengths[cut],
            num_samples=self.num_samples[cut],
            frame_stages=None if self.frame_stages is None else self.frame_stages[cut, :, :frames],
        )

    def block_codes(self, name: str) -> Tensor:
        """Codes of one block, ``[B, K_block, T]``, each in ``0..block.codebook_size-1``."""
        if name not in self.quantizer.names:
            raise ValueError(
                f"name: unknown block {name!r}; there are {list(self.quantizer.names)}"
            )
        block = self.quantizer.blocks[self.quantizer.names.index(name)]
        base = self.quantizer.token_bases()[name]
        return self.codes[:, : self.stages[name]] // base % block.codebook_size

    def truncate(self, stages: StageSpec) -> Tokens:
        """The same clips with fewer stages; counts above what is there are cut to what is there."""
        asked = self.quantizer.resolve_stages(stages)
        counts = {name: min(asked[name], self.stages[name]) for name in asked}
        self.quantizer.resolve_stages(counts)
        keep = max(counts.values())
        codes = torch.zeros_like(self.codes[:, :keep])
        for name, base in self.quantizer.token_bases().items():
            codes[:, : counts[name]] += (
                self.block_codes(name)[:, : counts[name]].to(codes.dtype) * base
            )
        limit = self.frame_stages
        if limit is not None:
            cap = torch.tensor([counts[n] for n in self.quantizer.names], device=limit.device)
            limit = torch.minimum(limit, cap[None, :, None])
        return dataclasses.replace(self, codes=codes, stages=counts, frame_stages=limit)
