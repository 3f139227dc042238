# SPDX-License-Identifier: Apache-2.0
"""Snake layers: the activation and its gradient, causality, chunks, precision, recomputation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from affectcodec.nn.causal import assign_state_keys
from affectcodec.nn.snake import (
    Snake,
    SnakeConv,
    SnakeDown,
    SnakeStack,
    SnakeUnit,
    SnakeUp,
    SnakeUpsample,
)


def test_snake_is_its_formula_and_has_its_gradient() -> None:
    snake = Snake(3).double()
    with torch.no_grad():
        snake.alpha.copy_(torch.tensor([0.2, 1.0, 7.0], dtype=torch.float64)[None, :, None])
    x = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    want = x + torch.sin(snake.alpha * x) ** 2 / snake.alpha
    torch.testing.assert_close(snake(x), want, rtol=1e-8, atol=1e-8)

    def by_hand(x: Tensor, alpha: Tensor) -> Tensor:
        snake.alpha.data = alpha.data
        return torch.func.functional_call(snake, {"alpha": alpha}, (x,))

    alpha = snake.alpha.detach().clone().requires_grad_(True)
    assert torch.autograd.gradcheck(by_hand, (x, alpha))


def test_snake_saves_its_input_alone() -> None:
    saved: list[int] = []
    x = torch.randn(2, 4, 64, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, id):
        Snake(4)(x)
    assert sorted(saved) == [4, x.numel()]


LAYERS = {
    "conv": (lambda: SnakeConv(3, 4, 7, dilation=3), 1, 1),
    "strided": (lambda: SnakeConv(3, 4, 8, stride=4), 4, 1),
    "upsample": (lambda: SnakeUpsample(3, 4, 5), 1, 5),
    "unit": (lambda: SnakeUnit(3, 7, 9), 1, 1),
    "down": (lambda: SnakeDown(3, 2, 7, (1, 3)), 2, 1),
    "up": (lambda: SnakeUp(4, 4, 7, (1, 3)), 1, 4),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_keep_rate_look_back_only_and_run_in_chunks(name: str) -> None:
    make, down, up = LAYERS[name]
    layer = make()
    assign_state_keys(layer)
    channels = 4 if name == "up" else 3
    x = torch.randn(2, channels, 24)
    want = layer(x)
    assert want.shape[-1] == 24 // down * up
    state: dict[str, Tensor] = {}
    parts = [layer(part, state) for part in x.split([4, 8, 12], -1)]
    torch.testing.assert_close(torch.cat(parts, -1), want, rtol=1e-5, atol=1e-6)
    changed = x.clone()
    changed[..., 12:] = 1.0
    seen = 12 // down * up
    assert torch.equal(layer(changed)[..., :seen], want[..., :seen])
    assert not torch.equal(layer(changed)[..., seen : seen + up], want[..., seen : seen + up])


def stack() -> SnakeStack:
    torch.manual_seed(3)
    layers: list[nn.Module] = [SnakeConv(1, 4, 7), SnakeDown(4, 2, 7, (1,)), Snake(8)]
    return SnakeStack([*layers, SnakeConv(8, 8, 3)])


def test_recomputation_changes_no_gradient_and_saves_less() -> None:
    x = torch.randn(1, 1, 512)
    sizes, gradients = {}, {}
    for recompute in (False, True):
        net = stack()
        net.recompute = recompute
        saved: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, saved=saved: saved.append(t.numel()) or t, lambda t: t
        ):
            out = net(x).square().sum()
        out.backward()
        sizes[recompute] = sum(saved)
        gradients[recompute] = [p.grad for p in net.parameters()]
    assert sizes[True] < 0.5 * sizes[False]
    for a, b in zip(gradients[True], gradients[False], strict=True):
        assert torch.equal(a, b)


def test_low_precision_is_bfloat16_inside_and_float32_outside() -> None:
    net = stack()
    seen = []
    net.layers[0].conv.register_forward_hook(lambda m, i, o: seen.append(o.dtype))
    x = torch.randn(1, 1, 64)
    want = net(x)
    net.low_precision = True
    got = net(x)
    assert seen == [torch.float32, torch.bfloat16]
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, want, rtol=0.1, atol=0.05)
    got.sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in net.parameters())
