# SPDX-License-Identifier: Apache-2.0
"""Every Triton op against the reference, under the interpreter."""

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
from affectcodec.nn import BDRFSQ
from tests.kernels.guards import Guarded, guarded_launches, program_order
from tests.kernels.problems import (
    CONFIGS,
    DEFAULT,
    ODD,
    ONE,
    WIDE,
    Problem,
    digits_by_hand,
    exact_params,
)  # fmt: skip

ONE_ULP = {torch.float32: 2e-6, torch.float16: 2**-10, torch.bfloat16: 2**-7}


def latent(shape: tuple[int, int, int], dtype: torch.dtype, layout: str) -> Tensor:
    """``[B, D, T]`` of eighths, exact in every type, in one of several memory orders."""
    batch, width, length = shape
    if layout == "channels":
        return (torch.randint(-40, 41, (batch, length, width)) / 8).to(dtype).transpose(1, 2)
    if layout == "sliced":
        memory = (torch.randint(-40, 41, (batch, width * 2 + 3, length * 3 + 1)) / 8).to(dtype)
        return memory[:, 1 : 2 * width + 1 : 2, 1 : 3 * length + 1 : 3]
    if layout == "batch inside":
        memory = (torch.randint(-40, 41, (width, length, batch)) / 8).to(dtype)
        return memory.permute(2, 0, 1)
    return (torch.randint(-40, 41, shape) / 8).to(dtype)


def close(a: Tensor, b: Tensor) -> None:
    """Within one unit in the last place of `a`: the interpreter truncates bfloat16."""
    tolerance = ONE_ULP[a.dtype]
    torch.testing.assert_close(
        a.double(), b.double(), rtol=tolerance, atol=tolerance, equal_nan=True
    )


@pytest.mark.parametrize(
    ("name", "dtype", "shape", "layout"),
    [
        ("default", torch.float32, (2, 67), "dense"),
        ("default", torch.float16, (1, 64), "channels"),
        ("default", torch.bfloat16, (2, 5), "sliced"),
        ("default", torch.float32, (1, 1), "channels"),
        ("odd", torch.float32, (3, 7), "batch inside"),
        ("odd", torch.float16, (1, 1), "dense"),
        ("one", torch.bfloat16, (2, 3), "channels"),
        ("wide", torch.float32, (1, 4), "dense"),
    ],
)
def test_tokens_are_exact_given_exact_projections(
    name: str, dtype: torch.dtype, shape: tuple[int, int], layout: str
) -> None:
    config = CONFIGS[name]
    weights = fold(exact_params(config), describe(config))
    z = latent((shape[0], config.width, shape[1]), dtype, layout)
    tokens = encode(z, weights, describe(config))
    expected = digits_by_hand(z, weights, config)
    assert tokens.dtype == (torch.int64 if config is WIDE else torch.int32)
    assert torch.equal(tokens.long(), expected)
    assert tokens.unique().numel() > 1  # not all alike, which would prove little
    last = encode(z.transpose(1, 2), weights, describe(config), channels_last=True)
    assert torch.equal(last, tokens)


@pytest.mark.parametrize("tile", [Tile(16, 16, 4), Tile(32, 64, 4)])
def test_tokens_do_not_depend_on_the_tile(tile: Tile) -> None:
    weights = fold(exact_params(ODD), describe(ODD))
    z = latent((2, ODD.width, 21), torch.float32, "dense")
    assert torch.equal(
        encode(z, weights, describe(ODD), tile=tile), encode(z, weights, describe(ODD))
    )


@pytest.mark.parametrize(
    ("name", "dtype", "counted", "rates", "layout"),
    [
        ("default", torch.float32, True, (2, 4), "dense"),
        ("default", torch.bfloat16, False, (1,), "channels"),
        ("default", torch.float16, True, (3, 5, 6), "sliced"),
        ("odd", torch.float32, True, (1, 2), "channels"),
        ("odd", torch.float32, False, (), "dense"),
        ("one", torch.float32, True, (), "batch inside"),
        ("wide", torch.float32, False, (1,), "dense"),
    ],
)
def test_forward_and_decode_agree_with_the_reference(
    name: str, dtype: torch.dtype, counted: bool, rates: tuple[int, ...], layout: str
) -> None:
    problem = Problem.make(CONFIGS[name])
    config = problem.config
    z = torch.randn(2, config.width, 19)
    z = (z.transpose(1, 2).contiguous().transpose(1, 2) if layout == "channels" else z).to(dtype)
    counts = None
    if counted:
        counts = torch.randint(0, config.num_stages + 1, (2, len(config.blocks)))
        counts[0, 0] = config.num_stages
    us, tokens, saved = forward(z, problem.weights, problem.description, counts, rates)
    module = problem.module.double()
    out = module(z.double(), stages=counts, rates=rates)
    same = (tokens == out.tokens.to(tokens.dtype)).all(1)  # frames without a flip at a boundary
    assert float(same.float().mean()) > 0.95
    keep = same[:, None, :].expand_as(us[0])
    for u, expected in zip(us, [*(out.rates[r] for r in rates), out.latent], strict=True):
        assert u.dtype == dtype and u.is_contiguous()
        close(u[keep], expected[keep])
    if counts is None:  # later digits depend on which earlier stages are on
        assert torch.equal(tokens, encode(z, problem.weights, problem.description))
    decoded = decode(tokens, problem.weights, problem.description, counts, dtype=dtype)
    close(decoded, us[-1])
    assert saved.shape == (config.num_stages * config.code_dim * 64,)


