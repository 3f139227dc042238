# SPDX-License-Identifier: Apache-2.0
"""Small quantizers and their reference."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from affectcodec.config import BDRFSQConfig, Block
from affectcodec.kernels.fold import fold
from affectcodec.kernels.plan import describe, make_plan
from affectcodec.nn import BDRFSQ
from affectcodec.ops.bd_rfsq import BlockParams

DEFAULT = BDRFSQConfig(blocks=(Block("emotion", 16, (2, 2, 2)), Block("acoustic", 40, (4,) * 6)))
ODD = BDRFSQConfig(
    blocks=(Block("a", 1, (2,)), Block("b", 13, (9, 2, 5, 7)), Block("c", 7, (3, 33))),
    num_stages=3,
    bound="clamp",
)
ONE = BDRFSQConfig(blocks=(Block("only", 5, (5, 3)),), num_stages=1)
WIDE = BDRFSQConfig(blocks=(Block("x", 9, (67, 64)), Block("y", 8, (64, 64, 64, 3))), num_stages=2)
CONFIGS = {"default": DEFAULT, "odd": ODD, "one": ONE, "wide": WIDE}


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


def digits_by_hand(z: Tensor, weights: Tensor, config: BDRFSQConfig) -> Tensor:
    """Tokens int64 ``[B, K, T]`` of exact projections, by the recurrence in float32, a rounding
    an operation, in the order that every backend keeps; from the same folded constants."""
    plan = make_plan(describe(config))
    batch, _, length = z.shape
    frames = z.float().transpose(1, 2).reshape(batch * length, -1)
    tokens = torch.zeros(batch * length, plan.stages, dtype=torch.int64)
    for block in plan.blocks:
        C, DP = block.columns, block.padded_dims

        def part(offset: int, rows: int, C: int = C) -> Tensor:
            return weights[offset : offset + rows * C].view(rows, C)

        inward = part(block.inward, block.width).double()
        own = frames[:, block.channel : block.channel + block.width].double()
        x = (own @ inward).float()
        stage = torch.arange(C) // DP
        x = x + part(block.offset, plan.stages + 1)[stage.clamp(max=plan.stages), torch.arange(C)]
        threshold, value = part(block.threshold, block.most - 1), part(block.value, block.most)
        cross = part(block.cross, C)
        for k in range(plan.stages):
            for i in range(block.dims):
                j = k * DP + i
                digit = (x[:, j, None] >= threshold[None, :, j]).sum(1)
                tokens[:, k] += digit * block.bases[i]
                later = stage > k
                product = value[digit, j][:, None] * cross[later, j][None, :]
                x[:, later] = x[:, later] - product
    return tokens.view(batch, length, -1).transpose(1, 2)
