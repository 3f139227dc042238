# SPDX-License-Identifier: Apache-2.0
"""Every kernel backend's gradients against those of the stage-by-stage form in float64."""

from __future__ import annotations

import contextlib
import itertools

import pytest
import torch

from affectcodec.ops import use_backend
from tests.ops.backends import Candidate, covering, on_every_backend
from tests.ops.quantizers import CONFIGS, SMALL, assert_close, latent, quantizer, settled
from tests.ops.quantizers import specification as spec
from tests.ops.test_kernel_values import LAYOUTS, SHAPES, both_layouts


def check_gradients(q, z, stages, rates, channels_last, *used: str) -> None:
    naive = spec(q)
    cotangents = [torch.randn_like(z) for _ in used]
    found = []
    for module, x in ((q, z.clone()), (naive, z.double())):
        x.requires_grad_(True)
        with contextlib.nullcontext() if module is q else use_backend("reference"):
            out = module(x, stages, rates=rates, channels_last=channels_last)
            outputs = [out.latent if name == "latent" else out.rates[int(name)] for name in used]
            total = sum((u * g).sum() for u, g in zip(outputs, cotangents, strict=True))
            assert isinstance(total, torch.Tensor)
            inputs = [x, *module.parameters()]
            found.append(
                torch.autograd.grad(total, inputs, allow_unused=True, materialize_grads=True)
            )
    names = ["z", *(name for name, _ in q.named_parameters())]
    for name, got, want in zip(names, *found, strict=True):
        assert_close(got, want, name, 1e-5)


@on_every_backend
def test_frozen_latent_and_frozen_parameters(backend: Candidate) -> None:
    q = quantizer(CONFIGS["odd"])
    z = latent(q.config, 1, 5)
    q(z).latent.sum().backward()
    assert all(p.grad is not None for p in q.parameters())
    q.requires_grad_(False)
    z.requires_grad_(True)
    q(z).latent.sum().backward()
    assert z.grad is not None and float(z.grad.abs().max()) > 0


@on_every_backend
def test_expanded_and_transposed_gradients_are_read_right(backend: Candidate) -> None:
    """What reaches a backward is often no plain tensor: a sum gives one number, expanded."""
    q = quantizer(CONFIGS["odd"])
    z = latent(q.config, 2, 9)
    found = []
    for gradient in (torch.ones(()).expand(z.shape), torch.ones_like(z), torch.ones_like(z.mT).mT):
        x = z.clone().requires_grad_(True)
        out = q(x, rates=(1,))
        params = list(q.parameters())
        outputs = [out.latent, out.rates[1]]
        found.append(torch.autograd.grad(outputs, [x, *params], [gradient, gradient.contiguous()]))
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("backend", "cut", "shape", "channels_last", "name"),
    # Eleven goes into none of the factors: all configurations, shapes, layouts, cuts take turns.
    covering(*itertools.product((False, True), SHAPES, LAYOUTS, SMALL), some=11),
    indirect=["backend"],
)
def test_every_gradient(
    backend: Candidate, cut: bool, shape: tuple[int, int], channels_last: bool, name: str
) -> None:
    config = CONFIGS[name]
    q = quantizer(config)
    batch, frames = shape
    z = settled(q, latent(config, batch, frames, channels_last), channels_last)
    stages = None
    if cut:
        stages = torch.randint(0, config.num_stages + 1, (batch, len(config.blocks)))
    rates = tuple(sorted({1, max(1, config.num_stages // 2)}))
    check_gradients(q, z, stages, rates, channels_last, "latent", *[f"{r}" for r in rates])


@both_layouts
@on_every_backend
def test_every_gradient_of_the_default_configuration(
    backend: Candidate, channels_last: bool
) -> None:
    q = quantizer(CONFIGS["default"])
    z = settled(q, latent(q.config, 2, backend.some(300), channels_last), channels_last)
    stages = torch.tensor([[8, 8], [3, 5]])
    check_gradients(q, z, stages, (2, 4), channels_last, "latent", "2", "4")


@pytest.mark.parametrize(
    "used", [("latent",), ("1",), ("2",), ("1", "2"), ("latent", "1")], ids=str
)
@both_layouts
@on_every_backend
def test_gradients_of_some_outputs_alone(backend: Candidate, used, channels_last: bool) -> None:
    q = quantizer(CONFIGS["odd"])
    z = settled(q, latent(q.config, 2, 70, channels_last), channels_last)
    check_gradients(q, z, None, (1, 2), channels_last, *used)
