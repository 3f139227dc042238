# SPDX-License-Identifier: Apache-2.0
"""Pieces that every kernel shares: loading tiles, cutting rows into stages, the recurrence.

Digits are decided here. The recurrence multiplies and subtracts in two roundings (kernels are
compiled with ``enable_fp_fusion=False``) and in ascending order of the earlier columns, so that a
backend that has the same projections makes the same digits.
"""

from __future__ import annotations

import triton
import triton.language as tl

from affectcodec.kernels import plan
from affectcodec.kernels.plan import FIELD

# With more levels than this a digit is found by bisection instead of by comparing with all.
UNROLLED_LEVELS = 16


@triton.constexpr_function
def get(plan, g, name):
    """Field ``name`` of block ``g`` of a plan constant."""
    return plan[g][FIELD[name]]


@triton.constexpr_function
def at(values, i):
    return values[i]


@triton.constexpr_function
def unrolled(most):
    return most <= UNROLLED_LEVELS


@triton.constexpr_function
def halvings(most):
    return (most - 1).bit_length()


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
def over_frames(n, TURNED: tl.constexpr):
    """``n [BN]`` along the frames of a tile ``[BN, BD]``, or of ``[BD, BN]`` if turned."""
    if TURNED:
        return n[None, :]
    else:
        return n[:, None]


@triton.jit
def over_channels(d, TURNED: tl.constexpr):
    """``d [BD]`` along the other dim of what :func:`over_frames` takes."""
    if TURNED:
        return d[:, None]
    else:
        return d[None, :]


@triton.jit
def turn(x, TURNED: tl.constexpr):
    """``x [BN, BD]``, transposed if turned."""
    if TURNED:
        return tl.trans(x)
    else:
        return x


@triton.jit
def load_active(count, valid, K: tl.constexpr):
    """Active stages ``[BN]`` of each frame; a count below 0 is 0, one above ``K`` is ``K``."""
    active = tl.load(count, mask=valid, other=0)
    return tl.minimum(tl.maximum(active, 0), K).to(tl.int32)


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


@triton.constexpr_function
def whole_width(plan):
    return plan[-1][FIELD["channel"]] + plan[-1][FIELD["width"]]


