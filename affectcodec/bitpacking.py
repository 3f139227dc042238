# SPDX-License-Identifier: Apache-2.0
"""Packing of integer codes into the fewest whole bytes, and back.

The layout is one little-endian stream of bits: code ``i`` takes the bits ``i * bits`` to
``(i + 1) * bits - 1``, its lowest bit first, and bit ``j`` of the stream is bit ``j % 8`` of byte
``j // 8``. The last byte is filled up with zeros, so equal codes give equal bytes and ``n`` codes
take exactly ``ceil(n * bits / 8)`` of them.

There are two forms with one meaning: the compiled one in ``affectcodec._C`` and the NumPy one
below, taken where the compiled one was not built.
"""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np
import numpy.typing as npt

from affectcodec import _native

MAX_BITS = 63  # a code has to fit a signed 64-bit integer

Buffer = bytes | bytearray | memoryview


def packed_size(count: int, bits: int) -> int:
    """Bytes that ``count`` codes of ``bits`` bits take.

    Raises:
        ValueError: ``bits`` is not in 1..63 or ``count`` is negative.
    """
    return (_checked_count(count) * _checked_bits(bits) + 7) // 8


def pack_bits(codes: npt.ArrayLike, bits: int) -> bytes:
    """Pack codes into bytes, ``bits`` bits each.

    Args:
        codes: integers [n] in 0..2**bits - 1; int32 and int64 arrays are taken without a copy.
        bits: bits a code takes, 1..63.

    Returns:
        ``packed_size(n, bits)`` bytes.

    Raises:
        TypeError: ``codes`` are not integers that fit int64.
        ValueError: ``codes`` is not one-dimensional, ``bits`` is out of range, or a code does not
            fit; the message names the index of the first such code.
    """
    array, width = _checked_codes(codes), _checked_bits(bits)
    native = _native.load().module
    if native is None:
        return _pack_numpy(array, width)
    packed: bytes = native.pack_bits(array, width)
    return packed


def unpack_bits(
    data: Buffer, bits: int, count: int, dtype: npt.DTypeLike = np.int64
) -> npt.NDArray[Any]:
    """Read ``count`` codes of ``bits`` bits back from what :func:`pack_bits` made.

    Args:
        data: bytes-like, exactly ``packed_size(count, bits)`` long. Untrusted data is fine: its
            length is checked before anything is allocated.
        bits: bits a code takes, 1..63.
        count: number of codes, n.
        dtype: ``np.int64``, or ``np.int32`` for codes of at most 31 bits.

    Returns:
        Codes [n] of ``dtype``.

    Raises:
        ValueError: ``bits``, ``count`` or ``dtype`` is out of range, ``data`` has another length,
            or the bits that fill up the last byte are not zero.
    """
    width, number = _checked_bits(bits), _checked_count(count)
    wanted = np.dtype(dtype)
    if wanted not in (np.dtype(np.int64), np.dtype(np.int32)):
        raise ValueError(f"dtype: expected int64 or int32, got {wanted}")
    if wanted == np.int32 and width > 31:
        raise ValueError(f"dtype: int32 holds at most 31 bits, got bits={width}; use int64")
    stream = _checked_data(data, width, number)
    native = _native.load().module
    if native is None:
        return _unpack_numpy(stream, width, number).astype(wanted, copy=False)
    codes: npt.NDArray[Any] = native.unpack_bits(stream, width, number, wanted.itemsize == 8)
    return codes


def _checked_bits(bits: int) -> int:
    width = operator.index(bits)
    if not 1 <= width <= MAX_BITS:
        raise ValueError(f"bits: expected 1..{MAX_BITS}, got {width}")
    return width


def _checked_count(count: int) -> int:
    number = operator.index(count)
    if number < 0:
        raise ValueError(f"count: expected a number of codes, 0 or more, got {number}")
    return number


