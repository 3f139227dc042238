# SPDX-License-Identifier: Apache-2.0
"""Bit packing on tensors: kernel and reference against the NumPy form, and hostile input."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from affectcodec import bitpacking
from affectcodec.ops import pack_bits, unpack_bits, use_backend
from affectcodec.ops.registry import BACKENDS

SERVING = [name for name in ("reference", "cpu") if name == "reference" or not
           BACKENDS["cpu"].why_missing()]  # fmt: skip


@pytest.fixture(params=SERVING, autouse=True)
def _backend(request: pytest.FixtureRequest):
    with use_backend(request.param):
        yield


@pytest.mark.parametrize("bits", [1, 3, 7, 8, 9, 15, 16, 31, 32, 33, 57, 58, 63])
@pytest.mark.parametrize("count", [0, 1, 2, 7, 8, 9, 100, 257])
def test_the_layout_is_that_of_buffers(bits: int, count: int) -> None:
    codes = np.random.default_rng(bits * 1000 + count).integers(0, 2**bits, count)
    want = bitpacking.pack_bits(codes, bits)
    for dtype in [torch.int64, torch.int32][: 2 if bits <= 31 else 1]:
        packed = pack_bits(torch.from_numpy(codes).to(dtype), bits)
        assert packed.dtype == torch.uint8 and packed.numpy().tobytes() == want
        back = unpack_bits(packed, bits, count, dtype)
        assert back.dtype == dtype and back.tolist() == codes.tolist()


def test_any_shape_and_stride() -> None:
    codes = torch.arange(24, dtype=torch.int32).reshape(2, 3, 4)
    assert torch.equal(pack_bits(codes.mT, 5), pack_bits(codes.mT.contiguous().reshape(-1), 5))
    data = pack_bits(codes, 5)
    spread = torch.zeros(2 * len(data), dtype=torch.uint8)
    spread[::2] = data
    assert unpack_bits(spread[::2], 5, 24).tolist() == list(range(24))


@pytest.mark.parametrize("value", [8, -1, 2**40, -(2**63)])
def test_a_code_that_does_not_fit_is_named(value: int) -> None:
    with pytest.raises(ValueError, match=r"codes\[2\]"):
        pack_bits(torch.tensor([0, 7, value, 9]), 3)


def test_bad_arguments_are_refused() -> None:
    codes = torch.zeros(4, dtype=torch.int32)
    for bits in (0, 64, -1, 2.0):
        with pytest.raises(ValueError, match="bits: wanted"):
            pack_bits(codes, bits)
        with pytest.raises(ValueError, match="bits: wanted"):
            unpack_bits(torch.zeros(1, dtype=torch.uint8), bits, 1)
    with pytest.raises(ValueError, match="codes: wanted an int32 or int64 tensor"):
        pack_bits(codes.float(), 3)
    with pytest.raises(ValueError, match="data: wanted a uint8 tensor"):
        unpack_bits(codes, 3, 1)
    with pytest.raises(ValueError, match="dtype: wanted"):
        unpack_bits(torch.zeros(8, dtype=torch.uint8), 33, 1, torch.int32)


@pytest.mark.parametrize("count", [3, 4, -1, 2**62])
def test_data_of_another_length_is_refused_before_anything_is_made(count: int) -> None:
    with pytest.raises(ValueError, match=f"bytes are not {count} codes of 8 bits"):
        unpack_bits(torch.zeros(5, dtype=torch.uint8), 8, count)


def test_bits_that_fill_up_must_be_zero() -> None:
    with pytest.raises(ValueError, match="fill up the last byte"):
        unpack_bits(torch.tensor([0b10000000], dtype=torch.uint8), 3, 2)
