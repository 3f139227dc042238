# SPDX-License-Identifier: Apache-2.0
"""What the Triton kernels promise beyond their values, under the interpreter.

That the values are right is for the suite that all backends share, ``tests/ops``.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from affectcodec import bitpacking
from affectcodec.config import BDRFSQConfig, Block
from affectcodec.kernels import launch
from affectcodec.kernels.backward import backward
from affectcodec.kernels.bits import pack_bits, unpack_bits
from affectcodec.kernels.configs import Tile
from affectcodec.kernels.decode import decode
from affectcodec.kernels.encode import encode
from affectcodec.kernels.fold import fold
from affectcodec.kernels.forward import forward
from affectcodec.kernels.plan import describe, make_plan, unsupported
from tests.kernels.guards import Guarded, guarded_launches, program_order
from tests.kernels.problems import (
    DEFAULT,
    ODD,
    ONE,
    Problem,
    exact_params,
)  # fmt: skip


def latent(width: int, batch: int, frames: int) -> Tensor:
    """``[B, D, T]`` of eighths, a frame after another in memory."""
    return (torch.randint(-40, 41, (batch, frames, width)) / 8).transpose(1, 2)


@pytest.mark.parametrize("tile", [Tile(16, 16, 4), Tile(32, 64, 4)])
def test_tokens_do_not_depend_on_the_tile(tile: Tile) -> None:
    weights = fold(exact_params(ODD), describe(ODD))
    z = latent(ODD.width, 2, 21)
    assert torch.equal(
        encode(z, weights, describe(ODD), tile=tile), encode(z, weights, describe(ODD))
    )


def test_a_frame_that_holds_no_token_decodes_to_nan_alone() -> None:
    problem = Problem.make(DEFAULT)
    tokens = torch.randint(0, DEFAULT.codebook_size, (1, 8, 5), dtype=torch.int32)
    sound = decode(tokens, problem.weights, problem.description)
    for bad in (-1, DEFAULT.codebook_size, 2**31 - 1, -(2**31)):
        damaged = tokens.clone()
        damaged[0, 3, 2] = bad
        u = decode(damaged, problem.weights, problem.description)
        assert bool(u[..., 2].isnan().all())
        assert torch.equal(u[..., [0, 1, 3, 4]], sound[..., [0, 1, 3, 4]])


def run_all(problem: Problem, *, turned: bool = False) -> list[Tensor]:
    """Every op once, in layouts that leave ragged tiles."""
    description, weights = problem.description, problem.weights
    torch.manual_seed(1)  # called several times, for the same numbers each time
    z = latent(problem.config.width, 2, 37)
    counts = torch.tensor([[3, 1, 2], [-4, 3, 2**40]])
    tile = Tile(16, 16, 4, outputs=16, turned=turned)
    us, tokens, saved = forward(z, weights, description, counts, (1,), tile=tile)
    grads = [torch.linspace(-1, 1, u.numel()).view(u.shape) for u in us]
    dz, params = backward(
        grads, (0, 1), z, saved, weights, problem.params, description, counts, (1,), tile=tile
    )
    encoded = encode(z, weights, description, tile=tile)
    u = decode(encoded, weights, description, None, True, torch.float16, tile=tile)
    packed = pack_bits(encoded.flatten(), 20)
    back = unpack_bits(packed, 20, encoded.numel(), torch.int32)
    return [*us, tokens, dz, *params, encoded, u, packed, back]


@pytest.mark.parametrize("turned", [False, True])
def test_no_op_strays_from_its_buffers(poisoned_empty: None, turned: bool) -> None:
    problem = Problem.make(ODD)
    plain = run_all(problem)
    with guarded_launches():
        guarded = run_all(problem, turned=turned)
    # Fresh memory was NaN: equal results also mean that nothing unwritten was used.
    for a, b in zip(plain, guarded, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("where", [-1, 2, 9])
def test_the_guards_catch_what_strays(where: int) -> None:
    tensor = torch.arange(9.0)[1:8:3]  # places 0, 3 and 6 of what is copied
    guarded = Guarded(tensor)
    guarded.check()
    assert torch.equal(guarded.copy, tensor)
    memory = guarded.copy.as_strided((1,), (1,), guarded.copy.storage_offset() + where)
    assert bool(memory.isnan())
    memory.zero_()
    with pytest.raises(AssertionError, match="outside"):
        guarded.check()


@pytest.mark.parametrize("order", ["reverse", "shuffled"])
def test_results_do_not_depend_on_the_order_of_programs(order: str) -> None:
    problem = Problem.make(ODD)
    expected = run_all(problem)
    with program_order(order):
        found = run_all(problem, turned=order == "shuffled")
    for a, b in zip(expected, found, strict=True):
        assert torch.equal(a, b)


def test_64_bit_offsets_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = Problem.make(ODD)
    expected = run_all(problem)
    monkeypatch.setattr(launch, "spans_wide", lambda *tensors: True)
    for a, b in zip(expected, run_all(problem), strict=True):
        assert torch.equal(a, b)


def test_64_bit_offsets_are_chosen_where_a_tile_spans_them() -> None:
    def strided(channel: int, frame: int) -> Tensor:
        return torch.empty(1, device="meta").as_strided((2, 8, 8), (2**40, channel, frame))

    assert not launch.spans_wide(strided(1, 1024))
    assert not launch.spans_wide(strided(2**21, 1), None)
    assert launch.spans_wide(strided(2**22, 1))
    assert launch.spans_wide(strided(1, 1), strided(1, 2**23))


@pytest.mark.parametrize("shape", [(0, 5), (2, 0)])
def test_empty_input(shape: tuple[int, int]) -> None:
    problem = Problem.make(ONE)
    z = torch.empty(shape[0], ONE.width, shape[1])
    us, tokens, saved = forward(z, problem.weights, problem.description)
    assert us[0].shape == z.shape and tokens.shape == (shape[0], 1, shape[1])
    dz, grads = backward(us, (0,), z, saved, problem.weights, problem.params, problem.description)
    assert dz.shape == z.shape and all(not bool(g.any()) for g in grads)
    assert decode(tokens, problem.weights, problem.description).shape == z.shape
    empty = pack_bits(torch.empty(0, dtype=torch.int32), 15)
    assert empty.shape == (0,) and unpack_bits(empty, 15, 0).shape == (0,)


@pytest.mark.parametrize("bits", [1, 3, 8, 15, 16, 31, 33, 57, 63])
@pytest.mark.parametrize("count", [1, 1500])
def test_packed_bits_are_those_of_the_format(bits: int, count: int) -> None:
    codes = torch.randint(0, 2 ** min(bits, 62), (count,))
    codes[0] = 2**bits - 1
    codes = codes.int() if bits <= 31 else codes
    packed = pack_bits(codes, bits)
    assert packed.numpy().tobytes() == bitpacking.pack_bits(codes.numpy(), bits)
    assert torch.equal(unpack_bits(packed, bits, count, codes.dtype), codes)


def test_mistakes_are_named() -> None:
    problem = Problem.make(ONE)
    z = torch.randn(1, ONE.width, 3)
    with pytest.raises(ValueError, match="z: wanted \\[B, 5, T\\]"):
        encode(z[:, :4], problem.weights, problem.description)
    with pytest.raises(ValueError, match="z: wanted float32"):
        encode(z.double(), problem.weights, problem.description)
    with pytest.raises(ValueError, match="weights: wanted"):
        encode(z, problem.weights[:-1], problem.description)
    with pytest.raises(ValueError, match="rates"):
        forward(z, problem.weights, problem.description, None, (1,))
    with pytest.raises(ValueError, match="counts"):
        forward(z, problem.weights, problem.description, torch.ones(1, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match="bits"):
        pack_bits(torch.zeros(1, dtype=torch.int32), 64)
    with pytest.raises(ValueError, match="data"):
        unpack_bits(torch.zeros(3, dtype=torch.uint8), 8, 2)
    large = describe(BDRFSQConfig(blocks=(Block("x", 8, (2,) * 8),), num_stages=64))
    assert "1024 columns" in unsupported(large)
    with pytest.raises(NotImplementedError, match="use another backend"):
        make_plan(large)
