# SPDX-License-Identifier: Apache-2.0
"""BD-RFSQ in code space: the residual never exists.

``W_k r_k = W_k z - sum_{j<k} m_j (W_k O_j v_j + W_k e_j)``, so the chain of ``K`` stages is one
skinny product, a triangular recurrence over ``K d`` numbers a frame, and one skinny product back.
The backward is exact and has the same shape; it saves ``K d`` numbers a frame, not ``K`` latents.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from affectcodec.ops import fsq
from affectcodec.ops.bd_rfsq.params import BlockParams, BlockResult, levels_column


def _flat_out(O: Tensor) -> Tensor:  # noqa: E741
    """``O [K, D, d]`` -> ``[D, K d]``."""
    return O.permute(1, 0, 2).reshape(O.shape[1], -1)


def recurrence(
    P: Tensor, params: BlockParams, levels: tuple[int, ...], bound: str, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Triangular recurrence over the code dims.

    Args:
        P: ``[B, K d, T]``, the projections ``W_k z + c_k`` of every stage.
        mask: ``[B, K]`` active stages or None.

    Returns:
        digits int32 ``[B, K, d, T]``, pre-bound values ``y`` and values ``q``, both
        ``[B, K, d, T]``.
    """
    num_stages, dim, width = params.W.shape
    scale = params.scale()
    cross = torch.matmul(params.W.reshape(-1, width), _flat_out(params.O))  # G: [K d, K d]
    offset = torch.einsum("kcd,jd->kcj", params.W, params.e)  # [K, d, K]
    table = fsq.threshold_table(levels, bound, dtype=P.dtype, device=P.device)
    level = levels_column(levels, P)
    values = torch.empty_like(P)  # m_j v_j of the stages done so far
    ys, qs, ns = [], [], []
    for k in range(num_stages):
        rows = slice(k * dim, (k + 1) * dim)
        p = P[:, rows]
        if k:
            p = p - torch.matmul(cross[rows, : k * dim], values[:, : k * dim])
            if mask is None:
                p = p - offset[k, :, :k].sum(-1)[:, None]
            else:
                p = p - torch.matmul(mask[:, :k].to(P.dtype), offset[k, :, :k].t())[..., None]
        s, b = scale[k, :, None], params.shift[k, :, None]
        y = s * (p - b)
        n = fsq.digits(y, table)
        # A NaN reaches no threshold; its value must stay NaN so that it is seen downstream.
        q = torch.where(torch.isnan(y), y, fsq.grid_values(n, level))
        v = q / s + b
        values[:, rows] = v if mask is None else v * mask[:, k, None, None].to(v.dtype)
        ys.append(y)
        qs.append(q)
        ns.append(n)
    return torch.stack(ns, 1), torch.stack(ys, 1), torch.stack(qs, 1)


