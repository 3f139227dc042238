# SPDX-License-Identifier: Apache-2.0
"""``backward``: gradient of the latent and of every parameter, exact, in code space.

Four kernels. ``rows`` goes over the frames once: gradients of the latents in, the reverse
recurrence, gradient of the latent out; it leaves two small rows a frame behind, ``h = dL/dp`` and
the masked values ``v``. ``weights`` and ``cross`` multiply those with latent and gradients over
slabs of frames, and ``reduce`` adds the slabs in order: no float atomics, the same bits each time.
What is left are products of a few thousand numbers, in float64 by torch.

The mask of a stage stands in its first padding place of ``v`` (see ``plan``), so the gradients of
the biases come out of the same products.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from affectcodec.kernels import launch
from affectcodec.kernels.configs import Tile, slabs_for, tile_for
from affectcodec.kernels.forward import UNIT, saved_offset
from affectcodec.kernels.plan import BlockPlan, Plan, make_plan
from affectcodec.kernels.stages import (
    along,
    at,
    column,
    digits_of,
    edge,
    entry_of,
    get,
    group_stages,
    join_groups,
    load_active,
    masked_value,
    over_channels,
    over_frames,
    stages_on,
    step,
    turn,
)  # fmt: skip


@triton.constexpr_function
def last_column(rates, r, dp):
    return rates[r] * dp


@triton.jit
def slope_of(y, BOUND: tl.constexpr):
    """Derivative of the bound: ``1 - tanh(y)**2``, or 1 inside [-1, 1] for the clamp."""
    size = tl.abs(y)
    if BOUND == 1:
        slope = tl.where(size <= 1.0, 1.0, 0.0)
    else:
        # 4 e / (1 + e)^2 with e = exp(-2 |y|): no cancellation where tanh nears 1.
        e = tl.exp(-2.0 * size)
        slope = 4.0 * e / ((1.0 + e) * (1.0 + e))
    return tl.where(y == y, slope, y)


@triton.jit
def load_gradient(grad, offset, mask):
    return tl.load(grad + offset, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def rows_kernel(
    grads, weights, counts, saved, dz, h_rows, v_rows, sums, length, tiles,
    g_strides, c_sb, c_sg, c_st, dz_sb, dz_sd, dz_st,
    PLAN: tl.constexpr, g: tl.constexpr, K: tl.constexpr, KP: tl.constexpr, RATES: tl.constexpr,
    PRESENT: tl.constexpr, BOUND: tl.constexpr, ROWS: tl.constexpr, MASKED: tl.constexpr,
    NEED_DZ: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr, WIDE: tl.constexpr,
    PRECISION: tl.constexpr, TURNED: tl.constexpr,
):  # fmt: skip
    C: tl.constexpr = get(PLAN, g, "columns")
    DP: tl.constexpr = get(PLAN, g, "padded_dims")
    DIMS: tl.constexpr = get(PLAN, g, "dims")
    MOST: tl.constexpr = get(PLAN, g, "most")
    WIDTH: tl.constexpr = get(PLAN, g, "width")
    LD: tl.constexpr = get(PLAN, g, "ld")
    CHANNEL: tl.constexpr = get(PLAN, g, "channel")
    pid = tl.program_id(0)
    b = (pid // tiles).to(tl.int64)
    t0 = (pid % tiles).to(tl.int64) * BN
    n = tl.arange(0, BN)
    d = tl.arange(0, BD)
    valid = n < length - t0

    # a = O^T g, of each group of stages the gradients of the rates that have it.
    received = ()
    for r in tl.static_range(len(RATES)):
        received = received + (tl.zeros((BN, group_stages(RATES, r, DP, KP) * DP), tl.float32),)
    for start in range(0, WIDTH, BD):
        here = start + d < WIDTH
        mask = valid[:, None] & here[None, :]
        total = tl.zeros((BN, BD), tl.float32)
        summed = ()
        for r in tl.static_range(len(RATES) - 1, -1, -1):
            if at(PRESENT, r) >= 0:
                s = g_strides[at(PRESENT, r)]
                offset = b * s[0] + t0 * s[2] + along(n, s[2], WIDE)[:, None]
                offset += along(CHANNEL + start + d, s[1], WIDE)[None, :]
                total += load_gradient(grads[at(PRESENT, r)], offset, mask)
            c = edge(RATES, r) * DP + tl.arange(0, group_stages(RATES, r, DP, KP) * DP)
            o_tile = weights + get(PLAN, g, "outward") + c[None, :] * LD + (start + d)[:, None]
            b_o = tl.load(o_tile, mask=(c < C)[None, :] & here[:, None], other=0.0)
            summed = (tl.dot(total, b_o, received[r], input_precision=PRECISION),) + summed
        received = summed
    back = join_groups(received, RATES, DP, KP, BN)

    # What forward knew.
    c = tl.arange(0, C)
    real = (c % DP < DIMS) & (c // DP < K)
    row = get(PLAN, g, "row") + c // DP * DIMS + c % DP
    x = tl.load(
        saved + saved_offset(b * length + t0 + n, ROWS)[:, None] + (row * UNIT)[None, :],
        mask=valid[:, None] & real[None, :], other=0.0,
    )  # fmt: skip
    digit = digits_of(x, weights + get(PLAN, g, "threshold") + c, C, MOST)
    active = tl.full((BN,), K, tl.int32)
    if MASKED:
        active = load_active(counts + b * c_sb + g * c_sg + (t0 + n) * c_st, valid, K)
    on = stages_on(active, c, K, DP, True) & valid[:, None]
    v = masked_value(
        x, entry_of(digit, weights + get(PLAN, g, "value") + c, C, MOST), on, c, DP, DIMS
    )
    y = x * tl.load(weights + get(PLAN, g, "scale") + c)[None, :]
    slope = tl.where(on & real[None, :], slope_of(y, BOUND), 0.0)

    # Reverse recurrence: each column of a stage is final once all later stages are done.
    cross = weights + get(PLAN, g, "cross") + c
    for count in range((K - 1) * DIMS):
        k = K - 1 - count // DIMS
        j = k * DP + count % DIMS
        h_j = column(slope * back, c, j)
        back = back - h_j[:, None] * tl.load(cross + j * C)[None, :]
    back = tl.where(on & real[None, :], back, 0.0)
    h_all = slope * back
    q = entry_of(digit, weights + get(PLAN, g, "grid") + c, C, MOST)
    q = tl.where(x == x, q, x)
    to = sums + pid.to(tl.int64) * (2 * C) + c
    tl.store(to, tl.sum(back, axis=0))
    tl.store(to + C, tl.sum(tl.where(real[None, :], back * (slope * y - q), 0.0), axis=0))
    scratch = (pid.to(tl.int64) * BN + n)[:, None] * C + c[None, :]
    tl.store(h_rows + scratch, h_all)
    tl.store(v_rows + scratch, v)

    if NEED_DZ:
        offset = b * dz_sb + t0 * dz_st + CHANNEL * dz_sd
        inside = over_frames(along(n, dz_st, WIDE), TURNED)
        offset += inside + over_channels(along(d, dz_sd, WIDE), TURNED)
        for start in range(0, WIDTH, BD):
            here = start + d < WIDTH
            b_w = tl.load(
                weights + get(PLAN, g, "inward") + (start + d)[None, :] * C + c[:, None],
                mask=here[None, :], other=0.0,
            )  # fmt: skip
            out = turn(tl.dot(h_all, b_w, input_precision=PRECISION), TURNED)
            mask = over_frames(valid, TURNED) & over_channels(here, TURNED)
            tl.store(dz + offset, out.to(dz.dtype.element_ty), mask=mask)
            offset += step(BD, dz_sd, WIDE)


@triton.jit
def weights_kernel(
    z, grads, h_rows, v_rows, partial, length, tiles, all_tiles, slabs, chunks, partial_stride,
    z_sb, z_sd, z_st, g_strides,
    PLAN: tl.constexpr, g: tl.constexpr, KP: tl.constexpr, RATES: tl.constexpr,
    PRESENT: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr, WIDE: tl.constexpr,
    PRECISION: tl.constexpr, TURNED: tl.constexpr,
):  # fmt: skip
    """``h^T z`` and ``v^T g`` of one slab of frames and one chunk of channels."""
    C: tl.constexpr = get(PLAN, g, "columns")
    DP: tl.constexpr = get(PLAN, g, "padded_dims")
    WIDTH: tl.constexpr = get(PLAN, g, "width")
    LD: tl.constexpr = get(PLAN, g, "ld")
    CHANNEL: tl.constexpr = get(PLAN, g, "channel")
    pid = tl.program_id(0)
    chunk = pid % chunks
    slab = (pid // chunks).to(tl.int64)
    n = tl.arange(0, BN)
    c = tl.arange(0, C)
    d = chunk * BD + tl.arange(0, BD)
    here = d < WIDTH
    into = tl.zeros((BD, C), tl.float32)
    outof = ()
    for r in tl.static_range(len(RATES)):
        outof = outof + (tl.zeros((BD, group_stages(RATES, r, DP, KP) * DP), tl.float32),)
    first = slab * all_tiles // slabs
    last = (slab + 1) * all_tiles // slabs
    zero = tl.full((), 0, tl.int64)
    for i_tile in range(first, last):
        tile = zero + i_tile  # the interpreter counts in Python integers
        b = tile // tiles
        t0 = tile % tiles * BN
        valid = n < length - t0
        mask = valid[None, :] & here[:, None]
        frame = (tile * BN + n) * C
        b_z = tl.load(
            z + b * z_sb + t0 * z_st + along(n, z_st, WIDE)[None, :]
            + along(CHANNEL + d, z_sd, WIDE)[:, None],
            mask=mask, other=0.0,
        ).to(tl.float32)  # fmt: skip
        b_h = tl.load(h_rows + frame[:, None] + c[None, :])
        into = tl.dot(b_z, b_h, into, input_precision=PRECISION)
        total = tl.zeros((BD, BN), tl.float32)
        summed = ()
        for r in tl.static_range(len(RATES) - 1, -1, -1):
            if at(PRESENT, r) >= 0:
                s = g_strides[at(PRESENT, r)]
                offset = b * s[0] + t0 * s[2] + along(n, s[2], WIDE)[None, :]
                offset += along(CHANNEL + d, s[1], WIDE)[:, None]
                total += load_gradient(grads[at(PRESENT, r)], offset, mask)
            cg = edge(RATES, r) * DP + tl.arange(0, group_stages(RATES, r, DP, KP) * DP)
            b_v = tl.load(v_rows + frame[:, None] + cg[None, :], mask=(cg < C)[None, :], other=0.0)
            summed = (tl.dot(total, b_v, outof[r], input_precision=PRECISION),) + summed
        outof = summed
    # Channels stand in the place of frames here: those of a column are next to each other.
    to = partial + slab * partial_stride + over_frames(d, TURNED)
    inside = over_frames(d < LD, TURNED)
    tl.store(to + over_channels(c, TURNED) * LD, turn(into, TURNED), mask=inside)
    for r in tl.static_range(len(RATES)):
        cg = edge(RATES, r) * DP + tl.arange(0, group_stages(RATES, r, DP, KP) * DP)
        # Columns past the group belong to the next one; past the last stage nothing is read.
        own = cg < last_column(RATES, r, DP)
        mask = inside & over_channels(own, TURNED)
        tl.store(to + (C + over_channels(cg, TURNED)) * LD, turn(outof[r], TURNED), mask=mask)


@triton.jit
def cross_kernel(
    h_rows, v_rows, sums, partial, all_tiles, slabs, partial_stride,
    C: tl.constexpr, BN: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """``h^T v`` of one slab of frames, and the sums that ``rows`` made a tile."""
    slab = tl.program_id(0).to(tl.int64)
    n = tl.arange(0, BN)
    c = tl.arange(0, C)
    two = tl.arange(0, 2 * C)
    acc = tl.zeros((C, C), tl.float32)
    summed = tl.zeros((2 * C,), tl.float32)
    first = slab * all_tiles // slabs
    last = (slab + 1) * all_tiles // slabs
    zero = tl.full((), 0, tl.int64)
    for i_tile in range(first, last):
        tile = zero + i_tile
        frame = (tile * BN + n) * C
        b_h = tl.load(h_rows + frame[None, :] + c[:, None])
        b_v = tl.load(v_rows + frame[:, None] + c[None, :])
        acc = tl.dot(b_h, b_v, acc, input_precision=PRECISION)
        summed += tl.load(sums + tile * (2 * C) + two)
    to = partial + slab * partial_stride
    tl.store(to + c[:, None] * C + c[None, :], acc)
    tl.store(to + C * C + two, summed)


@triton.jit
def reduce_kernel(partial, out, count, slabs, stride, BM: tl.constexpr):
    """Sum over the slabs, in order."""
    m = tl.program_id(0).to(tl.int64) * BM + tl.arange(0, BM)
    mask = m < count
    acc = tl.zeros((BM,), tl.float32)
    for _ in range(slabs):
        acc += tl.load(partial + m, mask=mask, other=0.0)
        partial += stride
    tl.store(out + m, acc, mask=mask)


def _finish(plan: Plan, block: BlockPlan, sums: Tensor, params: Sequence[Tensor]) -> list[Tensor]:
    """Gradients of one block's six parameters from the sums over all frames."""
    K, d, D = plan.stages, block.dims, block.width
    C, DP, LD = block.columns, block.padded_dims, block.ld
    W, _, O, e, logit, _ = (p.detach().double() for p in params)  # noqa: E741
    into, outof, cross, back = sums.double().split([C * LD, C * LD, C * C, 2 * C])
    hz = into.view(-1, DP, LD)[:K, :d, :D]
    gv = outof.view(-1, DP, LD)[:K, :, :D]
    cross = cross.view(-1, DP, plan.padded_stages, DP)[:K, :d, :K]
    stage = torch.arange(K, device=sums.device)
    later = (stage[:, None] > stage[None, :])[:, None, :]
    hv = torch.where(later[..., None], cross[..., :d], 0.0).reshape(K * d, K * d)
    hm = torch.where(later, cross[..., d], 0.0)  # [K, d, K]
    # h is 0 where its stage is off, so the sum of h alone is its sum with its own mask.
    dc = cross[..., d].diagonal(dim1=0, dim2=2).t()
    back = back.view(2, -1, DP)[:, :K, :d]
    out_rows = O.transpose(1, 2).reshape(K * d, D)
    dW = hz - (hv @ out_rows).view(K, d, D) - torch.einsum("kcj,jd->kcd", hm, e)
    dO = gv[:, :d] - (hv.t() @ W.reshape(K * d, D)).view(K, d, D)
    de = gv[:, d] - torch.einsum("kcj,kcd->jd", hm, W)
    s = torch.nn.functional.softplus(logit) + 0.1
    dlogit = back[1] / s.square() * torch.sigmoid(logit)
    grads = (dW, dc, dO.transpose(1, 2), de, dlogit, back[0] - dc)
    return [grad.to(p.dtype).contiguous() for grad, p in zip(grads, params, strict=True)]


