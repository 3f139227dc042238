# SPDX-License-Identifier: Apache-2.0
"""``pack_bits`` and ``unpack_bits``: tokens in the fewest whole bytes, and back, on the device.

The layout is that of ``affectcodec.bitpacking``: one little-endian stream of bits, code ``i`` in
the bits ``i * bits`` to ``(i + 1) * bits - 1``, the last byte filled up with zeros.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from affectcodec.kernels import launch
from affectcodec.kernels.configs import Tile, tile_for

MAX_BITS = 63
UNPACK = Tile(frames=1024, channels=1, warps=4)


@triton.jit
def pack_kernel(codes, words, count, total, BITS: tl.constexpr, BM: tl.constexpr):
    """Each 32-bit word gathers the codes that reach into it."""
    m = tl.program_id(0).to(tl.int64) * BM + tl.arange(0, BM)
    first = m * 32 // BITS
    mask: tl.constexpr = (1 << BITS) - 1
    word = tl.zeros((BM,), tl.int64)
    for j in tl.static_range(31 // BITS + 2):
        i = first + j
        code = tl.load(codes + i, mask=(i < count) & (m < total), other=0).to(tl.int64)
        code = code & tl.full((), mask, tl.int64)
        shift = i * BITS - m * 32  # > -63; a code that starts past the word adds nothing
        up = tl.minimum(tl.maximum(shift, 0), 32)
        down = tl.minimum(tl.maximum(-shift, 0), 63)
        word |= code >> down << up
    tl.store(words + m, word.to(tl.int32), mask=m < total)


@triton.jit
def unpack_kernel(data, codes, count, size, BITS: tl.constexpr, BM: tl.constexpr):
    """Each code gathers the bytes that it reaches into."""
    i = tl.program_id(0).to(tl.int64) * BM + tl.arange(0, BM)
    bit = i * BITS
    byte = bit // 8
    shift = bit % 8
    mask: tl.constexpr = (1 << BITS) - 1
    code = tl.zeros((BM,), tl.int64)
    for j in tl.static_range((BITS + 14) // 8):
        at = byte + j
        part = tl.load(data + at, mask=(i < count) & (at < size), other=0).to(tl.int64)
        up = tl.maximum(8 * j - shift, 0)
        down = tl.maximum(shift - 8 * j, 0)
        code |= part >> down << up
    code = code & tl.full((), mask, tl.int64)
    tl.store(codes + i, code.to(codes.dtype.element_ty), mask=i < count)


def _check_bits(bits: int) -> None:
    if not 1 <= bits <= MAX_BITS:
        raise ValueError(f"bits: expected 1..{MAX_BITS}, got {bits}")


def pack_bits(codes: Tensor, bits: int) -> Tensor:
    """Packs codes into bytes, ``bits`` bits each.

    Args:
        codes: int32 or int64 ``[n]``. Only the low ``bits`` bits of a code are kept: whether codes
            fit is for the caller to know, asking the device would synchronize.
        bits: 1..63.

    Returns:
        uint8 ``[ceil(n * bits / 8)]``.
    """
    _check_bits(bits)
    if codes.ndim != 1 or codes.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"codes: wanted int32 or int64 [n], got {codes.dtype} {codes.shape}")
    codes = codes.contiguous()
    size = (codes.shape[0] * bits + 7) // 8
    total = -(-size // 4)
    words = torch.empty(total, dtype=torch.int32, device=codes.device)
    if total:
        tile = tile_for("pack", total, launch.architecture(codes.device))
        launch.run(
            pack_kernel, -(-total // tile.frames), codes, words, codes.shape[0], total,
            BITS=bits, BM=tile.frames, tile=tile,
        )  # fmt: skip
    return words.view(torch.uint8)[:size]


def unpack_bits(data: Tensor, bits: int, count: int, dtype: torch.dtype = torch.int64) -> Tensor:
    """Reads ``count`` codes back from what :func:`pack_bits` made.

    Args:
        data: uint8, exactly ``ceil(count * bits / 8)`` of them.
        bits: 1..63.
        dtype: int64, or int32 for codes of at most 31 bits.
    """
    _check_bits(bits)
    size = (count * bits + 7) // 8
    if data.dtype != torch.uint8 or tuple(data.shape) != (size,):
        raise ValueError(
            f"data: {count} codes of {bits} bits take uint8 [{size}], got {data.dtype} "
            f"{list(data.shape)}"
        )
    if dtype not in (torch.int32, torch.int64) or (dtype == torch.int32 and bits > 31):
        raise ValueError(f"dtype: wanted int64, or int32 for at most 31 bits, got {dtype}")
    data = data.contiguous()
    codes = torch.empty(count, dtype=dtype, device=data.device)
    if count:
        launch.run(
            unpack_kernel, -(-count // UNPACK.frames), data, codes, count, size,
            BITS=bits, BM=UNPACK.frames, tile=UNPACK,
        )  # fmt: skip
    return codes
