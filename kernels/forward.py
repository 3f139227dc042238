# SPDX-License-Identifier: Apache-2.0
"""``forward``: latent to quantized latents at several rates, tokens, and what backward needs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from affectcodec.kernels import launch
from affectcodec.kernels.configs import Tile, tile_for
from affectcodec.kernels.plan import Plan, make_plan
from affectcodec.kernels.stages import (
    along, at, edge, get, group_stages, group_values, project, quantize, step,
)  # fmt: skip


@triton.jit
def write_latents(
    values, weights, outs, base, valid, u_sd, u_st,
    PLAN: tl.constexpr, g: tl.constexpr, RATES: tl.constexpr,
    BN: tl.constexpr, BD: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """``u = O v`` at every rate: a rate adds its own stages to the sum of the one before.

    ``base`` is the offset of the tile's first frame inside each of ``outs``.
    """
    DP: tl.constexpr = get(PLAN, g, "padded_dims")
    WIDTH: tl.constexpr = get(PLAN, g, "width")
    LD: tl.constexpr = get(PLAN, g, "ld")
    groups = ()
    for r in tl.static_range(len(RATES)):
        groups = groups + (group_values(values, edge(RATES, r), at(RATES, r), DP, BN),)
    n = tl.arange(0, BN)
    d = tl.arange(0, BD)
    offset = base + along(n, u_st, WIDE)[:, None] + along(d, u_sd, WIDE)[None, :]
    for start in range(0, WIDTH, BD):
        here = start + d < WIDTH
        acc = tl.zeros((BN, BD), tl.float32)
        for r in tl.static_range(len(RATES)):
            LOW: tl.constexpr = edge(RATES, r) * DP
            HIGH: tl.constexpr = at(RATES, r) * DP
            GC: tl.constexpr = group_stages(at(RATES, r) - edge(RATES, r), DP) * DP
            c = LOW + tl.arange(0, GC)
            o_tile = weights + get(PLAN, g, "outward") + c[:, None] * LD + (start + d)[None, :]
            # Rows are padded to whole cache lines, so only the ragged last tile needs a mask.
            if WIDTH % BD == 0 and HIGH - LOW == GC:
                b_o = tl.load(o_tile)
            else:
                b_o = tl.load(o_tile, mask=(c < HIGH)[:, None] & here[None, :], other=0.0)
            acc = tl.dot(groups[r], b_o, acc, input_precision=PRECISION)
            if WIDTH % BD == 0:
                mask = valid[:, None]
            else:
                mask = valid[:, None] & here[None, :]
            tl.store(outs[r] + offset, acc.to(outs[r].dtype.element_ty), mask=mask)
        offset += step(BD, u_sd, WIDE)


@triton.jit
def forward_kernel(
    z, weights, counts, outs, tokens, saved, length, tiles, saved_length,
    z_sb, z_sd, z_st, c_sb, c_sg, c_st, u_sb, u_sd, u_st, tok_sb, tok_sk, tok_st,
    PLAN: tl.constexpr, K: tl.constexpr, KP: tl.constexpr, RATES: tl.constexpr,
    ROWS: tl.constexpr, MASKED: tl.constexpr, SAVE: tl.constexpr,
    BN: tl.constexpr, BK: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0)
    b = (pid // tiles).to(tl.int64)
    t0 = (pid % tiles).to(tl.int64) * BN
    n = tl.arange(0, BN)
    valid = n < length - t0
    z_first = z + b * z_sb + t0 * z_st
    u_first = b * u_sb + t0 * u_st
    bad = tl.zeros((BN,), tl.int32)
    codes = ()
    for _ in tl.static_range(K):
        codes = codes + (tl.zeros((BN,), tokens.dtype.element_ty),)
    for g in tl.static_range(len(PLAN)):
        C: tl.constexpr = get(PLAN, g, "columns")
        DP: tl.constexpr = get(PLAN, g, "padded_dims")
        DIMS: tl.constexpr = get(PLAN, g, "dims")
        acc = project(
            z_first + get(PLAN, g, "channel") * z_sd, weights, valid, z_sd, z_st,
            get(PLAN, g, "inward"), get(PLAN, g, "width"), C, BN, BK, WIDE,
        )  # fmt: skip
        active = bad
        if MASKED:
            active = tl.load(
                counts + b * c_sb + g * c_sg + (t0 + n) * c_st, mask=valid, other=0
            ).to(tl.int32)
        xs, values, codes, bad = quantize(
            acc, weights, active, bad, codes, PLAN, g, K, KP, BN, MASKED, True
        )
        if SAVE:
            dim = tl.arange(0, DP)
            row = b * ROWS + get(PLAN, g, "row")
            # Rows of `saved` are padded to whole cache lines; the padding may be written.
            kept = (n < saved_length - t0)[:, None] & (dim < DIMS)[None, :]
            for k in tl.static_range(K):
                to = (row + k * DIMS + dim)[None, :] * saved_length + (t0 + n)[:, None]
                tl.store(saved + to, xs[k], mask=kept)
        write_latents(
            values, weights, outs, u_first + get(PLAN, g, "channel") * u_sd, valid, u_sd, u_st,
            PLAN, g, RATES, BN, BK, WIDE, PRECISION,
        )  # fmt: skip
    out = tokens + b * tok_sb + t0 * tok_st + n.to(tl.int64) * tok_st
    for k in tl.static_range(K):
        tl.store(out + k * tok_sk, tl.where(bad > 0, -1, codes[k]), mask=valid)


def saved_length(length: int) -> int:
    """Frames a row of the saved tensor holds: whole cache lines."""
    return -(-length // 16) * 16


def saved_for(plan: Plan, z: Tensor) -> Tensor:
    """Uninitialised tensor for what backward needs, float32 ``[B, K d, T padded]``."""
    return torch.empty(
        z.shape[0], plan.rows, saved_length(z.shape[2]), dtype=torch.float32, device=z.device
    )


def forward(
    z: Tensor,
    weights: Tensor,
    config: Sequence[int],
    rates: Sequence[int],
    counts: Tensor | None = None,
    *,
    save: bool = True,
    tile: Tile | None = None,
) -> tuple[list[Tensor], Tensor, Tensor]:
    """Quantized latents at several rates from one pass.

    Args:
        z: ``[B, D, T]`` float32, bfloat16 or float16, any strides.
        weights: folded weights.
        config: description of the quantizer.
        rates: ascending stage counts, the last one all stages.
        counts: active stages of each sample and block, integers ``[B, G]`` in 0..K; None for all.
        save: whether backward will be asked for; otherwise nothing is kept.

    Returns:
        latents, one ``[B, D, T]`` a rate in the dtype and memory order of ``z``; tokens as
        ``encode`` makes them (of all stages, inactive ones too); ``saved`` for ``backward``,
        opaque, empty where not asked for.
    """
    plan = make_plan(config)
    rates = launch.check_rates(rates, plan.stages)
    launch.check_latent("z", z, plan.width)
    launch.check_weights(weights, plan.floats)
    batch, _, length = z.shape
    counts_strides = launch.count_strides(counts, batch, len(plan.blocks))
    outs = [launch.like_latent(z) for _ in rates]
    dtype = torch.int64 if plan.wide else torch.int32
    tokens = torch.empty(batch, plan.stages, length, dtype=dtype, device=z.device)
    saved = saved_for(plan, z) if save else z.new_empty(0, dtype=torch.float32)
    if tokens.numel() == 0:
        return outs, tokens, saved
    tile = tile or tile_for("forward", batch * length, launch.compute_capability(z.device))
    frames = launch.Frames(batch, length, tile.frames)
    forward_kernel[(frames.programs,)](
        z, weights, counts if counts is not None else tokens, tuple(outs), tokens, saved,
        length, frames.tiles, saved_length(length),
        *launch.strides(z), *counts_strides, *launch.strides(outs[0]), *tokens.stride(),
        PLAN=plan.constant(), K=plan.stages, KP=plan.padded_stages, RATES=rates,
        ROWS=plan.rows, MASKED=counts is not None, SAVE=save,
        BN=tile.frames, BK=tile.channels, WIDE=launch.spans_wide(z, outs[0]),
        PRECISION="ieee", **tile.options(),
    )  # fmt: skip
    return outs, tokens, saved
