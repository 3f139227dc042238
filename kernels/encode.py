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
from affectcodec.kernels.stages import get, project, quantize


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
    bad = tl.zeros((BN,), tl.int32)
    codes = ()
    for _ in tl.static_range(K):
        codes = codes + (tl.zeros((BN,), tokens.dtype.element_ty),)
    for g in tl.static_range(len(PLAN)):
        acc = project(
            z_first + get(PLAN, g, "channel") * z_sd, weights, valid, z_sd, z_st,
            get(PLAN, g, "inward"), get(PLAN, g, "width"), get(PLAN, g, "columns"), BN, BK, WIDE,
        )  # fmt: skip
        _, _, codes, bad = quantize(
            acc, weights, bad, bad, codes, PLAN, g, K, KP, BN, False, True
        )
    out = tokens + b * tok_sb + t0 * tok_st + n.to(tl.int64) * tok_st
    for k in tl.static_range(K):
        # A frame with a NaN is marked in every stage; -1 is no token.
        tl.store(out + k * tok_sk, tl.where(bad > 0, -1, codes[k]), mask=valid)


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
        int32 ``[B, K, T]``, int64 where the codebook exceeds 2**31. A frame whose projections
        hold a NaN is -1 in every stage.
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
