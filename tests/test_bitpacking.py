# SPDX-License-Identifier: Apache-2.0
"""Bit packing: the layout, the two forms against each other, and hostile input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from affectcodec import _native, bitpacking
from affectcodec.bitpacking import pack_bits, packed_size, unpack_bits

SIZES = (0, 1, 2, 3, 7, 8, 9, 63, 64, 65, 127, 129, 1000)


@pytest.fixture(params=["numpy", "native"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a test once in each form."""
    if request.param == "numpy":
        off = _native.NativeModule("affectcodec._C", None, "test")
        monkeypatch.setattr(_native, "load", lambda name="affectcodec._C": off)
    elif not _native.load().available:
        pytest.skip(_native.load().reason)
    return str(request.param)


def pack_slowly(codes: list[int], bits: int) -> bytes:
    """The layout as the module's docstring states it, in Python's own integers."""
    stream = sum(code << (i * bits) for i, code in enumerate(codes))
    return stream.to_bytes((len(codes) * bits + 7) // 8, "little")


def random_codes(count: int, bits: int, dtype: Any = np.int64) -> np.ndarray:
    rng = np.random.default_rng(count * 64 + bits)
    codes = rng.integers(0, 1 << bits, size=count, dtype=np.uint64).astype(dtype)
    if count:
        codes[-1] = (1 << bits) - 1  # the largest code, where a cut would show
    return codes


def test_layout_is_low_bit_first(form: str) -> None:
    assert pack_bits(np.array([1, 0, 1, 1], np.int32), 1) == bytes([0b1101])
    assert pack_bits(np.array([0x7FFF, 0], np.int32), 15) == bytes([0xFF, 0x7F, 0, 0])
    assert pack_bits(np.array([0x123, 0x456], np.int32), 12) == bytes([0x23, 0x61, 0x45])


@pytest.mark.parametrize("bits", range(1, 64))
def test_matches_the_definition_at_every_width(form: str, bits: int) -> None:
    for count in SIZES:
        codes = random_codes(count, bits)
        packed = pack_bits(codes, bits)
        assert packed == pack_slowly(codes.tolist(), bits)
        assert len(packed) == packed_size(count, bits)
        back = unpack_bits(packed, bits, count)
        assert back.dtype == np.int64
        np.testing.assert_array_equal(back, codes)


@pytest.mark.parametrize("bits", [1, 7, 8, 15, 16, 30, 31])
def test_int32_codes_and_output(form: str, bits: int) -> None:
    codes = random_codes(777, bits, np.int32)
    packed = pack_bits(codes, bits)
    assert packed == pack_bits(codes.astype(np.int64), bits)
    back = unpack_bits(packed, bits, codes.size, dtype=np.int32)
    assert back.dtype == np.int32
    np.testing.assert_array_equal(back, codes)


@pytest.mark.skipif(not _native.load().available, reason=_native.load().reason or "native is on")
@given(bits=st.integers(1, 63), data=st.data())
def test_forms_agree_bit_for_bit(bits: int, data: st.DataObject) -> None:
    native: Any = _native.load().module
    codes = np.array(
        data.draw(st.lists(st.integers(0, (1 << bits) - 1), max_size=200)), dtype=np.int64
    )
    packed = bitpacking._pack_numpy(codes, bits)
    assert native.pack_bits(codes, bits) == packed
    stream = np.frombuffer(packed, np.uint8)
    np.testing.assert_array_equal(
        native.unpack_bits(stream, bits, codes.size, True),
        bitpacking._unpack_numpy(stream, bits, codes.size),
    )


@given(bits=st.integers(1, 63), count=st.integers(0, 300), data=st.binary(max_size=300))
def test_hostile_bytes_give_codes_in_range_or_a_value_error(
    bits: int, count: int, data: bytes
) -> None:
    try:
        codes = unpack_bits(data, bits, count)
    except ValueError as error:
        assert "data" in str(error)
        return
    assert codes.shape == (count,)
    assert pack_bits(codes, bits) == data  # accepted bytes are the only ones for these codes


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@pytest.mark.parametrize(("bits", "bad"), [(15, 32768), (15, -1), (1, 2), (31, -(2**31))])
def test_first_bad_code_is_named(form: str, bits: int, bad: int, dtype: Any) -> None:
    codes = np.zeros(500, dtype)
    codes[[131, 400]] = bad
    with pytest.raises(ValueError, match=rf"codes\[131\]: {bad} does not fit {bits} bits"):
        pack_bits(codes, bits)


def test_negative_code_at_the_widest_setting(form: str) -> None:
    with pytest.raises(ValueError, match=r"codes\[1\]: -1 does not fit 63 bits"):
        pack_bits(np.array([2**63 - 1, -1]), 63)


def test_negative_int32_code_wider_than_its_type(form: str) -> None:
    assert pack_bits(np.array([5], np.int32), 40) == bytes([5, 0, 0, 0, 0])
    with pytest.raises(ValueError, match=r"codes\[0\]: -7 does not fit 40 bits"):
        pack_bits(np.array([-7], np.int32), 40)


@pytest.mark.parametrize("bits", [0, -1, 64, 10**30])
def test_bits_out_of_range(form: str, bits: int) -> None:
    for call in (
        lambda: pack_bits(np.zeros(1, np.int32), bits),
        lambda: unpack_bits(b"\0", bits, 1),
        lambda: packed_size(1, bits),
    ):
        with pytest.raises(ValueError, match="bits: expected 1..63"):
            call()


@pytest.mark.parametrize("count", [9, 7, 10**9, 2**62, 10**40])
def test_count_that_data_cannot_hold_is_refused_before_allocation(form: str, count: int) -> None:
    with pytest.raises(ValueError, match="data: .* take .* bytes, got 15"):
        unpack_bits(bytes(15), 15, count)


def test_negative_count(form: str) -> None:
    with pytest.raises(ValueError, match="count: .* got -1"):
        unpack_bits(b"", 15, -1)


def test_dirty_fill_bits_are_refused(form: str) -> None:
    good = bytearray(pack_bits(np.array([1, 2, 3], np.int32), 15))
    good[-1] |= 0x80
    with pytest.raises(ValueError, match="upper 3 bits of the last byte"):
        unpack_bits(good, 15, 3)


def test_int32_output_refuses_wide_codes(form: str) -> None:
    with pytest.raises(ValueError, match="int32 holds at most 31 bits"):
        unpack_bits(bytes(4), 32, 1, dtype=np.int32)
    with pytest.raises(ValueError, match="expected int64 or int32"):
        unpack_bits(bytes(4), 32, 1, dtype=np.float64)


@pytest.mark.parametrize(
    ("codes", "error"),
    [
        (np.zeros(3, np.float32), TypeError),
        (np.zeros(3, np.bool_), TypeError),
        (np.zeros(3, np.uint64), TypeError),
        (np.zeros((2, 2), np.int32), ValueError),
        (np.int32(3), ValueError),
    ],
)
def test_wrong_kind_of_codes(form: str, codes: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="codes: expected"):
        pack_bits(codes, 15)


def make_strided(codes: np.ndarray) -> np.ndarray:
    return np.repeat(codes, 2)[::2]


@pytest.mark.parametrize(
    "convert",
    [
        make_strided,
        lambda c: c[::-1].copy()[::-1],
        lambda c: c.astype(np.uint16),
        lambda c: c.astype(">i4"),
        lambda c: c.astype(np.int64).tolist(),
    ],
    ids=["strided", "reversed", "uint16", "big-endian", "list"],
)
def test_any_integer_sequence_packs_alike(form: str, convert: Callable[..., Any]) -> None:
    codes = random_codes(99, 15, np.int32)
    assert pack_bits(convert(codes), 15) == pack_bits(codes, 15)


def test_read_only_and_other_buffers(form: str) -> None:
    codes = random_codes(33, 15, np.int32)
    codes.flags.writeable = False
    packed = pack_bits(codes, 15)
    for data in (packed, bytearray(packed), memoryview(packed)):
        np.testing.assert_array_equal(unpack_bits(data, 15, 33), codes)
    assert pack_bits([], 15) == b""
    assert unpack_bits(b"", 15, 0).shape == (0,)