def test_decode_of_fewer_stages_and_of_counts_by_frame() -> None:
    problem = Problem.make(DEFAULT)
    tokens = torch.randint(0, DEFAULT.codebook_size, (2, 3, 17), dtype=torch.int32)
    counts = torch.randint(0, 4, (2, 2, 17))
    u = decode(tokens, problem.weights, problem.description, counts.int(), channels_last=True)
    expected = problem.module.double().decode(tokens, counts, channels_last=True)
    assert u.shape == (2, 17, DEFAULT.width) and u.is_contiguous()
    close(u, expected)


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


def test_nan_and_infinity_stay_in_their_frame() -> None:
    problem = Problem.make(DEFAULT)
    z = torch.randn(1, DEFAULT.width, 6)
    clean = encode(z, problem.weights, problem.description)
    z[0, 20, 1] = float("nan")
    z[0, 3, 4] = float("inf")
    z[0, :5, 5] = float("-inf")
    us, tokens, _ = forward(z, problem.weights, problem.description)
    assert bool((tokens[..., 1] == -1).all())
    assert bool(((tokens >= -1) & (tokens < DEFAULT.codebook_size)).all())
    assert bool((tokens[..., 4:] >= 0).all())
    others = [0, 2, 3]
    assert torch.equal(tokens[..., others], clean[..., others])
    assert bool(us[0][0, 16:, 1].isnan().all())
    assert bool(us[0][..., others].isfinite().all())


@pytest.mark.parametrize(
    ("name", "counted", "rates", "present", "bound"),
    [
        ("default", True, (2, 4), (0, 1, 2), "tanh"),
        ("default", False, (3,), (0,), "tanh"),
        ("odd", True, (1, 2), (0, 2), "clamp"),
        ("odd", False, (), (0,), "tanh"),
        ("one", True, (), (0,), "clamp"),
    ],
)
def test_gradients_agree_with_float64_autograd(
    name: str, counted: bool, rates: tuple[int, ...], present: tuple[int, ...], bound: str
) -> None:
    base = CONFIGS[name]
    config = BDRFSQConfig(base.blocks, base.num_stages, bound)
    problem = Problem.make(config)
    z = torch.randn(2, config.width, 70 if name == "default" else 11)
    counts = None
    if counted:
        counts = torch.randint(0, config.num_stages + 1, (2, len(config.blocks)))
        counts[1] = config.num_stages
    _, tokens, saved = forward(z, problem.weights, problem.description, counts, rates)
    cotangents = [torch.randn_like(z) for _ in present]
    cotangents[0] = cotangents[0][:, :, :1].expand_as(z)  # as a sum's gradient comes
    params = problem.params
    dz, grads = backward(
        cotangents, present, z, saved, problem.weights, params, problem.description, counts, rates
    )

    naive = BDRFSQ(config, form="naive").double()
    naive.load_state_dict(problem.module.double().state_dict())
    leaves: list[Tensor] = []
    for block in config.names:
        m = naive.blocks[block]
        leaves += [m.W, m.c, m.O, m.e, m.scale_logit, m.shift]
    point = z.double().requires_grad_()
    out = naive(point, stages=counts, rates=rates)
    assert torch.equal(out.tokens, tokens), "a digit flipped: choose another seed"
    latents = [*(out.rates[r] for r in rates), out.latent]
    total = sum((latents[i] * g).sum() for i, g in zip(present, cotangents, strict=True))
    expected = torch.autograd.grad(
        total, [point, *leaves], allow_unused=True, materialize_grads=True
    )
    for got, want in zip([dz, *grads], expected, strict=True):
        assert got.shape == want.shape and got.dtype == torch.float32
        scale = float(want.abs().max()) + 1e-3
        assert float((got - want).abs().max()) < 2e-5 * scale
    again = backward(
        cotangents, present, z, saved, problem.weights, params, problem.description, counts, rates
    )
    for first, second in zip([dz, *grads], [again[0], *again[1]], strict=True):
        assert torch.equal(first, second)


def run_all(problem: Problem) -> list[Tensor]:
    """Every op once, in layouts that leave ragged tiles."""
    description, weights = problem.description, problem.weights
    torch.manual_seed(1)  # called several times, for the same numbers each time
    z = latent((2, problem.config.width, 37), torch.float32, "channels")
    counts = torch.tensor([[3, 1, 2], [-4, 3, 2**40]])
    tile = Tile(16, 16, 4, outputs=16)
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


def test_no_op_strays_from_its_buffers(poisoned_empty: None) -> None:
    problem = Problem.make(ODD)
    plain = run_all(problem)
    with guarded_launches():
        guarded = run_all(problem)
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
        found = run_all(problem)
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
