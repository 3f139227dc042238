# SPDX-License-Identifier: Apache-2.0
"""Every kernel backend against the stage-by-stage form in float64: tokens, latents.

One suite for all of them: compiled C++ on this CPU, Triton under its interpreter.
"""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from affectcodec.config import BDRFSQConfig, Block
from affectcodec.nn import BDRFSQ
from affectcodec.ops import fsq, use_backend
from affectcodec.ops.bd_rfsq import decode_block
from affectcodec.ops.bd_rfsq.folding import digits_of, fold_block
from tests.ops.backends import Candidate, covering, on_every_backend
from tests.ops.quantizers import CONFIGS, assert_close, latent, quantizer, settled
from tests.ops.quantizers import specification as spec

SHAPES = [(1, 1), (1, 7), (2, 64), (3, 65), (5, 3), (1, 200)]
LAYOUTS = (False, True)  # channels_last
both_layouts = pytest.mark.parametrize("channels_last", LAYOUTS, ids=["BDT", "BTD"])


@both_layouts
@pytest.mark.parametrize("name", list(CONFIGS))
@on_every_backend
def test_tokens_are_those_of_the_specification(
    backend: Candidate, name: str, channels_last: bool
) -> None:
    """Fewer than 1 digit in 10,000 may fall the other way; a step of one beside a threshold."""
    config = CONFIGS[name]
    q = quantizer(config)
    frames = backend.some(500)
    z = latent(config, 2, frames, channels_last)
    tokens = q.encode(z, channels_last=channels_last).long()
    with use_backend("reference"):
        wanted = spec(q).encode(z.double(), channels_last=channels_last).long()
    assert tokens.shape == wanted.shape == (2, config.num_stages, frames)
    first = 0
    digits = 0
    for block in config.blocks:
        for level in block.levels:
            step = (tokens % level - wanted % level).abs()
            digits += step.numel()
            first += int((step[:, 0] > 0).sum())
            assert int(step[:, 0].max()) <= 1
            tokens, wanted = tokens // level, wanted // level
    # Later stages amplify what an earlier one decided, so only the first is counted strictly.
    coarse = max(level for block in config.blocks for level in block.levels) <= 8
    assert first <= (2 if coarse else 40)


@pytest.mark.parametrize(
    ("backend", "dtype", "channels_last", "name"),
    covering(
        *itertools.product(
            (torch.float32, torch.bfloat16, torch.float16), LAYOUTS, ("default", "odd", "clamp")
        ),
        some=5,
    ),
    indirect=["backend"],
)
def test_latents_tokens_and_rates(
    backend: Candidate, dtype: torch.dtype, channels_last: bool, name: str
) -> None:
    config = CONFIGS[name]
    q = quantizer(config)
    rates = tuple(range(1, config.num_stages + 1))
    z = settled(q, latent(config, 2, 70, channels_last).to(dtype).float(), channels_last).to(dtype)
    out = q(z, rates=rates, channels_last=channels_last)
    with use_backend("reference"):
        want = spec(q)(z.double(), rates=rates, channels_last=channels_last)
    assert torch.equal(out.tokens, q.encode(z, channels_last=channels_last))
    assert torch.equal(out.tokens, want.tokens)
    assert out.latent.dtype == dtype
    tolerance = {torch.float32: 2e-6, torch.bfloat16: 5e-3, torch.float16: 6e-4}[dtype]
    if not backend.rounds_bfloat16 and dtype is torch.bfloat16:
        tolerance = 1e-2
    assert_close(out.latent, want.latent, "latent", tolerance)
    for rate in rates:
        assert_close(out.rates[rate], want.rates[rate], f"rate {rate}", tolerance)
    decoded = q.decode(out.tokens, channels_last=channels_last)
    assert_close(decoded, want.latent, "decoded", 2e-6)
    if backend.narrow_is_rounded:
        assert torch.equal(decoded.to(dtype), out.latent)


def steps_between(a: torch.Tensor, b: torch.Tensor) -> int:
    """Largest distance of two 16-bit float tensors, in representable values."""

    def place(x: torch.Tensor) -> torch.Tensor:
        bits = x.contiguous().view(torch.int16).int()
        return torch.where(bits < 0, -(bits & 0x7FFF), bits)

    return int((place(a) - place(b)).abs().max())