class _Codespace(torch.autograd.Function):
    """Forward and exact backward of one block; see ``docs/design.md``, section 3."""

    @staticmethod
    def forward(
        ctx: Any,
        z: Tensor,
        mask: Tensor | None,
        levels: tuple[int, ...],
        bound: str,
        rates: tuple[int, ...],
        *tensors: Tensor,
    ) -> tuple[Tensor, ...]:
        params = BlockParams(*tensors)
        num_stages, dim, width = params.W.shape
        batch, _, frames = z.shape
        P = torch.matmul(params.W.reshape(-1, width), z) + params.c.reshape(-1, 1)
        digit, y, q = recurrence(P, params, levels, bound, mask)
        v = q / params.scale()[:, :, None] + params.shift[:, :, None]
        m = torch.ones(batch, num_stages, dtype=z.dtype, device=z.device)
        if mask is not None:
            m = mask.to(z.dtype)
        mv = (v * m[:, :, None, None]).reshape(batch, num_stages * dim, frames)
        out_all = _flat_out(params.O)
        outs = []
        for rate in (*rates, num_stages):
            cut = slice(0, rate * dim)
            u = torch.matmul(out_all[:, cut], mv[:, cut])
            outs.append(u + torch.matmul(m[:, :rate], params.e[:rate])[..., None])
        ctx.save_for_backward(z, y, q, m, *tensors)
        ctx.bound, ctx.rates = bound, rates
        ctx.mark_non_differentiable(digit)
        return (*outs, digit)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        z, y, q, m, *tensors = ctx.saved_tensors
        params = BlockParams(*tensors)
        num_stages, dim, width = params.W.shape
        batch, _, frames = z.shape
        out_all, in_all = _flat_out(params.O), params.W.reshape(-1, width)
        cross = torch.matmul(in_all, out_all)
        scale = params.scale()
        v = q / scale[:, :, None] + params.shift[:, :, None]
        mv = v * m[:, :, None, None]
        slope = 1 - torch.tanh(y).square() if ctx.bound == "tanh" else (y.abs() <= 1).to(y.dtype)

        # Gradient that each stage's output receives: the sum over the rates that include it.
        edges = sorted({0, *ctx.rates, num_stages})
        stage_grads: list[tuple[int, int, Tensor]] = []
        for lo, hi in itertools.pairwise(edges):
            active = [g for g, r in zip(grads, (*ctx.rates, num_stages), strict=False) if r >= hi]
            stage_grads.append((lo, hi, sum(active[1:], active[0])))

        a = torch.empty_like(mv)
        for lo, hi, g in stage_grads:
            received = torch.matmul(out_all[:, lo * dim : hi * dim].t(), g)
            a[:, lo:hi] = received.reshape(batch, hi - lo, dim, frames) * m[:, lo:hi, None, None]
        A = torch.empty_like(a)  # dL/dv_k
        h = torch.empty_like(a).reshape(batch, num_stages * dim, frames)  # dL/dp_k
        for k in reversed(range(num_stages)):
            rows = slice(k * dim, (k + 1) * dim)
            A_k = a[:, k]
            if k + 1 < num_stages:
                later = torch.matmul(cross[(k + 1) * dim :, rows].t(), h[:, (k + 1) * dim :])
                A_k = A_k - later * m[:, k, None, None]
            A[:, k] = A_k
            h[:, rows] = slope[:, k] * A_k
        h4 = h.reshape(batch, num_stages, dim, frames)
        dz = torch.matmul(in_all.t(), h) if ctx.needs_input_grad[0] else None

        hv = torch.einsum("bxt,byt->xy", h, mv.reshape(h.shape))  # [K d, K d]
        hv = hv.reshape(num_stages, dim, num_stages, dim)
        stage = torch.arange(num_stages, device=z.device)
        hv = hv * (stage[:, None] > stage[None, :])[:, None, :, None].to(hv.dtype)
        h_frames = h4.sum(-1)  # [B, K, d]
        hm = torch.einsum("bkc,bj->kcj", h_frames, m)
        hm = hm * (stage[:, None] > stage[None, :])[:, None, :].to(hm.dtype)
        flat = hv.reshape(num_stages * dim, num_stages * dim)

        dW = torch.einsum("bxt,bdt->xd", h, z) - torch.matmul(flat, out_all.t())
        dW = dW.reshape(num_stages, dim, width) - torch.einsum("kcj,jd->kcd", hm, params.e)
        dO = torch.empty_like(params.O)
        de = torch.empty_like(params.e)
        for lo, hi, g in stage_grads:
            dO[lo:hi] = torch.einsum("bdt,bkct->kdc", g, mv[:, lo:hi])
            de[lo:hi] = torch.einsum("bd,bk->kd", g.sum(-1), m[:, lo:hi])
        dO -= torch.matmul(flat.t(), in_all).reshape(num_stages, dim, width).transpose(1, 2)
        de -= torch.einsum("kcj,kcd->jd", hm, params.W)
        dc = h_frames.sum(0)
        dscale = (A * (slope * y - q)).sum((0, 3)) / scale.square()
        dlogit = dscale * torch.sigmoid(params.scale_logit)
        dshift = A.sum((0, 3)) - dc
        return (dz, None, None, None, None, dW, dc, dO, de, dlogit, dshift)


def quantize_codespace(
    z: Tensor,
    params: BlockParams,
    levels: tuple[int, ...],
    bound: str = "tanh",
    mask: Tensor | None = None,
    rates: tuple[int, ...] = (),
) -> BlockResult:
    """Quantize one block in code space; arguments and result as in ``quantize_naive``.

    Equal to the stage-by-stage form up to float rounding, in the outputs and in every gradient.
    """
    *latents, digit = _Codespace.apply(z, mask, levels, bound, tuple(rates), *params)
    return BlockResult(tuple(latents), digit)
