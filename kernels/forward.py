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
from affectcodec.kernels.encode import add_tokens, store_tokens
from affectcodec.kernels.plan import make_plan
from affectcodec.kernels.stages import (
    along,
    confirm,
    edge,
    entry_of,
    get,
    group_stages,
    load_active,
    masked_value,
    over_channels,
    over_frames,
    overhangs,
    project,
    recurrence,
    split_groups,
    stages_on,
    step,
    turn,
)  # fmt: skip


@triton.jit
def write_latents(
    v, weights, outs, base, valid, u_sd, u_st,
    PLAN: tl.constexpr, g: tl.constexpr, RATES: tl.constexpr, KP: tl.constexpr,
    BN: tl.constexpr, BD: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr,
    TURNED: tl.constexpr,
):  # fmt: skip
    """``u = O v`` at every rate: a rate adds its own stages to the sum of the one before.

    ``v [BN, C]`` masked; ``base`` is the offset of the tile's first frame inside each of ``outs``.
    """
    DP: tl.constexpr = get(PLAN, g, "padded_dims")
    WIDTH: tl.constexpr = get(PLAN, g, "width")
    LD: tl.constexpr = get(PLAN, g, "ld")
    C: tl.constexpr = get(PLAN, g, "columns")
    groups = split_groups(v, RATES, DP, KP, BN)
    n = tl.arange(0, BN)
    d = tl.arange(0, BD)
    offset = base + over_frames(along(n, u_st, WIDE), TURNED)
    offset += over_channels(along(d, u_sd, WIDE), TURNED)
    for start in range(0, WIDTH, BD):
        here = start + d < WIDTH
        acc = tl.zeros((BN, BD), tl.float32)
        for r in tl.static_range(len(RATES)):
            c = edge(RATES, r) * DP + tl.arange(0, group_stages(RATES, r, DP, KP) * DP)
            o_tile = weights + get(PLAN, g, "outward") + c[:, None] * LD + (start + d)[None, :]
            # What the padding of a group meets is multiplied by 0, but must not lie outside.
            if overhangs(RATES, r, DP, KP):
                b_o = tl.load(o_tile, mask=(c < C)[:, None] & here[None, :], other=0.0)
            elif WIDTH % BD != 0:
                b_o = tl.load(o_tile, mask=here[None, :], other=0.0)
            else:
                b_o = tl.load(o_tile)
            acc = tl.dot(groups[r], b_o, acc, input_precision=PRECISION)
            if WIDTH % BD == 0:
                mask = over_frames(valid, TURNED)
            else:
                mask = over_frames(valid, TURNED) & over_channels(here, TURNED)
            tl.store(outs[r] + offset, turn(acc, TURNED).to(outs[r].dtype.element_ty), mask=mask)
        offset += step(BD, u_sd, WIDE)


# Frames of a unit of the saved values, `[units, rows, UNIT]` over the frames of the whole batch.
UNIT = tl.constexpr(64)


@triton.jit
def saved_offset(frame, ROWS: tl.constexpr):
    """Offset of the first row of a frame, counted over the batch, in the saved values."""
    return frame // UNIT * (ROWS * UNIT) + frame % UNIT