@pytest.mark.parametrize("stages", [None, 1, {"a": 1, "c": 2}, "sample", "frame"], ids=str)
@both_layouts
@on_every_backend
def test_decoding_and_its_gradient(backend: Candidate, stages, channels_last: bool) -> None:
    q = quantizer(CONFIGS["odd"])
    tokens = q.encode(latent(q.config, 3, 70))
    if stages == "sample":
        stages = torch.randint(0, 4, (3, 3))
    elif stages == "frame":
        stages = torch.randint(0, 4, (3, 3, 70))
    results = []
    cotangent = torch.randn(3, 70, q.config.width) if channels_last else None
    for kept in (3, 2):
        for name in (backend.name, "reference"):
            with use_backend(name):
                u = q.decode(tokens[:, :kept], stages, channels_last=channels_last)
            g = torch.randn(u.shape, generator=torch.Generator().manual_seed(1))
            g = g if cotangent is None else cotangent
            params = list(q.parameters())
            grads = torch.autograd.grad(u, params, g, materialize_grads=True, allow_unused=True)
            results.append((u, *grads))
        for a, b in zip(*results[-2:], strict=True):
            assert_close(a, b, f"{kept} stages", 1e-5)


@on_every_backend
def test_odd_strides_and_expanded_input(backend: Candidate) -> None:
    q = quantizer(CONFIGS["odd"])
    width = q.config.width
    wide = torch.randn(4, 2 * width, 150)
    views = [
        wide[::2, ::2, 1::2],
        wide[:, :width].transpose(0, 2)[:100].transpose(0, 2),
        torch.randn(1, width, 1).expand(3, width, 80),
        torch.randn(width, 2, 70).transpose(0, 1),
        torch.randn(70, width, 2).permute(2, 1, 0),
        torch.randn(2, 70, width).mT,
        torch.randn(2 * width * 70 + 1)[1:].view(2, width, 70),
    ]
    for view in views:
        plain = view.clone(memory_format=torch.contiguous_format)
        assert torch.equal(q.encode(view), q.encode(plain))
        assert torch.equal(q(view).latent, q(plain).latent)
        last = view.mT
        assert torch.equal(q.encode(last, channels_last=True), q.encode(plain))


@on_every_backend
def test_outputs_into_given_tensors(backend: Candidate) -> None:
    q = quantizer(CONFIGS["odd"])
    z = latent(q.config, 2, 70)
    tokens = torch.full((2, 3, 70), 7, dtype=torch.int32)
    assert q.encode(z, out=tokens) is tokens
    assert torch.equal(tokens, q.encode(z))
    strided = torch.empty(2, 70, 3, dtype=torch.int32).mT
    assert torch.equal(q.encode(z, out=strided), tokens)
    u = torch.empty(2, q.config.width, 70)
    assert q.decode(tokens, out=u) is u
    assert torch.equal(u, q.decode(tokens))
    with pytest.raises((RuntimeError, ValueError), match="out: wanted"):
        q.encode(z, out=torch.empty(2, 3, 71, dtype=torch.int32))
    with pytest.raises((RuntimeError, ValueError), match="out: wanted"):
        q.decode(tokens, out=torch.empty(2, 3, 70))


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("channels_last", [False, True], ids=["BDT", "BTD"])
def test_a_forward_pass_into_an_earlier_result(backend: str, channels_last: bool) -> None:
    q = quantizer(CONFIGS["odd"])
    stages = {"a": 2, "b": 3, "c": 1}
    with use_backend(backend), torch.no_grad():
        first, second = (latent(q.config, 2, 70, channels_last) for _ in range(2))
        want = q(second, stages, rates=(3, 1), channels_last=channels_last)
        out = q(first, stages, rates=(1, 3), channels_last=channels_last)
        places = [out.latent.data_ptr(), out.tokens.data_ptr(), out.rates[1].data_ptr()]
        got = q(second, stages, rates=(3, 1), channels_last=channels_last, out=out)
        found = [got.latent.data_ptr(), got.tokens.data_ptr(), got.rates[1].data_ptr()]
        assert places == found and got.rates[3] is got.latent
        for a, b in ((got.latent, want.latent), (got.tokens, want.tokens)):
            assert torch.equal(a, b)
        assert torch.equal(got.rates[1], want.rates[1])
        with pytest.raises(ValueError, match=r"out: wanted the latents of rates \[2\]"):
            q(second, rates=(2,), channels_last=channels_last, out=out)
        with pytest.raises((ValueError, RuntimeError), match="out: wanted"):
            q(second[:1], channels_last=channels_last, out=out)
    with use_backend(backend), pytest.raises(RuntimeError, match="out: takes no gradient"):
        q(second, channels_last=channels_last, out=out)