def backward(
    grads: Sequence[Tensor],
    present: Sequence[int],
    z: Tensor,
    saved: Tensor,
    weights: Tensor,
    params: Sequence[Tensor],
    config: Sequence[int],
    counts: Tensor | None = None,
    rates: Sequence[int] = (),
    channels_last: bool = False,
    need_dz: bool = True,
    *,
    tile: Tile | None = None,
) -> tuple[Tensor, list[Tensor]]:
    """Gradients of ``forward``.

    Args:
        grads: gradients of the latents that have one, each of the shape of ``z``, any strides
            (expanded ones too) and float dtypes.
        present: which latent each of ``grads`` belongs to, ascending.
        z, weights, config, counts, rates, channels_last: as ``forward`` had them.
        saved: what ``forward`` returned.
        params: the six parameters of each block, in order.
        need_dz: whether the gradient of ``z`` is wanted.

    Returns:
        gradient of ``z``, contiguous and in its dtype (empty where not wanted), and of each of
        ``params``.
    """
    plan = make_plan(config)
    z = z.transpose(1, 2) if channels_last else z
    steps = launch.check_rates(rates, plan.stages)
    launch.check_latent("z", z, plan.width)
    launch.check_weights(weights, plan.floats)
    batch, _, length = z.shape
    counts_strides = launch.count_strides(counts, batch, len(plan.blocks))
    received = tuple(g.transpose(1, 2) if channels_last else g for g in grads)
    for i, grad in enumerate(received):
        launch.check_latent(f"grads[{i}]", grad, plan.width)
    where = tuple(present.index(r) if r in present else -1 for r in range(len(steps)))
    dz = (
        launch.latent(z, z.dtype, z.shape, channels_last) if need_dz
        else z.new_empty(0)
    )  # fmt: skip
    if batch * length == 0:
        return (
            dz.transpose(1, 2) if need_dz and channels_last else dz,
            [torch.zeros_like(p) for p in params],
        )
    name = launch.architecture(z.device)
    tile = tile or tile_for("backward_rows", batch * length, name)
    chunk = tile_for("backward_weights", batch * length, name)
    frames = launch.Frames(batch, length, tile.frames)
    slabs = slabs_for(frames.programs)
    sizes = [2 * b.columns * b.ld + b.columns * (b.columns + 2) for b in plan.blocks]
    partial = torch.empty(slabs, sum(sizes), dtype=torch.float32, device=z.device)
    common = {
        "PLAN": plan.constant(),
        "KP": plan.padded_stages,
        "RATES": steps,
        "PRESENT": where,
        "PRECISION": "ieee",
        "TURNED": tile.turned,
    }
    wide = launch.spans_wide(z, *received, dz if need_dz else None)
    g_strides = tuple(launch.strides(grad) for grad in received)
    start = 0
    for g, block in enumerate(plan.blocks):
        h_rows, v_rows = torch.empty(
            2, frames.programs * tile.frames, block.columns, dtype=torch.float32, device=z.device
        )
        sums = torch.empty(frames.programs, 2, block.columns, dtype=torch.float32, device=z.device)
        launch.run(
            rows_kernel, frames.programs,
            received, weights, counts if counts is not None else z, saved, dz, h_rows, v_rows,
            sums, length, frames.tiles, g_strides, *counts_strides,
            *(launch.strides(dz) if need_dz else (0, 0, 0)),
            **common, g=g, K=plan.stages, BOUND=plan.bound,
            ROWS=plan.rows, MASKED=counts is not None, NEED_DZ=need_dz,
            BN=tile.frames, BD=tile.channels, WIDE=wide, tile=tile,
        )  # fmt: skip
        into = partial[:, start : start + sizes[g]]
        chunks = -(-block.ld // chunk.channels)
        launch.run(
            weights_kernel, chunks * slabs,
            z, received, h_rows, v_rows, into, length, frames.tiles, frames.programs, slabs,
            chunks, partial.stride(0), *launch.strides(z), g_strides,
            **common, g=g, BN=tile.frames, BD=chunk.channels, WIDE=wide, tile=chunk,
        )  # fmt: skip
        launch.run(
            cross_kernel, slabs,
            h_rows, v_rows, sums, into[:, 2 * block.columns * block.ld :], frames.programs, slabs,
            partial.stride(0),
            C=block.columns, BN=tile.frames, PRECISION="ieee",
            tile=tile_for("backward_cross", batch * length, name),
        )  # fmt: skip
        start += sizes[g]
    total = torch.empty(sum(sizes), dtype=torch.float32, device=z.device)
    sweep = tile_for("reduce", batch * length, name)
    launch.run(
        reduce_kernel, -(-total.numel() // sweep.channels),
        partial, total, total.numel(), slabs, partial.stride(0),
        BM=sweep.channels, tile=sweep,
    )  # fmt: skip
    out: list[Tensor] = []
    for g, (block, part) in enumerate(zip(plan.blocks, total.split(sizes), strict=True)):
        out += _finish(plan, block, part, params[6 * g : 6 * g + 6])
    return dz.transpose(1, 2) if need_dz and channels_last else dz, out
