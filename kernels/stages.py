# SPDX-License-Identifier: Apache-2.0
"""Pieces that every kernel shares: loading tiles, cutting rows into stages, the recurrence.

Digits are decided here. The recurrence multiplies and subtracts in two roundings (kernels are
compiled with ``enable_fp_fusion=False``) and in ascending order of the earlier columns, so that a
backend that has the same projections makes the same digits.
"""

from __future__ import annotations

import triton
import triton.language as tl

from affectcodec.kernels.plan import FIELD

# More thresholds than this are looped over at run time: the code stays small.
UNROLLED_LEVELS = 16


@triton.constexpr_function
def get(plan, g, name):
    """Field ``name`` of block ``g`` of a plan constant."""
    return plan[g][FIELD[name]]


@triton.constexpr_function
def at(values, i):
    return values[i]


@triton.constexpr_function
def pow2(n):
    return 1 << (n - 1).bit_length() if n > 1 else 1


@triton.constexpr_function
def unrolled(most):
    return most <= UNROLLED_LEVELS


@triton.jit
def along(index, stride, WIDE: tl.constexpr):
    """Offsets ``index * stride`` inside a tile; 64-bit only where a tile can span that much."""
    if WIDE:
        return index.to(tl.int64) * stride
    else:
        return index * stride


@triton.jit
def step(count: tl.constexpr, stride, WIDE: tl.constexpr):
    if WIDE:
        return tl.full((), count, tl.int64) * stride
    else:
        return count * stride