@on_every_backend
def test_infinite_values_stay_in_the_codebook_and_nan_is_marked(backend: Candidate) -> None:
    q = quantizer(CONFIGS["odd"])
    z = latent(q.config, 2, 70)
    clean = q.encode(z)
    z[0, 3, 0], z[0, :37, 1], z[1, 40, 69] = math.inf, -math.inf, math.nan
    tokens = q.encode(z)
    assert int(tokens[0].min()) >= 0 and int(tokens.max()) < q.config.codebook_size
    assert tokens[1, :, 69].tolist() == [-1] * 3
    assert torch.equal(tokens[0, :, 2:], clean[0, :, 2:])
    assert torch.equal(tokens[1, :, :69], clean[1, :, :69])
    out = q(z).latent
    assert bool(out[1, 37:42, 69].isnan().all())
    assert bool(out[1, :37, 69].isfinite().all()) and bool(out[1, 42:, 69].isfinite().all())
    if backend.checks_tokens:
        with pytest.raises(ValueError, match="NaN"):
            q.decode(tokens)
    else:
        u = q.decode(tokens)
        assert bool(u[1, :, 69].isnan().all())
        assert bool(u[0].isfinite().all()) and bool(u[1, :, :69].isfinite().all())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@both_layouts
@on_every_backend
def test_half_precision_is_read_and_rounded_as_torch_does(
    backend: Candidate, dtype: torch.dtype, channels_last: bool
) -> None:
    """Every 16-bit pattern in; rounding of the latent out."""
    q = quantizer(CONFIGS["one"])
    with torch.no_grad():
        block = q.blocks["only"]
        block.W.fill_(1.0), block.O.fill_(1.0), block.c.zero_(), block.shift.zero_()
        block.scale_logit.fill_(0.5)
    bits = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
    z = bits.view(dtype).reshape(1, 1, -1)
    if dtype is torch.bfloat16 and not backend.reads_subnormals:
        z = torch.where(z.float().abs() < torch.finfo(torch.float32).tiny, 0.0, z.float()).to(dtype)
    z = z.mT.contiguous() if channels_last else z
    assert torch.equal(
        q.encode(z, channels_last=channels_last), q.encode(z.float(), channels_last=channels_last)
    )
    values = torch.randn(3000) * torch.logspace(-9, 5, 3000)
    for value in values[:: 10 if backend.quick else 100].tolist():
        with torch.no_grad():
            block.e.fill_(value)
        probe = q(torch.zeros(1, 1, 1, dtype=dtype)).latent
        exact = q(torch.zeros(1, 1, 1)).latent
        if backend.rounds_bfloat16 or dtype is torch.float16:
            assert torch.equal(probe, exact.to(dtype)), value
        else:
            assert steps_between(probe, exact.to(dtype)) <= 1, value


@pytest.mark.parametrize("shape", [(0, 4), (3, 0), (0, 0)], ids=str)
@both_layouts
@on_every_backend
def test_empty_input(backend: Candidate, shape, channels_last: bool) -> None:
    q = quantizer(CONFIGS["odd"])
    z = latent(q.config, *shape, channels_last).requires_grad_(True)
    out = q(z, rates=(1,), channels_last=channels_last)
    assert out.latent.shape == out.rates[1].shape == z.shape
    assert out.tokens.shape == (shape[0], 3, shape[1])
    out.latent.sum().backward()
    assert z.grad is not None and z.grad.shape == z.shape
    assert all(p.grad is not None and not p.grad.any() for p in q.parameters())
    assert q.decode(out.tokens, channels_last=channels_last).shape == z.shape


