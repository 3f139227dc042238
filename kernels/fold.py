# SPDX-License-Identifier: Apache-2.0
"""Folded weights: affine, biases, thresholds and ``G = W O``, prepared once per weight version.

Computed in float64 on the device of the parameters and rounded once, so the constants that decide
a digit do not depend on who folds. No host sync.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from affectcodec.kernels.plan import BlockPlan, Plan, make_plan
from affectcodec.ops import fsq
from affectcodec.ops.bd_rfsq.params import BlockParams

BOUNDS = ("tanh", "clamp")


def _columns(block: BlockPlan, stages: int, device: torch.device) -> Tensor:
    """Column of each (stage, dim), ``[stages, dims]``."""
    stage = torch.arange(stages, device=device)[:, None] * block.padded_dims
    return stage + torch.arange(block.dims, device=device)[None, :]


def _place(flat: Tensor, offset: int, value: Tensor) -> None:
    flat[offset : offset + value.numel()] = value.reshape(-1)


def _spread(value: Tensor, block: BlockPlan, padded: int, fill: float = 0.0) -> Tensor:
    """``[..., stages, dims]`` -> ``[..., columns]`` with ``fill`` in the padding."""
    stages, dims = value.shape[-2:]
    out = value.new_full((*value.shape[:-2], padded, block.padded_dims), fill)
    out[..., :stages, :dims] = value
    return out.flatten(-2)


@lru_cache(maxsize=64)
def _constants(levels: tuple[int, ...], bound: str, device: torch.device) -> tuple[Tensor, Tensor]:
    """Levels ``[dims]`` and thresholds ``[dims, most - 1]`` in float64.

    Kept, because a copy from the host waits for the device, and no graph can be captured of it.
    """
    with torch.inference_mode(False):
        level = torch.tensor(levels, dtype=torch.float64, device=device)
        return level, fsq.threshold_table(levels, bound, dtype=torch.float64, device=device)


def _fold_block(flat: Tensor, plan: Plan, block: BlockPlan, params: BlockParams) -> None:
    stages, dims, padded = plan.stages, block.dims, plan.padded_stages
    W, c, O, e, logit, shift = (p.detach().to(torch.float64) for p in params)  # noqa: E741
    bound = BOUNDS[plan.bound]
    s = torch.nn.functional.softplus(logit) + 0.1

    _place(flat, block.inward, _spread(W.permute(2, 0, 1), block, padded))

    outward = O.new_zeros(padded, block.padded_dims, block.ld)
    outward[:stages, :dims, : block.width] = O.transpose(1, 2)
    outward[:stages, dims, : block.width] = e
    _place(flat, block.outward, outward)

    cross = torch.matmul(W.flatten(0, 1), O.permute(1, 0, 2).flatten(1))
    cross = cross.view(stages, dims, stages, dims)
    stage = torch.arange(stages, device=flat.device)
    later = (stage[:, None] > stage[None, :])[:, None, :, None]
    cross = torch.where(later, cross, 0.0)
    full = cross.new_zeros(padded, block.padded_dims, padded, block.padded_dims)
    full[:stages, :dims, :stages, :dims] = cross
    full = full.view(block.columns, block.columns)
    _place(flat, block.cross, full)
    _place(flat, block.cross_t, full.t())

    # offset[m]: c - b minus what the biases of the first min(m, k) stages take away.
    through = torch.einsum("kid,jd->jki", W, e)  # [stages, stages, dims]
    through = torch.where((stage[:, None] < stage[None, :])[:, :, None], through, 0.0)
    taken = torch.cat([torch.zeros_like(through[:1]), through.cumsum(0)])
    _place(flat, block.offset, _spread((c - shift) - taken, block, padded))

    level, table = _constants(block.levels, bound, flat.device)
    threshold = table.t()[:, None, :] / s[None]  # [most - 1, stages, dims]
    _place(flat, block.threshold, _spread(threshold, block, padded, float("nan")))

    digit = torch.arange(block.most, dtype=torch.float64, device=flat.device)[:, None]
    grid = (2 * torch.minimum(digit, level - 1) - (level - 1)) / (level - 1)
    grid = grid[:, None, :].expand(-1, stages, -1)
    _place(flat, block.grid, _spread(grid, block, padded))
    _place(flat, block.value, _spread(grid / s + shift, block, padded))
    _place(flat, block.scale, _spread(s, block, padded, 1.0))


def fold(params: Sequence[BlockParams], config: Sequence[int]) -> Tensor:
    """Folded weights of a quantizer.

    Args:
        params: parameters of each block, any float dtype, all on one device.
        config: description of the quantizer, see ``affectcodec.kernels.plan``.

    Returns:
        Flat float32 tensor on the same device; opaque to callers.

    Raises:
        NotImplementedError: the kernels cannot serve the configuration.
    """
    plan = make_plan(config)
    if len(params) != len(plan.blocks):
        raise ValueError(f"params: {len(params)} blocks, config describes {len(plan.blocks)}")
    flat = torch.zeros(plan.floats, dtype=torch.float32, device=params[0].W.device)
    for block, tensors in zip(plan.blocks, params, strict=True):
        _fold_block(flat, plan, block, tensors)
    return flat
