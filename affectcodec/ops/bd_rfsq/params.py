# SPDX-License-Identifier: Apache-2.0
"""Parameters and results of one block, shared by both forms, and the decoder of one block."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from affectcodec.ops import fsq

SCALE_EPSILON = 0.1


class BlockParams(NamedTuple):
    """Parameters of one block; ``K`` stages, ``d`` code dims, ``D`` latent channels.

    ``W [K, d, D]`` and ``c [K, d]`` project in, ``O [K, D, d]`` and ``e [K, D]`` project out,
    ``scale_logit [K, d]`` and ``shift [K, d]`` are the learned affine.
    """

    W: Tensor
    c: Tensor
    O: Tensor  # noqa: E741 - the name of the formula
    e: Tensor
    scale_logit: Tensor
    shift: Tensor

    def scale(self) -> Tensor:
        """``s = softplus(scale_logit) + 0.1``, ``[K, d]``."""
        return F.softplus(self.scale_logit) + SCALE_EPSILON


class BlockResult(NamedTuple):
    """Outputs of one block.

    ``latents``: one ``[B, D, T]`` for each asked rate, the last one at the full stage mask;
    ``digits``: int32 ``[B, K, d, T]``.
    """

    latents: tuple[Tensor, ...]
    digits: Tensor


def levels_column(levels: tuple[int, ...], like: Tensor) -> Tensor:
    """Levels as a ``[d, 1]`` column in the dtype and device of ``like``."""
    return torch.tensor(levels, dtype=like.dtype, device=like.device).unsqueeze(-1)


def bound_value(y: Tensor, bound: str) -> Tensor:
    """``t = bound(y)`` in [-1, 1]."""
    return torch.tanh(y) if bound == "tanh" else y.clamp(-1, 1)


def decode_block(
    digits: Tensor, params: BlockParams, levels: tuple[int, ...], mask: Tensor | None = None
) -> Tensor:
    """Latent of one block from its digits alone.

    Args:
        digits: int ``[B, K', d, T]``; ``K' <= K``, the first stages.
        params: the parameters of all ``K`` stages.
        mask: optional ``[B, K', 1]`` or ``[B, K', T]`` in {0, 1}: active stages.

    Returns:
        ``u [B, D, T] = sum_k m_k (O_k v_k + e_k)``.
    """
    batch, stages, dim, frames = digits.shape
    width = params.W.shape[2]
    value = fsq.grid_values(digits, levels_column(levels, params.W))
    v = value / params.scale()[:stages, :, None] + params.shift[:stages, :, None]
    if mask is None:
        offset = params.e[:stages].sum(0)[:, None]
    else:
        mask = mask.to(v.dtype)
        v = v * mask.unsqueeze(2)
        offset = torch.matmul(params.e[:stages].t(), mask)
    out_all = params.O[:stages].permute(1, 0, 2).reshape(width, stages * dim)
    return torch.matmul(out_all, v.reshape(batch, stages * dim, frames)) + offset


def decode_block_backward(
    grad: Tensor,
    digits: Tensor,
    params: BlockParams,
    levels: tuple[int, ...],
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of ``O``, ``e``, ``scale_logit`` and ``shift`` of :func:`decode_block`.

    Args:
        grad: ``[B, D, T]`` gradient of its result; the other arguments as it got them.
    """
    batch, kept, dim, frames = digits.shape
    stages, _, width = params.W.shape
    scale = params.scale()[:kept, :, None]
    value = fsq.grid_values(digits, levels_column(levels, params.W))
    v = value / scale + params.shift[:kept, :, None]
    active = grad.new_ones(batch, kept, 1) if mask is None else mask.to(grad.dtype)
    v = v * active.unsqueeze(2)
    out = torch.matmul(grad, v.reshape(batch, kept * dim, frames).transpose(1, 2)).sum(0)
    out = out.reshape(width, kept, dim).permute(1, 0, 2)
    e = torch.matmul(active.expand(batch, kept, frames), grad.transpose(1, 2)).sum(0)
    columns = params.O[:kept].permute(0, 2, 1).reshape(kept * dim, width)
    back = torch.matmul(columns, grad).reshape(batch, kept, dim, frames) * active.unsqueeze(2)
    logit = -(back * value / scale.square()).sum((0, 3)) * params.scale_logit[:kept].sigmoid()
    found = (out, e, logit, back.sum((0, 3)))
    rest = stages - kept
    return tuple(torch.cat([g, g.new_zeros(rest, *g.shape[1:])]) for g in found)  # type: ignore[return-value]
