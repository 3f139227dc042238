# SPDX-License-Identifier: Apache-2.0
"""Bit packing of tokens: NumPy, the compiled form on buffers, and the operator on tensors."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from affectcodec import _native, bitpacking
from affectcodec.ops.registry import BACKENDS, OPS
from benchmarks.conftest import Race
from benchmarks.contest import Contender, Group, Settings, Work
from benchmarks.pairing import Call

COUNT, FEW = 1_000_000, 1_000  # tokens: 4 MB, past most L2 caches
BITS = (3, 12, 15)  # an emotion code, an acoustic code, a token
LABELS = {
    "numpy": "NumPy",
    "buffers": "AffectCodec, buffers",
    "operator": "AffectCodec, operator",
}


@functools.lru_cache(maxsize=1)
def data(bits: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes int32 and their stream, the latter bit by bit from the definition of the layout."""
    codes = np.random.default_rng(0).integers(0, 1 << bits, count).astype(np.int32)
    each_bit = (codes[:, None] >> np.arange(bits)) & 1
    return codes, np.packbits(each_bit.astype(np.uint8).ravel(), bitorder="little")


def calls(name: str, op: str, bits: int, count: int) -> Call:
    codes, stream = data(bits, count)
    functions: dict[str, Callable[[], Any]]
    if name == "operator":
        pack, unpack = (OPS[n].kernel("cpu") for n in ("pack_bits", "unpack_bits"))
        tensor, packed = torch.from_numpy(codes), torch.from_numpy(stream.copy())
        functions = {
            "pack_bits": lambda: pack(tensor, bits),
            "unpack_bits": lambda: unpack(packed, bits, count, torch.int32),
        }
    elif name == "buffers":
        packed_bytes = stream.tobytes()
        # The public functions; they take the compiled form, which why_missing makes sure of.
        functions = {
            "pack_bits": lambda: bitpacking.pack_bits(codes, bits),
            "unpack_bits": lambda: bitpacking.unpack_bits(packed_bytes, bits, count, np.int32),
        }
    else:
        functions = {
            "pack_bits": lambda: bitpacking._pack_numpy(codes, bits),
            "unpack_bits": lambda: bitpacking._unpack_numpy(stream, bits, count).astype(np.int32),
        }
    return functions[op]


def why_missing(name: str) -> str:
    if name == "buffers":
        return _native.load().reason
    return BACKENDS["cpu"].why_missing() if name == "operator" else ""


def contender(name: str, op: str, bits: int, count: int) -> Contender:
    def check(result: Any) -> dict[str, Any]:
        own = np.frombuffer(result, np.uint8) if isinstance(result, bytes) else np.asarray(result)
        np.testing.assert_array_equal(own, data(bits, count)[op == "pack_bits"])
        return {}

    form = "NumPy" if name == "numpy" else "kernels"
    return Contender(name, LABELS[name], {form: lambda: calls(name, op, bits, count)}, check)


@pytest.mark.parametrize("name", LABELS)
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("op", ["pack_bits", "unpack_bits"])
def test_bit_packing(race: Race, settings: Settings, op: str, bits: int, name: str) -> None:
    if reason := why_missing(name):
        pytest.skip(reason)
    count = FEW if settings.smoke else COUNT
    work = Work(count, 4 + bits / 8, 0.0, unit="token")
    reference = contender("numpy", op, bits, count)
    size = f"{bits} bits, {count:,} tokens"
    race(Group(op, size, work, reference), contender(name, op, bits, count))