@triton.jit
def confirm(
    bad, z, valid, z_sd, z_st,
    PLAN: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Which frames of a tile hold a NaN, where ``bad`` says that a projection is one.

    Infinities that cancel make a NaN of a projection too, but leave the frame usable. The rare tile
    that is marked is read again to tell them apart.
    """
    if tl.max(bad, axis=0) > 0:
        n = tl.arange(0, BN)
        d = tl.arange(0, BK)
        tile = z + along(n, z_st, WIDE)[:, None] + along(d, z_sd, WIDE)[None, :]
        lost = tl.zeros((BN, BK), tl.int32)
        for start in range(0, whole_width(PLAN), BK):
            mask = valid[:, None] & (start + d < whole_width(PLAN))[None, :]
            b_z = tl.load(tile, mask=mask, other=0.0).to(tl.float32)
            lost |= (b_z != b_z).to(tl.int32)
            tile += step(BK, z_sd, WIDE)
        bad = tl.max(lost, axis=1)
    return bad


@triton.jit
def bisect(x, threshold, C: tl.constexpr, MOST: tl.constexpr):
    """Number of ascending thresholds that each ``x`` reaches; ``threshold`` points at the first.

    Unused thresholds are NaN and come last: nothing reaches them.
    """
    digit = tl.zeros(x.shape, tl.int32)
    for i in tl.static_range(halvings(MOST)):
        probe = digit + (1 << (halvings(MOST) - 1 - i))
        tau = tl.load(threshold + (probe - 1) * C, mask=probe < MOST, other=float("nan"))
        digit = tl.where(x >= tau, probe, digit)
    return digit


@triton.jit
def digits_of(x, threshold, C: tl.constexpr, MOST: tl.constexpr):
    """Number of thresholds that each ``x [BN, C]`` reaches; ``threshold`` points at ``[C]``."""
    if unrolled(MOST):
        digit = tl.zeros(x.shape, tl.int32)
        for level in tl.static_range(MOST - 1):
            digit += (x >= tl.load(threshold + level * C)[None, :]).to(tl.int32)
        return digit
    else:
        return bisect(x, threshold[None, :], C, MOST)


@triton.jit
def entry_of(digit, table, C: tl.constexpr, MOST: tl.constexpr):
    """Entry of each digit ``[BN, C]`` in ``table [MOST, C]``; ``table`` points at ``[C]``."""
    if unrolled(MOST):
        found = tl.zeros(digit.shape, tl.float32) + tl.load(table)[None, :]
        for level in tl.static_range(1, MOST):
            found = tl.where(digit >= level, tl.load(table + level * C)[None, :], found)
        return found
    else:
        return tl.load(table[None, :] + digit * C)


@triton.jit
def value_of(x, threshold, value, C: tl.constexpr, MOST: tl.constexpr):
    """Value of the digit of each ``x [BN]`` of one column; the tables point at its entry."""
    if unrolled(MOST):
        v = tl.zeros(x.shape, tl.float32) + tl.load(value)
        for level in tl.static_range(MOST - 1):
            v = tl.where(x >= tl.load(threshold + level * C), tl.load(value + (level + 1) * C), v)
    else:
        v = tl.load(value + bisect(x, threshold, C, MOST) * C)
    # A NaN reaches no threshold; its value stays NaN so that it is seen downstream.
    return tl.where(x == x, v, x)


@triton.jit
def column(x, c, j):
    """Column ``j`` of ``x [BN, C]`` as ``[BN]``; a sum with zeros is exact."""
    return tl.sum(tl.where(c[None, :] == j, x, 0.0), axis=1)


@triton.jit
def recurrence(
    x, weights, active,
    PLAN: tl.constexpr, g: tl.constexpr, K: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """Triangular recurrence of block ``g``: projections ``[BN, C]`` to compared values.

    A column at a time, in order: its value is taken from the columns of all later stages. A loop
    and not straight code, which at 48 columns takes minutes to compile. The columns of a stage do
    not depend on each other (``G`` is 0 there), nor on later ones. ``active`` is used where MASKED.
    """
    C: tl.constexpr = get(PLAN, g, "columns")
    DP: tl.constexpr = get(PLAN, g, "padded_dims")
    DIMS: tl.constexpr = get(PLAN, g, "dims")
    MOST: tl.constexpr = get(PLAN, g, "most")
    c = tl.arange(0, C)
    if MASKED:
        row = tl.minimum(active[:, None], (c // DP)[None, :]) * C
        x += tl.load(weights + get(PLAN, g, "offset") + row + c[None, :])
    else:
        row = tl.minimum(c // DP, K) * C
        x += tl.load(weights + get(PLAN, g, "offset") + row + c)[None, :]
    threshold = weights + get(PLAN, g, "threshold")
    value = weights + get(PLAN, g, "value")
    cross_t = weights + get(PLAN, g, "cross_t") + c
    # Nothing comes after the last stage.
    for count in range((K - 1) * DIMS):
        k = count // DIMS
        j = k * DP + count % DIMS
        v = value_of(column(x, c, j), threshold + j, value + j, C, MOST)
        if MASKED:
            v = tl.where(active > k, v, 0.0)
        x = x - v[:, None] * tl.load(cross_t + j * C)[None, :]
    return x


@triton.jit
def masked_value(x, value, on, c, DP: tl.constexpr, DIMS: tl.constexpr):
    """``m v [BN, C]``, with the mask ``m`` itself in the first padding place of each stage."""
    dim = (c % DP)[None, :]
    value = tl.where(x == x, value, x)
    value = tl.where(dim < DIMS, value, 0.0)
    value = tl.where(dim == DIMS, 1.0, value)
    return tl.where(on, value, 0.0)


@triton.jit
def constant_row(values: tl.constexpr, dim, DIMS: tl.constexpr, fill: tl.constexpr, dtype):
    """Compile-time integers, one a code dim, at their places of a row; ``fill`` in the padding."""
    row = tl.full(dim.shape, fill, dtype)
    for i in tl.static_range(DIMS):
        row = tl.where(dim == i, tl.full(dim.shape, at(values, i), dtype), row)
    return row


@triton.jit
def codes_of(
    digit, c, dtype, PLAN: tl.constexpr, g: tl.constexpr, KP: tl.constexpr, BN: tl.constexpr
):
    """Share of block ``g`` in the tokens, ``[BN, KP]``, by integer arithmetic alone."""
    DP: tl.constexpr = get(PLAN, g, "padded_dims")
    base = constant_row(get(PLAN, g, "bases"), c % DP, get(PLAN, g, "dims"), 0, dtype)
    return tl.sum(tl.reshape(digit.to(dtype) * base[None, :], (BN, KP, DP)), axis=2)


@triton.jit
def stages_on(active, c, K: tl.constexpr, DP: tl.constexpr, MASKED: tl.constexpr):
    """Which columns ``[BN, C]`` (or ``[1, C]``) belong to a stage that is on."""
    stage = (c // DP)[None, :]
    if MASKED:
        return (stage < active[:, None]) & (stage < K)
    else:
        return stage < K


@triton.jit
def split_groups(v, RATES: tl.constexpr, DP: tl.constexpr, KP: tl.constexpr, BN: tl.constexpr):
    """The stages that each rate adds to the one before, a tuple of ``[BN, GC]``.

    A group is filled up with zeros to a power of two of at least 16 columns.
    """
    if len(RATES) == 1:
        return (v,)
    else:
        parts = split_stages(v, KP, DP, BN)
        groups = ()
        for r in tl.static_range(len(RATES)):
            padded = ()
            for k in tl.static_range(group_stages(RATES, r, DP, KP)):
                if k < at(RATES, r) - edge(RATES, r):
                    padded = padded + (parts[edge(RATES, r) + k],)
                else:
                    padded = padded + (tl.zeros((BN, DP), tl.float32),)
            groups = groups + (join_stages(padded, 0, group_stages(RATES, r, DP, KP), DP, BN),)
        return groups


@triton.jit
def join_groups(groups, RATES: tl.constexpr, DP: tl.constexpr, KP: tl.constexpr, BN: tl.constexpr):
    """Inverse of :func:`split_groups`."""
    if len(RATES) == 1:
        return groups[0]
    else:
        parts = ()
        for r in tl.static_range(len(RATES)):
            split = split_stages(groups[r], group_stages(RATES, r, DP, KP), DP, BN)
            for k in tl.static_range(at(RATES, r) - edge(RATES, r)):
                parts = parts + (split[k],)
        for _ in tl.static_range(KP - at(RATES, len(RATES) - 1)):
            parts = parts + (tl.zeros((BN, DP), tl.float32),)
        return join_stages(parts, 0, KP, DP, BN)


edge = triton.constexpr_function(plan.edge)
group_stages = triton.constexpr_function(plan.group_stages)


@triton.constexpr_function
def overhangs(rates, r, dp, kp):
    """Whether the padding of group ``r`` reaches past the last column."""
    first = 0 if r == 0 else rates[r - 1]
    return len(rates) > 1 and first + group_stages(rates, r, dp, kp) > kp
