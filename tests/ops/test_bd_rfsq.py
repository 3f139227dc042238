# SPDX-License-Identifier: Apache-2.0
"""One block of BD-RFSQ: the code-space form against the stage-by-stage form."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from affectcodec.ops.bd_rfsq import (
    BlockParams,
    decode_block,
    quantize_codespace,
    quantize_naive,
)

CASES = [
    # levels, width, stages, batch, frames
    ((2,), 1, 1, 1, 1),
    ((2, 2, 2), 7, 8, 2, 9),
    ((4, 3), 13, 5, 3, 4),
    ((9, 2, 5, 7), 33, 3, 1, 11),
    ((4,) * 6, 24, 8, 2, 6),
    ((8, 6, 3), 2, 4, 2, 5),  # more code dims than channels
]


def random_params(
    levels: tuple[int, ...], width: int, stages: int, dtype: torch.dtype = torch.float64
) -> BlockParams:
    dim = len(levels)
    return BlockParams(
        torch.randn(stages, dim, width, dtype=dtype) / width**0.5,
        0.3 * torch.randn(stages, dim, dtype=dtype),
        torch.randn(stages, width, dim, dtype=dtype) / 2,
        0.2 * torch.randn(stages, width, dtype=dtype),
        torch.randn(stages, dim, dtype=dtype),
        0.3 * torch.randn(stages, dim, dtype=dtype),
    )


def leaves(z: Tensor, params: BlockParams) -> list[Tensor]:
    return [tensor.clone().requires_grad_(True) for tensor in (z, *params)]


@pytest.mark.parametrize("bound", ["tanh", "clamp"])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("levels", "width", "stages", "batch", "frames"), CASES)
def test_the_two_forms_agree_in_outputs_and_all_gradients(
    levels: tuple[int, ...],
    width: int,
    stages: int,
    batch: int,
    frames: int,
    masked: bool,
    bound: str,
) -> None:
    params = random_params(levels, width, stages)
    z = torch.randn(batch, width, frames, dtype=torch.float64)
    mask = None
    if masked:  # holes too: any pattern of active stages is a valid one
        mask = torch.randint(0, 2, (batch, stages)).double()
        mask[0] = 0
    rates = tuple(sorted({1, max(1, stages // 2), stages}))
    results, gradients = [], []
    cotangents = [torch.randn_like(z) for _ in range(len(rates) + 1)]
    for quantize in (quantize_naive, quantize_codespace):
        inputs = leaves(z, params)
        out = quantize(inputs[0], BlockParams(*inputs[1:]), levels, bound, mask, rates)
        total = sum((u * g).sum() for u, g in zip(out.latents, cotangents, strict=True))
        # Parameters that no active stage uses have no gradient in the stage-by-stage form.
        grads = torch.autograd.grad(total, inputs, allow_unused=True, materialize_grads=True)
        results.append(out)
        gradients.append(grads)
    naive, fast = results
    assert torch.equal(naive.digits, fast.digits)
    assert naive.digits.dtype == fast.digits.dtype == torch.int32
    for a, b in zip(naive.latents, fast.latents, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-10, atol=1e-10)
    names = ("z", *BlockParams._fields)
    for name, a, b in zip(names, *gradients, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-10, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")
    if not masked and frames > 1:  # a single clamped value may have no slope at all
        assert all(float(a.abs().max()) > 0 for a in gradients[0])


@pytest.mark.parametrize("rate", [1, 2, 3, 4])
def test_the_gradient_of_one_rate_alone(rate: int) -> None:
    levels, width, stages = (4, 2, 3), 11, 4
    params = random_params(levels, width, stages)
    z = torch.randn(2, width, 5, dtype=torch.float64)
    cotangent = torch.randn_like(z)
    found = []
    for quantize in (quantize_naive, quantize_codespace):
        inputs = leaves(z, params)
        out = quantize(inputs[0], BlockParams(*inputs[1:]), levels, "tanh", None, (2, rate))
        found.append(torch.autograd.grad(out.latents[1], inputs, cotangent, materialize_grads=True))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-10, atol=1e-10)
    # Later stages are not part of this rate, so nothing reaches them.
    assert torch.equal(found[1][1][rate:], torch.zeros_like(found[1][1][rate:]))


def test_the_gradient_is_the_derivative_of_the_straight_through_surrogate() -> None:
    """With the rounding error held constant the quantizer is smooth: compare with differences."""
    levels, width, stages = (4, 3), 5, 3
    params = random_params(levels, width, stages)
    z = torch.randn(1, width, 2, dtype=torch.float64)

    def surrogate(point: Tensor, rounding: list[Tensor] | None) -> tuple[Tensor, list[Tensor]]:
        residual, total, errors = point, torch.zeros_like(point), []
        scale = params.scale()
        for k in range(stages):
            s, b = scale[k, :, None], params.shift[k, :, None]
            t = torch.tanh(s * (params.W[k] @ residual + params.c[k, :, None] - b))
            if rounding is None:
                steps = torch.tensor(levels, dtype=torch.float64)[:, None] - 1
                error = 2 * torch.floor(steps * (t + 1) / 2 + 0.5) / steps - 1 - t
            else:
                error = rounding[k]
            errors.append(error)
            o = params.O[k] @ ((t + error) / s + b) + params.e[k, :, None]
            residual, total = residual - o, total + o
        return total, errors

    _, rounding = surrogate(z, None)
    cotangent = torch.randn_like(z)
    point = z.clone().requires_grad_(True)
    out = quantize_codespace(point, params, levels)
    (gradient,) = torch.autograd.grad(out.latents[-1], point, cotangent)
    step = 1e-6
    for index in itertools.product(range(width), range(2)):
        moved = torch.zeros_like(z)
        moved[0, index[0], index[1]] = step
        high, low = (surrogate(z + sign * moved, rounding)[0] for sign in (1, -1))
        numeric = ((high - low) / (2 * step) * cotangent).sum()
        assert abs(float(numeric - gradient[0, index[0], index[1]])) < 1e-7


def test_frozen_parameters_and_a_frozen_latent_are_served() -> None:
    levels = (3, 3)
    params = random_params(levels, 6, 2)
    z = torch.randn(1, 6, 3, dtype=torch.float64)
    moving = z.clone().requires_grad_(True)
    quantize_codespace(moving, params, levels).latents[0].sum().backward()
    assert float(moving.grad.abs().max()) > 0
    weights = [tensor.clone().requires_grad_(True) for tensor in params]
    quantize_codespace(z, BlockParams(*weights), levels).latents[0].sum().backward()
    assert all(weight.grad is not None for weight in weights)


@pytest.mark.parametrize("quantize", [quantize_naive, quantize_codespace])
def test_fresh_memory_is_never_read(quantize, poisoned_empty: None) -> None:
    levels = (4, 2)
    params = random_params(levels, 9, 4)
    inputs = leaves(torch.randn(2, 9, 3, dtype=torch.float64), params)
    out = quantize(inputs[0], BlockParams(*inputs[1:]), levels, "tanh", None, (2,))
    gradients = torch.autograd.grad(out.latents[0].sum() + out.latents[1].sum(), inputs)
    for tensor in (*out.latents, *gradients):
        assert bool(torch.isfinite(tensor).all())


@pytest.mark.parametrize("count", [1, 2, 4])
def test_decoding_the_digits_gives_the_latent(count: int) -> None:
    levels, width, stages = (4, 3, 2), 10, 4
    params = random_params(levels, width, stages)
    z = torch.randn(3, width, 6, dtype=torch.float64)
    out = quantize_codespace(z, params, levels, rates=(count,))
    got = decode_block(out.digits[:, :count], params, levels)
    torch.testing.assert_close(got, out.latents[0], rtol=0, atol=1e-12)
    mask = (torch.arange(stages) < count).double().expand(3, stages)
    masked = quantize_codespace(z, params, levels, mask=mask)
    got = decode_block(out.digits, params, levels, mask[..., None])
    torch.testing.assert_close(got, masked.latents[-1], rtol=0, atol=1e-12)


def test_digits_of_early_stages_do_not_depend_on_later_stages() -> None:
    levels, width = (4, 3), 8
    params = random_params(levels, width, 4)
    z = torch.randn(2, width, 7, dtype=torch.float64)
    whole = quantize_codespace(z, params, levels)
    first = quantize_codespace(z, BlockParams(*(tensor[:2] for tensor in params)), levels)
    assert torch.equal(whole.digits[:, :2], first.digits)
