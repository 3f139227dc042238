# SPDX-License-Identifier: Apache-2.0
"""``encode``: latent to tokens, one read of the latent and one write of the tokens."""

from __future__ import annotations

from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from affectcodec.kernels import launch
from affectcodec.kernels.configs import Tile, tile_for
from affectcodec.kernels.plan import make_plan
from affectcodec.kernels.stages import codes_of, confirm, digits_of, get, project, recurrence


@triton.jit
def add_tokens(
    codes, bad, x, weights, PLAN: tl.constexpr, g: tl.constexpr, KP: tl.constexpr, BN: tl.constexpr
):
    """Tokens ``[BN, KP]`` with the digits of one more block, and which frames may hold a NaN."""
    C: tl.constexpr = get(PLAN, g, "columns")
    c = tl.arange(0, C)
    threshold = weights + get(PLAN, g, "threshold") + c
    digit = digits_of(x, threshold, C, get(PLAN, g, "most"))
    codes += codes_of(digit, c, codes.dtype, PLAN, g, KP, BN)
    # Padding columns have no weight, but an infinite latent makes a NaN of that too.
    real = c % get(PLAN, g, "padded_dims") < get(PLAN, g, "dims")
    lost = ((x != x) & real[None, :]).to(tl.int32)
    return codes, tl.maximum(bad, tl.max(lost, axis=1)), digit


@triton.jit
def store_tokens(
    codes, bad, tokens, b, t0, valid, tok_sb, tok_sk, tok_st,
    K: tl.constexpr, KP: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    n = tl.arange(0, BN)
    k = tl.arange(0, KP)
    # A frame with a NaN is marked in every stage; -1 is no token.
    codes = tl.where(bad[:, None] > 0, -1, codes)
    to = tokens + b * tok_sb + t0 * tok_st
    to += n.to(tl.int64)[:, None] * tok_st + k.to(tl.int64)[None, :] * tok_sk
    tl.store(to, codes, mask=valid[:, None] & (k < K)[None, :])


@triton.jit
def encode_kernel(
    z, weights, tokens, length, tiles,
    z_sb, z_sd, z_st, tok_sb, tok_sk, tok_st,
    PLAN: tl.constexpr, K: tl.constexpr, KP: tl.constexpr,
    BN: tl.constexpr, BK: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0)
    b = (pid // tiles).to(tl.int64)
    t0 = (pid % tiles).to(tl.int64) * BN
    n = tl.arange(0, BN)
    valid = n < length - t0
    z_first = z + b * z_sb + t0 * z_st
    codes = tl.zeros((BN, KP), tokens.dtype.element_ty)
    bad = tl.zeros((BN,), tl.int32)
    for g in tl.static_range(len(PLAN)):
        x = project(
            z_first + get(PLAN, g, "channel") * z_sd, weights, valid, z_sd, z_st,
            get(PLAN, g, "inward"), get(PLAN, g, "width"), get(PLAN, g, "columns"), BN, BK, WIDE,
        )  # fmt: skip
        x = recurrence(x, weights, bad, PLAN, g, K, False)
        codes, bad, _ = add_tokens(codes, bad, x, weights, PLAN, g, KP, BN)
    bad = confirm(bad, z_first, valid, z_sd, z_st, PLAN, BN, BK, WIDE)
    store_tokens(codes, bad, tokens, b, t0, valid, tok_sb, tok_sk, tok_st, K, KP, BN)


def encode(
    z: Tensor,
    weights: Tensor,
    config: Sequence[int],
    channels_last: bool = False,
    *,
    out: Tensor | None = None,
    tile: Tile | None = None,
) -> Tensor:
    """Tokens of a latent.

    Args:
        z: ``[B, D, T]``, or ``[B, T, D]`` with ``channels_last``; float32, bfloat16 or float16,
            any strides.
        weights: from :func:`affectcodec.kernels.fold.fold` for the same ``config``.
        config: description of the quantizer, see ``affectcodec.kernels.plan``.
        out: tensor of the shape and dtype of the result to write to, any strides.
        tile: overrides the table of tile sizes.

    Returns:
        int32 ``[B, K, T]``, int64 where the codebook exceeds 2**31. A frame that holds a NaN is
        -1 in every stage.
    """
    plan = make_plan(config)
    z = z.transpose(1, 2) if channels_last else z
    launch.check_latent("z", z, plan.width)
    launch.check_weights(weights, plan.floats)
    batch, _, length = z.shape
    tokens = launch.tokens_for(plan, z, out)
    if tokens.numel() == 0:
        return tokens
    tile = tile or tile_for("encode", batch * length, launch.architecture(z.device))
    frames = launch.Frames(batch, length, tile.frames)
    launch.run(
        encode_kernel, frames.programs,
        z, weights, tokens, length, frames.tiles, *launch.strides(z), *tokens.stride(),
        PLAN=plan.constant(), K=plan.stages, KP=plan.padded_stages,
        BN=tile.frames, BK=tile.channels, WIDE=launch.spans_wide(z), tile=tile,
    )  # fmt: skip
    return tokens
