# SPDX-License-Identifier: Apache-2.0
"""Bit packing, compiled and NumPy, in bytes of int32 tokens a second.

    .venv/bin/python -m pytest -s benchmarks/bench_bitpacking.py

The compiled form is timed where it was built. Every form is checked before it is timed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from affectcodec import _native, bitpacking

COUNT = 1_000_000  # tokens: 4 MB, past most L2 caches
FORMS = ["numpy"] + (["native"] if _native.load().available else [])


def functions(form: str) -> tuple[Callable[..., bytes], Callable[..., Any]]:
    """pack(codes, bits) and unpack(stream, bits, count) -> int64."""
    if form == "numpy":
        return bitpacking._pack_numpy, bitpacking._unpack_numpy
    module: Any = _native.load().module
    return module.pack_bits, module.unpack_bits


@pytest.fixture(params=[3, 12, 15, 30])
def bits(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def timed(benchmark: Any, call: Callable[[], Any]) -> None:
    benchmark(call)
    if benchmark.stats is not None:
        rate = 4 * COUNT / benchmark.stats.stats.min / 1e9
        benchmark.extra_info["GB_per_s_of_int32_tokens"] = round(rate, 2)
        print(f" {rate:.2f} GB/s of int32 tokens, best round")


@pytest.mark.parametrize("form", FORMS)
def test_pack(benchmark: Any, form: str, bits: int) -> None:
    codes = np.random.default_rng(0).integers(0, 1 << bits, COUNT).astype(np.int32)
    pack, unpack = functions(form)
    stream = np.frombuffer(pack(codes, bits), np.uint8)
    np.testing.assert_array_equal(unpack(stream, bits, COUNT), codes)
    timed(benchmark, lambda: pack(codes, bits))


@pytest.mark.parametrize("form", FORMS)
def test_unpack(benchmark: Any, form: str, bits: int) -> None:
    codes = np.random.default_rng(0).integers(0, 1 << bits, COUNT).astype(np.int32)
    pack, unpack = functions(form)
    stream = np.frombuffer(pack(codes, bits), np.uint8)
    np.testing.assert_array_equal(unpack(stream, bits, COUNT), codes)
    timed(benchmark, lambda: unpack(stream, bits, COUNT))
