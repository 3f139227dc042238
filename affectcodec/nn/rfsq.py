# SPDX-License-Identifier: Apache-2.0
"""Baseline: residual FSQ with dense projections, of the same digits as BD-RFSQ."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from affectcodec.config import BDRFSQConfig, Block
from affectcodec.nn.bdrfsq import BDRFSQ, BDRFSQOutput, Stages


class DenseRFSQ(nn.Module):
    """Residual finite scalar quantizer whose digits read, and write, the whole latent.

    One block of all digits over all channels: the same levels, bits, token layout and kernels as
    :class:`BDRFSQ`, without its zeros. Where the blocks of the configuration begin and end does not
    matter to it, and a stage is active in all of them or in none.
    """

    def __init__(self, config: BDRFSQConfig, *, backend: str | None = None) -> None:
        super().__init__()
        self.config = config
        levels = tuple(level for block in config.blocks for level in block.levels)
        whole = Block("whole", config.width, levels)
        self.inner = BDRFSQ(
            BDRFSQConfig((whole,), config.num_stages, config.bound), backend=backend
        )

    def refold(self) -> None:
        """As of :class:`BDRFSQ`."""
        self.inner.refold()

    def encode(
        self, z: Tensor, *, channels_last: bool = False, out: Tensor | None = None
    ) -> Tensor:
        """As of :class:`BDRFSQ`."""
        return self.inner.encode(z, channels_last=channels_last, out=out)

    def decode(
        self,
        tokens: Tensor,
        stages: Stages = None,
        *,
        channels_last: bool = False,
        out: Tensor | None = None,
    ) -> Tensor:
        """As of :class:`BDRFSQ`; all blocks must have one stage count."""
        stages = shared_stages(self.config, stages)
        return self.inner.decode(tokens, stages, channels_last=channels_last, out=out)

    def forward(
        self,
        z: Tensor,
        stages: Stages = None,
        rates: tuple[int, ...] = (),
        *,
        channels_last: bool = False,
    ) -> BDRFSQOutput:
        """As of :class:`BDRFSQ`; all blocks must have one stage count."""
        stages = shared_stages(self.config, stages)
        return self.inner(z, stages, rates, channels_last=channels_last)


def shared_stages(config: BDRFSQConfig, stages: Stages) -> int | Tensor:
    """One stage count for all blocks: an int, or a tensor ``[B, 1]`` or ``[B, 1, T]``.

    Raises:
        ValueError: if blocks differ in their count.
    """
    if not isinstance(stages, Tensor):
        return next(iter(config.resolve_stages(stages).values()))
    groups = len(config.blocks)
    if stages.ndim not in (2, 3) or stages.shape[1] != groups:
        raise ValueError(
            f"stages: a tensor must be [B, G] or [B, G, T] with {groups} blocks, got "
            f"{list(stages.shape)}"
        )
    # A comparison would wait for a GPU; there, unequal counts fall to those of the first block.
    known = stages.device.type == "cpu" and not torch.compiler.is_compiling()
    if known and not bool((stages == stages[:, :1]).all()):
        raise ValueError(
            f"stages: a quantizer of kind {config.kind!r} has no blocks of its own; wanted one "
            "count for all blocks of a sample (in training: independent_stages=0)"
        )
    return stages[:, :1]