@on_every_backend
def test_a_bad_count_tensor_is_an_error_and_odd_counts_are_clamped(backend: Candidate) -> None:
    q = quantizer(CONFIGS["odd"])
    z = latent(q.config, 2, 5)
    with pytest.raises(ValueError, match="stages"):
        q(z, torch.zeros(3, 3, dtype=torch.int64))
    low, high = torch.full((2, 3), -5), torch.full((2, 3), 2**40)
    assert not q(z, low).latent.any()
    assert torch.equal(q(z, high).latent, q(z).latent)


# -- given sums ---------------------------------------------------------------------------------


def exact(q: BDRFSQ) -> BDRFSQ:
    """Weights of few bits, so that sums with latents of few bits are the same in any order."""
    with torch.no_grad():
        for name, p in q.named_parameters():
            if name.endswith((".W", ".O")):
                p.copy_((p * 16).round() / 16)
    return q


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["default", "odd", "clamp", "levels", "dims", "many"])
@on_every_backend
def test_digits_of_exact_projections_are_the_recurrence_to_the_bit(
    backend: Candidate, name: str, dtype: torch.dtype
) -> None:
    config = CONFIGS[name]
    q = exact(quantizer(config))
    z = torch.randint(-8, 9, (1, config.width, 70)) / 8
    tokens = q.encode(z.to(dtype))[0].t().long()  # [T, K]
    for block in config.blocks:
        params = q.block_params(block.name)
        folded = fold_block(params, block.levels, config.bound)
        frames = z[0, config.block_slices()[block.name]].t().double()
        projections = frames @ params.W.reshape(-1, block.width).t().double()
        digits = digits_of(projections.float(), folded, block.code_dim)
        digits = digits.reshape(70, config.num_stages, block.code_dim)
        for i, level in enumerate(block.levels):
            assert torch.equal(tokens % level, digits[..., i].long()), (block.name, i)
            tokens = tokens // level
    assert not tokens.any()


DYADIC = BDRFSQConfig(
    blocks=(Block("a", 37, (3, 2, 5)), Block("b", 70, (9,)), Block("c", 130, (5, 2, 3, 17, 2))),
    num_stages=4,
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@both_layouts
@on_every_backend
def test_latents_of_exact_sums_are_rounded_once(
    backend: Candidate, channels_last: bool, dtype: torch.dtype
) -> None:
    """Values, output weights and biases of few bits: every sum is exact, the store alone rounds."""
    q = quantizer(DYADIC)
    with torch.no_grad():
        for name, p in q.named_parameters():
            if name.endswith((".O", ".e")):
                p.copy_((p * 64).round() / 64)
            elif name.endswith(".shift"):
                p.zero_()
            elif name.endswith(".scale_logit"):
                p.fill_(math.log(math.expm1(0.9)))  # a scale of 1 up to what float32 can tell
    z = latent(DYADIC, 2, 67, channels_last).to(dtype)
    out = q(z, rates=(1, 2, 3), channels_last=channels_last)
    for rate in (1, 2, 3, 4):
        exactly = torch.zeros(2, 67, DYADIC.width, dtype=torch.float64)
        tokens = out.tokens.long()
        for block in DYADIC.blocks:
            digits = fsq.unpack_digits(tokens % block.codebook_size, block.levels)
            tokens = tokens // block.codebook_size
            params = q.block_params(block.name, torch.float64)
            u = decode_block(digits[:, :rate], params, block.levels).detach()
            exactly[..., DYADIC.block_slices()[block.name]] = (u.mT * 2**12).round() / 2**12
        got = out.latent if rate == 4 else out.rates[rate]
        got = got if channels_last else got.mT
        wanted = exactly.to(dtype)
        assert float(exactly.abs().max()) > 0.3
        if backend.rounds_bfloat16 or dtype is not torch.bfloat16:
            assert torch.equal(got, wanted)
        else:
            assert steps_between(got, wanted) <= 1
