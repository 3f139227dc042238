# SPDX-License-Identifier: Apache-2.0
"""BD-RFSQ in plain PyTorch, as functions of tensors: what ``torch.compile`` gets to work on.

The module checks arguments and reads its configuration at every call; ``torch.compile`` does best
with neither. These functions are the same mathematics with everything constant bound beforehand.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from affectcodec.config import BDRFSQConfig
from affectcodec.nn import BDRFSQ
from affectcodec.ops import fsq
from affectcodec.ops.bd_rfsq import BlockParams, quantize_naive
from affectcodec.ops.bd_rfsq.codespace import recurrence
from affectcodec.ops.bd_rfsq.params import levels_column


class Stagewise(nn.Module):
    """The quantizer without its checks; shares the parameters of ``quantizer``.

    Args:
        quantizer: whose parameters and configuration are used.
        channels_last: whether latents are ``[B, T, D]``.
    """

    def __init__(self, quantizer: BDRFSQ, channels_last: bool = False) -> None:
        super().__init__()
        config: BDRFSQConfig = quantizer.config
        self.quantizer = quantizer
        self.channels_last = channels_last
        self.names = config.names
        self.widths = [block.width for block in config.blocks]
        self.levels = [block.levels for block in config.blocks]
        self.sizes = [block.codebook_size for block in config.blocks]
        self.bases = list(config.token_bases().values())
        self.bound = config.bound
        self.token_dtype = fsq.token_dtype(config.codebook_size)

    def _params(self) -> list[BlockParams]:
        return [self.quantizer.block_params(name) for name in self.names]

    def _join(self, digits: Sequence[Tensor]) -> Tensor:
        token: Tensor | None = None
        for digit, levels, base in zip(digits, self.levels, self.bases, strict=True):
            code = fsq.pack_digits(digit, levels, self.token_dtype) * base
            token = code if token is None else token + code
        assert token is not None
        return token

    def _split(self, z: Tensor) -> Sequence[Tensor]:
        return (z.transpose(1, 2) if self.channels_last else z).split(self.widths, 1)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Quantized latent and tokens, stage by stage."""
        results = [
            quantize_naive(part, params, levels, self.bound)
            for part, params, levels in zip(
                self._split(z), self._params(), self.levels, strict=True
            )
        ]
        u = torch.cat([result.latents[-1] for result in results], 1)
        return (
            u.transpose(1, 2) if self.channels_last else u,
            self._join([result.digits for result in results]),
        )

    def encode(self, z: Tensor) -> Tensor:
        """Tokens, stage by stage."""
        return self(z)[1]

    def encode_codespace(self, z: Tensor) -> Tensor:
        """Tokens by one product and the recurrence in code space."""
        found = []
        for part, params, levels in zip(self._split(z), self._params(), self.levels, strict=True):
            width = params.W.shape[2]
            projections = torch.matmul(params.W.reshape(-1, width), part)
            projections = projections + params.c.reshape(-1, 1)
            found.append(recurrence(projections, params, levels, self.bound, None)[0])
        return self._join(found)

    def decode(self, tokens: Tensor) -> Tensor:
        """Latent from tokens, one stage after the other."""
        parts, code = [], tokens
        for size, params, levels in zip(self.sizes, self._params(), self.levels, strict=True):
            digits = fsq.unpack_digits(code % size, levels)
            code = code // size
            scale, level = params.scale(), levels_column(levels, params.W)
            total: Tensor | None = None
            for k in range(tokens.shape[1]):
                value = fsq.grid_values(digits[:, k], level)
                v = value / scale[k, :, None] + params.shift[k, :, None]
                o = torch.matmul(params.O[k], v) + params.e[k, :, None]
                total = o if total is None else total + o
            assert total is not None
            parts.append(total)
        u = torch.cat(parts, 1)
        return u.transpose(1, 2) if self.channels_last else u
