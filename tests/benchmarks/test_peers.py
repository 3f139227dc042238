# SPDX-License-Identifier: Apache-2.0
"""Peers: equal bits, consistent indices."""

from __future__ import annotations

import math

import pytest
import torch

pytest.importorskip("vector_quantize_pytorch")

from benchmarks import peers
from benchmarks.workload import Size, Workload


@pytest.fixture(scope="module")
def work():
    return Workload(Size(2, 3), smoke=True)


def test_bits_a_frame_are_equal():
    wanted = 8 * Workload(Size(1, 1)).config.token_bits
    bits = {}
    for name, arguments in peers.MODEL_ARGUMENTS.items():
        size = arguments.get("codebook_size") or math.prod(arguments["levels"])
        stages = arguments["num_quantizers"] * arguments.get("groups", 1)
        bits[name] = stages * math.log2(size)
    assert bits == dict.fromkeys(peers.LABELS, wanted)


@pytest.mark.parametrize(
    ("op", "name"),
    [(op, name) for op in ("encode", "forward", "decode") for name in peers.LABELS]
    + [("forward+backward", "grouped-fsq")],
)
def test_calls_pass_their_check(work, op, name):
    entry = peers.contender(op, name, work)
    with torch.inference_mode(op != "forward+backward"):
        call = entry.variants["eager"]()
        remarks = entry.check(call())
    assert entry.units == (6 if name == "grouped-fsq" else 3)
    assert remarks["part"] == (name != "grouped-fsq")


def test_indices_that_decode_to_something_else_fail(work):
    entry = peers.contender("encode", "grouped-fsq", work)
    with torch.inference_mode():
        quantized, indices = entry.variants["eager"]()()
        with pytest.raises(AssertionError, match="decode to another latent"):
            entry.check((quantized * 1.01, indices))
        with pytest.raises(AssertionError, match="outside of the codebook"):
            entry.check((quantized, indices + 4096))


def test_residual_vq_takes_no_part_in_training(work):
    with pytest.raises(ValueError, match="takes no part"):
        peers.contender("forward+backward", "rvq-1024", work)