@triton.jit
def split_stages(x, K: tl.constexpr, DP: tl.constexpr, BN: tl.constexpr):
    """``[BN, K * DP]`` -> tuple of ``K`` tensors ``[BN, DP]``; ``K`` a power of two."""
    if K == 1:
        return (tl.reshape(x, (BN, DP)),)
    else:
        halves = tl.permute(tl.reshape(x, (BN, 2, K // 2 * DP)), (0, 2, 1))
        low, high = tl.split(halves)
        return split_stages(low, K // 2, DP, BN) + split_stages(high, K // 2, DP, BN)


@triton.jit
def join_stages(xs, first: tl.constexpr, K: tl.constexpr, DP: tl.constexpr, BN: tl.constexpr):
    """Inverse of :func:`split_stages` for the stages ``first .. first + K - 1``."""
    if K == 1:
        return xs[first]
    else:
        low = join_stages(xs, first, K // 2, DP, BN)
        high = join_stages(xs, first + K // 2, K // 2, DP, BN)
        return tl.reshape(tl.permute(tl.join(low, high), (0, 2, 1)), (BN, K * DP))


@triton.jit
def project(
    z, weights, valid, z_sd, z_st,
    INWARD: tl.constexpr, WIDTH: tl.constexpr, C: tl.constexpr,
    BN: tl.constexpr, BK: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Projections ``[BN, C]`` of a tile of frames; ``z`` points at its first frame and channel."""
    n = tl.arange(0, BN)
    d = tl.arange(0, BK)
    c = tl.arange(0, C)
    z_tile = z + along(n, z_st, WIDE)[:, None] + along(d, z_sd, WIDE)[None, :]
    w_tile = weights + INWARD + d[:, None] * C + c[None, :]
    acc = tl.zeros((BN, C), tl.float32)
    for start in range(0, WIDTH, BK):
        if WIDTH % BK == 0:
            b_z = tl.load(z_tile, mask=valid[:, None], other=0.0).to(tl.float32)
            b_w = tl.load(w_tile)
        else:
            here = start + d < WIDTH
            b_z = tl.load(z_tile, mask=valid[:, None] & here[None, :], other=0.0).to(tl.float32)
            b_w = tl.load(w_tile, mask=here[:, None], other=0.0)
        # ieee: the sum over channels runs in order in one register, whatever the tile, so that
        # tokens do not depend on the batch they are made in.
        acc = tl.dot(b_z, b_w, acc, input_precision="ieee")
        z_tile += step(BK, z_sd, WIDE)
        w_tile += BK * C
    return acc


@triton.jit
def digits_of(x, threshold, C: tl.constexpr, MOST: tl.constexpr):
    """Number of thresholds that each ``x [BN, DP]`` reaches; ``threshold`` points at ``[DP]``."""
    digit = tl.zeros(x.shape, tl.int32)
    if unrolled(MOST):
        for level in tl.static_range(MOST - 1):
            digit += (x >= tl.load(threshold + level * C)[None, :]).to(tl.int32)
    else:
        for level in range(MOST - 1):
            digit += (x >= tl.load(threshold + level * C)[None, :]).to(tl.int32)
    return digit


@triton.jit
def entry_of(digit, table, C: tl.constexpr, MOST: tl.constexpr):
    """Entry of each digit in ``table [MOST, C]``; ``table`` points at ``[DP]``."""
    if unrolled(MOST):
        found = tl.zeros(digit.shape, tl.float32) + tl.load(table)[None, :]
        for level in tl.static_range(1, MOST):
            found = tl.where(digit >= level, tl.load(table + level * C)[None, :], found)
        return found
    else:
        return tl.load(table[None, :] + digit * C)


@triton.jit
def masked_value(x, value, on, dim, DIMS: tl.constexpr):
    """``m v`` of a stage, with the mask itself in the first padding place.

    A NaN reaches no threshold; its value stays NaN so that it is seen downstream.
    """
    value = tl.where(x == x, value, x)
    value = tl.where(dim[None, :] < DIMS, value, 0.0)
    value = tl.where(dim[None, :] == DIMS, 1.0, value)
    return tl.where(on[:, None], value, 0.0)


@triton.jit
def column(value, dim, i: tl.constexpr):
    """Column ``i`` of ``[BN, DP]`` as ``[BN]``; a sum with zeros is exact."""
    return tl.sum(tl.where(dim[None, :] == i, value, 0.0), axis=1)


@triton.jit
def add_code(code, digit, dim, BASES: tl.constexpr, DIMS: tl.constexpr, DP: tl.constexpr):
    """Adds the digits of a stage to its token, by integers alone."""
    base = tl.zeros((DP,), code.dtype)
    for i in tl.static_range(DIMS):
        base = tl.where(dim == i, tl.full((DP,), at(BASES, i), code.dtype), base)
    return code + tl.sum(digit.to(code.dtype) * base[None, :], axis=1)


@triton.jit
def later_stages(
    xs, value, cross_t, dim,
    k: tl.constexpr, K: tl.constexpr, C: tl.constexpr, DP: tl.constexpr, DIMS: tl.constexpr,
):  # fmt: skip
    """``xs`` with the contribution of stage ``k`` taken from the stages after it."""
    for i in tl.static_range(DIMS):
        v = column(value, dim, i)
        changed = ()
        for j in tl.static_range(K):
            if j > k:
                g = tl.load(cross_t + (k * DP + i) * C + j * DP + dim)
                changed = changed + (xs[j] - v[:, None] * g[None, :],)
            else:
                changed = changed + (xs[j],)
        xs = changed
    return xs


@triton.jit
def quantize(
    acc, weights, active, bad, codes,
    PLAN: tl.constexpr, g: tl.constexpr, K: tl.constexpr, KP: tl.constexpr, BN: tl.constexpr,
    MASKED: tl.constexpr, TOKENS: tl.constexpr,
):  # fmt: skip
    """Triangular recurrence of block ``g`` over the code dims of a tile of frames.

    Args:
        acc: projections ``[BN, C]``.
        active: stages that are on, int32 ``[BN]``; used where MASKED.
        bad: int32 ``[BN]``, raised to 1 where a projection is NaN.
        codes: tuple of ``K`` tokens ``[BN]``, to which the digits are added where TOKENS.

    Returns:
        compared values and masked values, tuples of ``K`` tensors ``[BN, DP]``; codes; bad.
    """
    C: tl.constexpr = get(PLAN, g, "columns")
    DP: tl.constexpr = get(PLAN, g, "padded_dims")
    DIMS: tl.constexpr = get(PLAN, g, "dims")
    MOST: tl.constexpr = get(PLAN, g, "most")
    dim = tl.arange(0, DP)
    xs = split_stages(acc, KP, DP, BN)
    offset = weights + get(PLAN, g, "offset")
    shifted = ()
    for k in tl.static_range(K):
        if MASKED:
            row = tl.minimum(active, k) * C
            shifted = shifted + (xs[k] + tl.load(offset + row[:, None] + (k * DP + dim)[None, :]),)
        else:
            shifted = shifted + (xs[k] + tl.load(offset + k * C + k * DP + dim)[None, :],)
    xs = shifted
    values = ()
    for k in tl.static_range(K):
        x = xs[k]
        digit = digits_of(x, weights + get(PLAN, g, "threshold") + k * DP + dim, C, MOST)
        value = entry_of(digit, weights + get(PLAN, g, "value") + k * DP + dim, C, MOST)
        if MASKED:
            on = active > k
        else:
            on = active >= 0
        value = masked_value(x, value, on, dim, DIMS)
        values = values + (value,)
        if TOKENS:
            lost = ((x != x) & (dim[None, :] < DIMS)).to(tl.int32)
            bad = tl.maximum(bad, tl.max(lost, axis=1))
            replaced = ()
            for j in tl.static_range(K):
                if j == k:
                    replaced = replaced + (
                        add_code(codes[j], digit, dim, get(PLAN, g, "bases"), DIMS, DP),
                    )
                else:
                    replaced = replaced + (codes[j],)
            codes = replaced
        xs = later_stages(xs, value, weights + get(PLAN, g, "cross_t"), dim, k, K, C, DP, DIMS)
    return xs, values, codes, bad


@triton.jit
def group_values(values, LOW: tl.constexpr, HIGH: tl.constexpr, DP: tl.constexpr, BN: tl.constexpr):
    """Stages ``LOW .. HIGH - 1`` side by side, ``[BN, GC]``, zeros up to a power of two >= 16."""
    COUNT: tl.constexpr = group_stages(HIGH - LOW, DP)
    padded = ()
    for k in tl.static_range(COUNT):
        if k < HIGH - LOW:
            padded = padded + (values[LOW + k],)
        else:
            padded = padded + (tl.zeros((BN, DP), tl.float32),)
    return join_stages(padded, 0, COUNT, DP, BN)


@triton.constexpr_function
def group_stages(count, dp):
    """Stages that a group of ``count`` takes once padded; see :func:`group_values`."""
    padded = 1 << (count - 1).bit_length() if count > 1 else 1
    while padded * dp < 16:
        padded *= 2
    return padded


@triton.constexpr_function
def edge(rates, r):
    """First stage of group ``r``: the stages that rate ``r`` has and rate ``r - 1`` has not."""
    return 0 if r == 0 else rates[r - 1]
