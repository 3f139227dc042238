# SPDX-License-Identifier: Apache-2.0
"""Small quantizers and their reference."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from affectcodec.config import BDRFSQConfig, Block
from affectcodec.kernels.fold import fold
from affectcodec.kernels.plan import describe
from affectcodec.nn import BDRFSQ
from affectcodec.ops.bd_rfsq import BlockParams

DEFAULT = BDRFSQConfig(blocks=(Block("emotion", 16, (2, 2, 2)), Block("acoustic", 40, (4,) * 6)))
ODD = BDRFSQConfig(
    blocks=(Block("a", 1, (2,)), Block("b", 13, (9, 2, 5, 7)), Block("c", 7, (3, 33))),
    num_stages=3,
    bound="clamp",
)
ONE = BDRFSQConfig(blocks=(Block("only", 5, (5, 3)),), num_stages=1)


@dataclass
class Problem:
    """A quantizer with random parameters."""

    config: BDRFSQConfig
    module: BDRFSQ
    description: tuple[int, ...]
    weights: Tensor

    @property
    def params(self) -> list[Tensor]:
        names = self.config.names
        return [p.detach().clone() for name in names for p in self.module.block_params(name)]

    @classmethod
    def make(cls, config: BDRFSQConfig) -> Problem:
        module = BDRFSQ(config)
        with torch.no_grad():
            for p in module.parameters():
                p += 0.2 * torch.randn_like(p)
        description = describe(config)
        blocks = [module.block_params(name) for name in config.names]
        return cls(config, module, description, fold(blocks, description))


def exact_params(config: BDRFSQConfig) -> list[BlockParams]:
    """Parameters for which every sum of a projection is exact in float32, in any order."""
    blocks = []
    for block in config.blocks:
        K, d, D = config.num_stages, block.code_dim, block.width
        W = torch.randint(-8, 9, (K, d, D)) / 8.0
        blocks.append(
            BlockParams(
                W, torch.randn(K, d), torch.randn(K, D, d) / 4, torch.randn(K, D) / 8,
                torch.randn(K, d), torch.randn(K, d) / 8,
            )
        )  # fmt: skip
    return blocks
