# SPDX-License-Identifier: Apache-2.0
"""Packing of integer codes into bytes as operators on tensors.

The layout is that of ``affectcodec.bitpacking``, which does the same for buffers without torch:
code ``i`` takes the bits ``i * bits`` to ``(i + 1) * bits - 1`` of one little-endian stream.
"""

from __future__ import annotations

import torch
from torch import Tensor

from affectcodec.ops.registry import OPS, REFERENCE, choose

MAX_BITS = 63  # a code has to fit a signed 64-bit integer


def pack_bits(codes: Tensor, bits: int, *, backend: str | None = None) -> Tensor:
    """Pack codes into bytes, ``bits`` bits each.

    Args:
        codes: int32 or int64 of any shape, each in ``0..2**bits - 1``; packed in row-major order.
        bits: bits a code takes, 1..63.
        backend: as in ``affectcodec.ops.use_backend``.

    Returns:
        uint8 ``[ceil(n * bits / 8)]`` on the device of ``codes``, where ``n`` is their number.

    Raises:
        ValueError: on a wrong dtype or ``bits``, or if a code does not fit.
        RuntimeError: if the backend asked for cannot serve.
    """
    _check_bits(bits)
    if not isinstance(codes, Tensor) or codes.dtype not in (torch.int32, torch.int64):
        got = codes.dtype if isinstance(codes, Tensor) else type(codes).__name__
        raise ValueError(f"codes: wanted an int32 or int64 tensor, got {got}")
    flat = codes.reshape(-1)
    name = choose("pack_bits", codes.device.type, None, backend)
    if name == REFERENCE:
        return _pack(flat, bits)
    try:
        packed: Tensor = OPS["pack_bits"].kernel(name)(flat.contiguous(), bits)
    except RuntimeError as error:
        raise _as_value_error(error) from None
    return packed


def unpack_bits(
    data: Tensor,
    bits: int,
    count: int,
    dtype: torch.dtype = torch.int64,
    *,
    backend: str | None = None,
) -> Tensor:
    """Read ``count`` codes of ``bits`` bits back from what :func:`pack_bits` made.

    Args:
        data: uint8 ``[ceil(count * bits / 8)]``. Untrusted data is fine: its length is checked
            before anything is allocated.
        dtype: int64, or int32 for codes of at most 31 bits.
        backend: as in ``affectcodec.ops.use_backend``.

    Returns:
        Codes ``[count]``.

    Raises:
        ValueError: on a wrong dtype, ``bits`` or ``count``, if ``data`` has another length, or if
            the bits that fill up the last byte are not 0.
        RuntimeError: if the backend asked for cannot serve.
    """
    _check_bits(bits)
    if not isinstance(data, Tensor) or data.dtype != torch.uint8 or data.ndim != 1:
        got = tuple(data.shape) if isinstance(data, Tensor) else type(data).__name__
        raise ValueError(f"data: wanted a uint8 tensor of one dimension, got {got}")
    if dtype not in (torch.int32, torch.int64) or (dtype == torch.int32 and bits > 31):
        raise ValueError(f"dtype: wanted int64, or int32 for at most 31 bits, got {dtype}")
    if count < 0 or (count * bits + 7) // 8 != data.shape[0]:
        raise ValueError(f"data: {data.shape[0]} bytes are not {count} codes of {bits} bits")
    name = choose("unpack_bits", data.device.type, None, backend)
    if name == REFERENCE:
        return _unpack(data, bits, count, dtype)
    try:
        codes: Tensor = OPS["unpack_bits"].kernel(name)(data.contiguous(), bits, count, dtype)
    except RuntimeError as error:
        raise _as_value_error(error) from None
    return codes


def _check_bits(bits: int) -> None:
    if not isinstance(bits, int) or not 1 <= bits <= MAX_BITS:
        raise ValueError(f"bits: wanted an integer in 1..{MAX_BITS}, got {bits!r}")


def _as_value_error(error: RuntimeError) -> Exception:
    """What a kernel says of bad values is an error of the argument, like its shape."""
    text = str(error)
    return ValueError(text) if text.startswith(("codes", "data:")) else error


def _pack(codes: Tensor, bits: int) -> Tensor:
    """Reference: a row of bits a code, cut into bytes."""
    wide = codes.to(torch.int64)
    if not torch.compiler.is_compiling() and bool(((wide >> bits) != 0).any()):
        bad = int(((wide >> bits) != 0).nonzero()[0])
        raise ValueError(
            f"codes[{bad}]: {int(wide[bad])} does not fit {bits} bits, expected 0..{2**bits - 1}"
        )
    place = torch.arange(bits, device=codes.device)
    stream = ((wide.unsqueeze(1) >> place) & 1).to(torch.uint8).reshape(-1)
    padded = torch.nn.functional.pad(stream, (0, -stream.shape[0] % 8)).reshape(-1, 8)
    return (padded << torch.arange(8, device=codes.device, dtype=torch.uint8)).sum(
        1, dtype=torch.uint8
    )


def _unpack(data: Tensor, bits: int, count: int, dtype: torch.dtype) -> Tensor:
    place = torch.arange(8, device=data.device, dtype=torch.uint8)
    stream = ((data.unsqueeze(1) >> place) & 1).reshape(-1)
    used = count * bits
    if not torch.compiler.is_compiling() and bool(stream[used:].any()):
        raise ValueError("data: the bits that fill up the last byte are not 0")
    rows = stream[:used].reshape(count, bits).to(torch.int64)
    return (rows << torch.arange(bits, device=data.device)).sum(1).to(dtype)
