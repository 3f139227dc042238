# SPDX-License-Identifier: Apache-2.0
"""Results of the operators without data: shapes and types, for ``torch.compile`` and
``torch.export``, and the sizes of folded weights. ``registry.py`` has the operators.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from affectcodec.ops import fsq

UNIT = 64  # frames; the forward's saved values are padded to whole units


@dataclass(frozen=True)
class Shape:
    """What a fake needs of ``config``."""

    num_stages: int
    blocks: tuple[tuple[int, tuple[int, ...]], ...]  # width and levels

    @classmethod
    def of(cls, config: Sequence[int]) -> Shape:
        blocks, at = [], 3
        for _ in range(config[2]):
            width, dims = config[at], config[at + 1]
            blocks.append((width, tuple(config[at + 2 : at + 2 + dims])))
            at += 2 + dims
        return cls(config[1], tuple(blocks))

    @property
    def width(self) -> int:
        return sum(width for width, _ in self.blocks)

    @property
    def code_dim(self) -> int:
        return sum(len(levels) for _, levels in self.blocks)

    @property
    def token_dtype(self) -> torch.dtype:
        size = 1
        for _, levels in self.blocks:
            for level in levels:
                size *= level
        return fsq.token_dtype(size)


def layout_of(tensor: Tensor, channels_last: bool) -> tuple[Any, Any]:
    """Batch and frames of a latent."""
    return tensor.shape[0], tensor.shape[1 if channels_last else 2]


def empty_latent(like: Tensor, batch: Any, frames: Any, width: int, channels_last: bool) -> Tensor:
    shape = (batch, frames, width) if channels_last else (batch, width, frames)
    return like.new_empty(shape)


def no_fold(params: list[Tensor], config: list[int]) -> Tensor:
    raise NotImplementedError("the size of folded weights is the backend's affair; see registry.py")


def folded_size(config: Sequence[int]) -> int:
    """Floats of weights folded by compiled C++; their layout stands in ``csrc/core/plan.h``."""

    def padded(count: int) -> int:
        return -(-count // 16) * 16

    shape, total = Shape.of(config), 0
    stages = shape.num_stages
    for width, levels in shape.blocks:
        rows, most = stages * len(levels), max(levels)
        ld_rows, ld_width = padded(rows), padded(width)
        total += 2 * padded(rows * ld_width) + 2 * padded(width * ld_rows)
        total += 2 * padded(rows * ld_rows) + padded((stages + 1) * ld_rows)
        total += 3 * padded(rows * most) + padded(ld_rows) + padded((stages + 1) * ld_width)
    return total


def triton_folded_size(config: Sequence[int]) -> int:
    from affectcodec.kernels.plan import make_plan  # needs no triton

    return make_plan(config).floats


def cuda_folded_size(config: Sequence[int]) -> int:
    """As :func:`folded_size`, and behind it both projections split for tensor cores."""
    shape, total = Shape.of(config), folded_size(config)
    for width, levels in shape.blocks:
        tiles, steps = -(-width // 16), -(-shape.num_stages * len(levels) // 16)
        total += 2 * tiles * steps * 256
    return total


def encode(z: Tensor, weights: Tensor, config: list[int], channels_last: bool) -> Tensor:
    shape = Shape.of(config)
    batch, frames = layout_of(z, channels_last)
    return z.new_empty((batch, shape.num_stages, frames), dtype=shape.token_dtype)


def new_outputs(
    z: Tensor, config: Sequence[int], count: int, channels_last: bool
) -> tuple[list[Tensor], Tensor]:
    """Room for ``count`` latents like ``z``, and for the tokens ``[B, K, T]``."""
    shape = Shape.of(config)
    batch, frames = layout_of(z, channels_last)
    latents = [empty_latent(z, batch, frames, shape.width, channels_last) for _ in range(count)]
    return latents, z.new_empty((batch, shape.num_stages, frames), dtype=shape.token_dtype)


def forward(
    z: Tensor,
    weights: Tensor,
    config: list[int],
    counts: Tensor | None,
    rates: list[int],
    channels_last: bool,
) -> tuple[list[Tensor], Tensor, Tensor]:
    shape = Shape.of(config)
    batch, frames = layout_of(z, channels_last)
    latents, tokens = new_outputs(z, config, len(rates) + 1, channels_last)
    # One dimension: a graph would be made again for a first dimension of one unit.
    units = (batch * frames + UNIT - 1) // UNIT
    saved = z.new_empty((units * shape.num_stages * shape.code_dim * UNIT,), dtype=torch.float32)
    return latents, tokens, saved


def backward(
    grads: list[Tensor],
    present: list[int],
    z: Tensor,
    saved: Tensor,
    weights: Tensor,
    params: list[Tensor],
    config: list[int],
    counts: Tensor | None,
    rates: list[int],
    channels_last: bool,
    need_dz: bool,
) -> tuple[Tensor, list[Tensor]]:
    batch, frames = layout_of(z, channels_last)
    width = Shape.of(config).width
    dz = empty_latent(z, batch, frames, width, channels_last) if need_dz else z.new_empty((0,))
    return dz, [p.new_empty(p.shape) for p in params]


def decode(
    tokens: Tensor,
    weights: Tensor,
    config: list[int],
    counts: Tensor | None,
    channels_last: bool,
    dtype: torch.dtype,
) -> Tensor:
    like = weights.new_empty((0,), dtype=dtype)
    width = Shape.of(config).width
    return empty_latent(like, tokens.shape[0], tokens.shape[2], width, channels_last)


def nothing(*_: Any, **__: Any) -> None:
    return None


def pack_bits(codes: Tensor, bits: int) -> Tensor:
    return codes.new_empty(((codes.shape[0] * bits + 7) // 8,), dtype=torch.uint8)


def unpack_bits(data: Tensor, bits: int, count: int, dtype: torch.dtype) -> Tensor:
    return data.new_empty((count,), dtype=dtype)
