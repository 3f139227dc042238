# SPDX-License-Identifier: Apache-2.0
"""A start for scalar quantizers from data: what k-means of the first batch is for codebooks.

Projections that begin at random read directions in which a trained encoder says little, and
training has to move both to each other. Here every stage reads the directions in which the residual
of real latents varies most, scaled so that its digits are about equally likely, and writes back
what least squares finds in them.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from affectcodec.config import Block
from affectcodec.nn.bdrfsq import BDRFSQ
from affectcodec.nn.bdrfsq_plain import BlockQuantizer
from affectcodec.nn.rfsq import DenseRFSQ
from affectcodec.ops import fsq

_GAIN_OF_TWO = 1.2  # about that of four levels; larger ones have less gradient
_SMALLEST = 1e-4  # deviation of a direction below which it is not scaled up any more


@torch.no_grad()
def start_from(quantizer: nn.Module, z: Tensor) -> float | None:
    """Sets projections, offsets and affine of all stages from latents ``z [N, D]``.

    Stage by stage, in float64: ``W`` the principal directions of the residual over their
    deviations, ``O`` and ``e`` the least-squares map from the stage's values back to the residual,
    ``s = 1`` and ``b = 0``. Processes that train together take the result of the first.

    Returns:
        The share of the variance of ``z`` that is left after all stages; None for a quantizer with
        codebooks, which start from their first batch by themselves.

    Raises:
        ValueError: fewer frames than the widest block has channels, another width, or NaN.
    """
    inner = quantizer.inner if isinstance(quantizer, DenseRFSQ) else quantizer
    if not isinstance(inner, BDRFSQ):
        return None
    config = inner.config
    if z.ndim != 2 or z.shape[1] != config.width:
        raise ValueError(f"z: wanted [N, D] with D = {config.width}, got {tuple(z.shape)}")
    widest = max(block.width for block in config.blocks)
    if len(z) < widest or not bool(torch.isfinite(z).all()):
        raise ValueError(
            f"z: wanted at least {widest} finite frames, one for each channel of the widest block, "
            f"got {len(z)}; use a larger batch"
        )
    left = 0.0
    parts = z.double().split([block.width for block in config.blocks], 1)
    for block, part in zip(config.blocks, parts, strict=True):
        module = cast(BlockQuantizer, inner.blocks[block.name])
        left += _start_block(module, block, config.bound, part)
    if dist.is_available() and dist.is_initialized():
        for parameter in inner.parameters():
            dist.broadcast(parameter.data, 0)
    inner.refold()
    whole = float((z.double() - z.double().mean(0)).square().sum())
    return left / whole if whole > 0 else 0.0


def _start_block(module: BlockQuantizer, block: Block, bound: str, z: Tensor) -> float:
    """One block from its latents ``[N, D_g]``; the squares that are left, summed."""
    dim, stages = block.code_dim, module.W.shape[0]
    table = fsq.threshold_table(block.levels, bound, dtype=z.dtype, device=z.device)
    gain = _gain(block.levels, bound, z)
    levels = torch.tensor(block.levels, dtype=z.dtype, device=z.device)[:, None]
    residual = z
    for stage in range(stages):
        mean = residual.mean(0)
        centred = residual - mean
        _, values, directions = torch.linalg.svd(centred, full_matrices=False)
        count = min(dim, len(values))
        weight = z.new_zeros(dim, block.width)
        deviation = (values[:count] / len(z) ** 0.5).clamp(min=_SMALLEST)
        weight[:count] = gain[:count] * directions[:count] / deviation[:, None]
        digits = fsq.digits((centred @ weight.t()).t()[None], table)
        said = fsq.grid_values(digits, levels)[0].t().to(z.dtype)
        rows = torch.cat([said, torch.ones_like(said[:, :1])], 1)
        # By the pseudo-inverse: digits of a direction without variance are constant.
        solution = torch.linalg.pinv(rows) @ residual
        module.W[stage].copy_(weight)
        module.c[stage].copy_(-(weight @ mean))
        module.O[stage].copy_(solution[:-1].t())
        module.e[stage].copy_(solution[-1])
        residual = residual - rows @ solution
    module.reset_affine()
    return float(residual.square().sum())


def _gain(levels: tuple[int, ...], bound: str, like: Tensor) -> Tensor:
    """``[dims, 1]``: deviation at which a Gaussian gives every outer level its equal share."""
    gains = []
    for count in levels:
        if count == 2:
            gains.append(_GAIN_OF_TWO)  # one threshold, at 0: any scale gives two halves
            continue
        table = fsq.threshold_table((count,), bound, dtype=like.dtype, device=like.device)
        highest = table[torch.isfinite(table)].max()
        quantile = torch.special.ndtri(torch.tensor(1.0 - 1.0 / count, dtype=torch.float64))
        gains.append(float(highest / quantile))
    return torch.tensor(gains, dtype=like.dtype, device=like.device)[:, None]