def _checked_codes(codes: npt.ArrayLike) -> npt.NDArray[Any]:
    array = np.asarray(codes)
    if array.ndim != 1:
        raise ValueError(
            f"codes: expected one dimension, got shape {array.shape}; use .reshape(-1)"
        )
    if array.size == 0 and not isinstance(codes, np.ndarray):
        array = array.astype(np.int64)  # NumPy reads an empty list as float64
    if array.dtype.kind not in "iu" or not np.can_cast(array.dtype, np.int64):
        raise TypeError(f"codes: expected integers that fit int64, got dtype {array.dtype}")
    native_order = array.dtype.isnative and array.dtype.itemsize in (4, 8)
    if array.dtype.kind != "i" or not native_order:
        array = array.astype(np.int64)
    return np.ascontiguousarray(array)


def _checked_data(data: Buffer, width: int, number: int) -> npt.NDArray[np.uint8]:
    stream = np.frombuffer(data, dtype=np.uint8) if len(data) else np.empty(0, np.uint8)
    wanted = (number * width + 7) // 8
    if stream.size != wanted:
        raise ValueError(
            f"data: {number} codes of {width} bits take {wanted} bytes, got {stream.size}; "
            "pass exactly the packed part"
        )
    used = number * width % 8
    if used and int(stream[-1]) >> used:
        raise ValueError(
            f"data: the upper {8 - used} bits of the last byte fill it up and must be 0, "
            f"got 0x{int(stream[-1]):02x}; the data is damaged or bits/count are not those it "
            "was packed with"
        )
    return stream


def _group(width: int) -> tuple[int, int]:
    """Codes and 64-bit words after which the bit layout repeats."""
    shared = math.gcd(width, 64)
    return 64 // shared, width // shared


# Both loops below run over the at most 64 places of a code inside one repeating group, never over
# the codes: each step moves a whole column of groups.


def _pack_numpy(codes: npt.NDArray[Any], width: int) -> bytes:
    """Pack contiguous int32 or int64 ``codes`` [n]; same result and errors as ``_C.pack_bits``."""
    outside = (codes < 0) | (codes >> width != 0) if width < codes.itemsize * 8 else codes < 0
    if outside.any():
        index = int(outside.argmax())
        raise ValueError(
            f"codes[{index}]: {int(codes[index])} does not fit {width} bits, "
            f"expected 0..{(1 << width) - 1}"
        )
    places, words_per_group = _group(width)
    groups = -(-codes.size // places)
    padded = np.zeros(groups * places, np.uint64)
    padded[: codes.size] = codes
    columns = padded.reshape(groups, places)
    words = np.zeros((groups, words_per_group), np.uint64)
    for place in range(places):
        word, shift = divmod(place * width, 64)
        words[:, word] |= columns[:, place] << np.uint64(shift)
        if shift + width > 64:
            words[:, word + 1] |= columns[:, place] >> np.uint64(64 - shift)
    size = (codes.size * width + 7) // 8
    return words.astype("<u8", copy=False).view(np.uint8).reshape(-1)[:size].tobytes()


def _unpack_numpy(stream: npt.NDArray[np.uint8], width: int, count: int) -> npt.NDArray[np.int64]:
    """Unpack a checked uint8 ``stream`` into int64 [count]; same result as ``_C.unpack_bits``."""
    places, words_per_group = _group(width)
    groups = -(-count // places)
    padded = np.zeros(groups * words_per_group * 8, np.uint8)
    padded[: stream.size] = stream
    words = padded.view("<u8").astype(np.uint64, copy=False).reshape(groups, words_per_group)
    columns = np.empty((groups, places), np.uint64)
    mask = np.uint64((1 << width) - 1)
    for place in range(places):
        word, shift = divmod(place * width, 64)
        value = words[:, word] >> np.uint64(shift)
        if shift + width > 64:
            value |= words[:, word + 1] << np.uint64(64 - shift)
        np.bitwise_and(value, mask, out=columns[:, place])
    return columns.reshape(-1)[:count].astype(np.int64)
