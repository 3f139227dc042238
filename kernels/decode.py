# SPDX-License-Identifier: Apache-2.0
"""``decode``: tokens to the quantized latent, from digits by integer arithmetic alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from affectcodec.kernels import launch
from affectcodec.kernels.configs import Tile, tile_for
from affectcodec.kernels.forward import write_latents
from affectcodec.kernels.plan import make_plan
from affectcodec.kernels.stages import constant_row, get, load_active, masked_value, stages_on


@triton.jit
def decode_block(
    token, lost, weights, count, out, base, valid, u_sd, u_st,
    PLAN: tl.constexpr, g: tl.constexpr, K: tl.constexpr, KP: tl.constexpr, MASKED: tl.constexpr,
    BN: tl.constexpr, BD: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr,
    TURNED: tl.constexpr,
):  # fmt: skip
    C: tl.constexpr = get(PLAN, g, "columns")
    DP: tl.constexpr = get(PLAN, g, "padded_dims")
    DIMS: tl.constexpr = get(PLAN, g, "dims")
    c = tl.arange(0, C)
    place = constant_row(get(PLAN, g, "bases"), c % DP, DIMS, 1, token.dtype)
    level = constant_row(get(PLAN, g, "levels"), c % DP, DIMS, 1, token.dtype)
    spread = tl.reshape(tl.broadcast_to(token[:, :, None], (BN, KP, DP)), (BN, C))
    digit = (spread // place[None, :] % level[None, :]).to(tl.int32)
    v = tl.load(weights + get(PLAN, g, "value") + c[None, :] + digit * C)
    active = tl.full((BN,), K, tl.int32)
    if MASKED:
        active = load_active(count, valid, K)
    v = masked_value(v, v, stages_on(active, c, K, DP, MASKED), c, DP, DIMS)
    v = tl.where(lost[:, None], float("nan"), v)
    write_latents(
        v, weights, (out,), base + get(PLAN, g, "channel") * u_sd, valid, u_sd, u_st,
        PLAN, g, (K,), KP, BN, BD, WIDE, PRECISION, TURNED,
    )  # fmt: skip


@triton.jit
def decode_kernel(
    tokens, weights, counts, out, length, tiles,
    tok_sb, tok_sk, tok_st, c_sb, c_sg, c_st, u_sb, u_sd, u_st,
    PLAN: tl.constexpr, K: tl.constexpr, KP: tl.constexpr, CODEBOOK: tl.constexpr,
    MASKED: tl.constexpr,
    BN: tl.constexpr, BD: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr,
    TURNED: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0)
    b = (pid // tiles).to(tl.int64)
    t0 = (pid % tiles).to(tl.int64) * BN
    n = tl.arange(0, BN)
    valid = n < length - t0
    k = tl.arange(0, KP)
    first = tokens + b * tok_sb + t0 * tok_st
    first += n.to(tl.int64)[:, None] * tok_st + k.to(tl.int64)[None, :] * tok_sk
    token = tl.load(first, mask=valid[:, None] & (k < K)[None, :], other=0)
    # What is no token becomes NaN in every channel, never an access out of bounds.
    largest = tl.full((), CODEBOOK - 1, token.dtype)
    sound = (token >= 0) & (token <= largest)
    token = tl.where(sound, token, 0)
    lost = tl.max((sound == 0).to(tl.int32), axis=1) > 0
    base = b * u_sb + t0 * u_st
    count = counts + b * c_sb + (t0 + n) * c_st
    for g in tl.static_range(len(PLAN)):
        decode_block(
            token, lost, weights, count + g * c_sg, out, base, valid, u_sd, u_st,
            PLAN, g, K, KP, MASKED, BN, BD, WIDE, PRECISION, TURNED,
        )  # fmt: skip


def decode(
    tokens: Tensor,
    weights: Tensor,
    config: Sequence[int],
    counts: Tensor | None = None,
    channels_last: bool = False,
    dtype: torch.dtype = torch.float32,
    *,
    out: Tensor | None = None,
    tile: Tile | None = None,
) -> Tensor:
    """Quantized latent from tokens alone.

    Args:
        tokens: int32 or int64 ``[B, K', T]``, the first ``1 <= K' <= K`` stages, any strides.
        weights: folded weights.
        config: description of the quantizer.
        counts: active stages, integers ``[B, G]`` or ``[B, G, T]``; None for all given.
        channels_last: whether the result is ``[B, T, D]``.
        dtype: of the result: float32, bfloat16 or float16; that of ``out`` where given.
        out: tensor of the shape of the result to write to, any strides.

    Returns:
        ``u [B, D, T]`` or ``[B, T, D]``. A frame that holds a value outside
        ``0..codebook-1`` is NaN: nothing is checked on the host, which would synchronize.
    """
    plan = make_plan(config)
    launch.check_weights(weights, plan.floats)
    if tokens.ndim != 3 or not 1 <= tokens.shape[1] <= plan.stages:
        raise ValueError(
            f"tokens: wanted [B, 1..{plan.stages} stages, T], got {list(tokens.shape)}"
        )
    if tokens.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"tokens: wanted int32 or int64, got {tokens.dtype}")
    if plan.wide and tokens.dtype != torch.int64:
        raise ValueError("tokens: this codebook exceeds 2**31 and needs int64, got int32")
    batch, kept, length = tokens.shape
    counts_strides = launch.count_strides(counts, batch, len(plan.blocks))
    if out is None:
        if dtype not in launch.FLOATS:
            raise ValueError(f"dtype: wanted float32, bfloat16 or float16, got {dtype}")
        u = launch.latent(tokens, dtype, (batch, plan.width, length), channels_last)
    else:
        u = out.transpose(1, 2) if channels_last else out
        launch.check_latent("out", u, plan.width)
        if (u.shape[0], u.shape[2]) != (batch, length):
            raise ValueError(f"out: wanted {batch} samples of {length}, got {list(out.shape)}")
    if u.numel():
        tile = tile or tile_for("decode", batch * length, launch.architecture(tokens.device))
        frames = launch.Frames(batch, length, tile.frames)
        launch.run(
            decode_kernel, frames.programs,
            tokens, weights, counts if counts is not None else tokens, u, length, frames.tiles,
            *tokens.stride(), *counts_strides, *launch.strides(u),
            PLAN=plan.constant(), K=kept, KP=plan.padded_stages, CODEBOOK=plan.codebook,
            MASKED=counts is not None,
            BN=tile.frames, BD=tile.outputs, WIDE=launch.spans_wide(u), PRECISION="ieee",
            TURNED=tile.turned, tile=tile,
        )  # fmt: skip
    return u.transpose(1, 2) if channels_last else u
