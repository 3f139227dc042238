# SPDX-License-Identifier: Apache-2.0
"""BD-RFSQ stage by stage: the specification of one block, differentiable by autograd."""

from __future__ import annotations

import torch
from torch import Tensor

from affectcodec.ops import fsq
from affectcodec.ops.bd_rfsq.params import BlockParams, BlockResult, bound_value, levels_column


def quantize_naive(
    z: Tensor,
    params: BlockParams,
    levels: tuple[int, ...],
    bound: str = "tanh",
    mask: Tensor | None = None,
    rates: tuple[int, ...] = (),
) -> BlockResult:
    """Quantize one block stage by stage.

    Args:
        z: ``[B, D, T]`` latent of the block, any float dtype.
        params: parameters of the block in the dtype of ``z``.
        levels: levels of the ``d`` code dims.
        bound: ``"tanh"`` or ``"clamp"``.
        mask: ``[B, K]`` in {0, 1}, the active stages of each sample; all if None.
        rates: stage counts at which the partial sum is returned beside the full one.

    Returns:
        :class:`BlockResult` with ``len(rates) + 1`` latents. The gradient is straight-through
        (``dq/dt = 1``) and the residual is not detached, so that stage gradients telescope.
    """
    num_stages = params.W.shape[0]
    scale = params.scale()
    table = fsq.threshold_table(levels, bound, dtype=z.dtype, device=z.device)
    level = levels_column(levels, z)
    residual = z
    total = torch.zeros_like(z)
    partial: dict[int, Tensor] = {0: total}
    all_digits = []
    for k in range(num_stages):
        p = torch.matmul(params.W[k], residual) + params.c[k, :, None]
        s, b = scale[k, :, None], params.shift[k, :, None]
        y = s * (p - b)
        t = bound_value(y, bound)
        n = fsq.digits(y, table)
        q = t + (fsq.grid_values(n, level) - t).detach()
        v = q / s + b
        o = torch.matmul(params.O[k], v) + params.e[k, :, None]
        if mask is not None:
            o = o * mask[:, k, None, None].to(o.dtype)
        residual = residual - o
        total = total + o
        partial[k + 1] = total
        all_digits.append(n)
    latents = (*(partial[r] for r in rates), total)
    return BlockResult(latents, torch.stack(all_digits, dim=1))