@triton.jit
def forward_block(
    codes, bad, z, weights, count, outs, saved, u_first, frame, valid, z_sd, z_st, u_sd, u_st,
    PLAN: tl.constexpr, g: tl.constexpr, K: tl.constexpr, KP: tl.constexpr, RATES: tl.constexpr,
    ROWS: tl.constexpr, MASKED: tl.constexpr, SAVE: tl.constexpr,
    BN: tl.constexpr, BK: tl.constexpr, BD: tl.constexpr, WIDE: tl.constexpr,
    PRECISION: tl.constexpr, TURNED: tl.constexpr,
):  # fmt: skip
    """Block ``g`` of a tile of frames, counted over the batch in ``frame``."""
    C: tl.constexpr = get(PLAN, g, "columns")
    DP: tl.constexpr = get(PLAN, g, "padded_dims")
    DIMS: tl.constexpr = get(PLAN, g, "dims")
    x = project(
        z + get(PLAN, g, "channel") * z_sd, weights, valid, z_sd, z_st,
        get(PLAN, g, "inward"), get(PLAN, g, "width"), C, BN, BK, WIDE,
    )  # fmt: skip
    active = bad
    if MASKED:
        active = load_active(count, valid, K)
    x = recurrence(x, weights, active, PLAN, g, K, MASKED)
    codes, bad, digit = add_tokens(codes, bad, x, weights, PLAN, g, KP, BN)
    c = tl.arange(0, C)
    if SAVE:
        row = get(PLAN, g, "row") + c // DP * DIMS + c % DP
        kept = over_frames(valid, TURNED)
        kept = kept & over_channels((c % DP < DIMS) & (c // DP < K), TURNED)
        first = saved + over_frames(saved_offset(frame, ROWS), TURNED)
        tl.store(first + over_channels(row * UNIT, TURNED), turn(x, TURNED), mask=kept)
    v = entry_of(digit, weights + get(PLAN, g, "value") + c, C, get(PLAN, g, "most"))
    v = masked_value(x, v, stages_on(active, c, K, DP, MASKED), c, DP, DIMS)
    write_latents(
        v, weights, outs, u_first + get(PLAN, g, "channel") * u_sd, valid, u_sd, u_st,
        PLAN, g, RATES, KP, BN, BD, WIDE, PRECISION, TURNED,
    )  # fmt: skip
    return codes, bad


@triton.jit
def forward_kernel(
    z, weights, counts, outs, tokens, saved, length, tiles,
    z_sb, z_sd, z_st, c_sb, c_sg, c_st, u_sb, u_sd, u_st, tok_sb, tok_sk, tok_st,
    PLAN: tl.constexpr, K: tl.constexpr, KP: tl.constexpr, RATES: tl.constexpr,
    ROWS: tl.constexpr, MASKED: tl.constexpr, SAVE: tl.constexpr,
    BN: tl.constexpr, BK: tl.constexpr, BD: tl.constexpr, WIDE: tl.constexpr,
    PRECISION: tl.constexpr, TURNED: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0)
    b = (pid // tiles).to(tl.int64)
    t0 = (pid % tiles).to(tl.int64) * BN
    n = tl.arange(0, BN)
    valid = n < length - t0
    z_first = z + b * z_sb + t0 * z_st
    u_first = b * u_sb + t0 * u_st
    codes = tl.zeros((BN, KP), tokens.dtype.element_ty)
    bad = tl.zeros((BN,), tl.int32)
    count = counts + b * c_sb + (t0 + n) * c_st
    frame = b * length + t0 + n
    for g in tl.static_range(len(PLAN)):
        codes, bad = forward_block(
            codes, bad, z_first, weights, count + g * c_sg, outs, saved, u_first, frame, valid,
            z_sd, z_st, u_sd, u_st,
            PLAN, g, K, KP, RATES, ROWS, MASKED, SAVE, BN, BK, BD, WIDE, PRECISION, TURNED,
        )  # fmt: skip
    bad = confirm(bad, z_first, valid, z_sd, z_st, PLAN, BN, BK, WIDE)
    store_tokens(codes, bad, tokens, b, t0, valid, tok_sb, tok_sk, tok_st, K, KP, BN)


def forward(
    z: Tensor,
    weights: Tensor,
    config: Sequence[int],
    counts: Tensor | None = None,
    rates: Sequence[int] = (),
    channels_last: bool = False,
    *,
    save: bool = True,
    tile: Tile | None = None,
) -> tuple[list[Tensor], Tensor, Tensor]:
    """Quantized latents at several rates from one pass.

    Args:
        z: ``[B, D, T]``, or ``[B, T, D]`` with ``channels_last``; any strides.
        weights: folded weights.
        config: description of the quantizer.
        counts: active stages of each sample and block, integers ``[B, G]`` in 0..K; None for all.
        rates: ascending stage counts below K; all stages come last by themselves.
        save: whether backward will be asked for; otherwise nothing is kept.

    Returns:
        latents, ``len(rates) + 1`` of them, contiguous, in the shape and dtype of ``z``; tokens
        as ``encode`` makes them (of all stages, inactive ones too); ``saved`` for ``backward``:
        float32, units of 64 frames one after another, ``[K d, 64]`` each; empty where not asked
        for.
    """
    plan = make_plan(config)
    z = z.transpose(1, 2) if channels_last else z
    steps = launch.check_rates(rates, plan.stages)
    launch.check_latent("z", z, plan.width)
    launch.check_weights(weights, plan.floats)
    batch, _, length = z.shape
    counts_strides = launch.count_strides(counts, batch, len(plan.blocks))
    outs = [launch.latent(z, z.dtype, z.shape, channels_last) for _ in steps]
    tokens = launch.tokens_for(plan, z)
    units = -(-batch * length // UNIT.value) if save else 0
    saved = torch.empty(units * plan.rows * UNIT.value, dtype=torch.float32, device=z.device)
    if tokens.numel():
        op = "forward" if z.dtype == torch.float32 else "forward_half"
        tile = tile or tile_for(op, batch * length, launch.architecture(z.device))
        frames = launch.Frames(batch, length, tile.frames)
        launch.run(
            forward_kernel, frames.programs,
            z, weights, counts if counts is not None else tokens, tuple(outs), tokens, saved,
            length, frames.tiles,
            *launch.strides(z), *counts_strides, *launch.strides(outs[0]), *tokens.stride(),
            PLAN=plan.constant(), K=plan.stages, KP=plan.padded_stages, RATES=steps,
            ROWS=plan.rows, MASKED=counts is not None, SAVE=save,
            BN=tile.frames, BK=tile.channels, BD=tile.outputs, WIDE=launch.spans_wide(z, outs[0]),
            PRECISION="ieee", TURNED=tile.turned, tile=tile,
        )  # fmt: skip
    if channels_last:
        outs = [out.transpose(1, 2) for out in outs]
    return outs, tokens, saved
