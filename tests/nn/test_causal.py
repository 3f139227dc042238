# SPDX-License-Identifier: Apache-2.0
"""Causal layers: no look-ahead at all, and chunked use with state equals one call."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from affectcodec.nn.causal import (
    CausalConvNeXt,
    CausalConvNeXtBlock,
    CausalDepthwiseConv,
    History,
    LeakyAttentionPool,
    assign_state_keys,
)

CHANNELS = 6


def make(name: str) -> nn.Module:
    module: nn.Module
    if name == "depthwise":
        module = CausalDepthwiseConv(CHANNELS, 5)
    elif name == "pool":
        module = LeakyAttentionPool(CHANNELS, time_constant=9.0, chunk=4)
        nn.init.normal_(module.score.weight)
    else:
        module = CausalConvNeXt(CHANNELS, 8, 2, 5, 2)
    assign_state_keys(module)
    return module.requires_grad_(False)


LAYERS = ["depthwise", "pool", "convnext"]


@pytest.mark.parametrize("name", LAYERS)
def test_the_future_never_changes_the_past(name: str) -> None:
    module = make(name)
    x = torch.randn(2, 30, CHANNELS)
    want = module(x)
    for cut in (1, 13, 29):
        changed = x.clone()
        changed[:, cut:] = 100 * torch.randn_like(changed[:, cut:])
        got = module(changed)
        assert torch.equal(got[:, :cut], want[:, :cut])
        assert not torch.equal(got[:, cut], want[:, cut])


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("sizes", [(30,), (1,) * 30, (3, 8, 1, 18), (29, 1)])
def test_chunks_with_state_equal_one_call(name: str, sizes: tuple[int, ...]) -> None:
    module = make(name)
    x = torch.randn(2, 30, CHANNELS)
    state: dict[str, Tensor] = {}
    parts = [module(part, state) for part in x.split(list(sizes), 1)]
    torch.testing.assert_close(torch.cat(parts, 1), module(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", LAYERS)
def test_a_saved_state_continues_the_stream(name: str) -> None:
    module = make(name)
    x = torch.randn(1, 20, CHANNELS)
    state: dict[str, Tensor] = {}
    module(x[:, :9], state)
    saved = copy.deepcopy(state)
    first = module(x[:, 9:], state)
    assert torch.equal(module(x[:, 9:], saved), first)
    assert all(isinstance(value, Tensor) and not value.requires_grad for value in state.values())


def test_the_state_holds_no_view_of_the_input() -> None:
    history = History(2)
    assign_state_keys(history)
    x = torch.ones(1, 4, 1)
    state: dict[str, Tensor] = {}
    history(x, state)
    x.fill_(7)
    assert state["root"].flatten().tolist() == [1, 1]


def test_each_module_has_a_key_of_its_own() -> None:
    module = make("convnext")
    keys = [m.state_key for m in module.modules() if isinstance(m, History)]
    assert keys == ["blocks.0.depthwise.history", "blocks.1.depthwise.history"]
    state: dict[str, Tensor] = {}
    module(torch.randn(1, 3, CHANNELS), state)
    assert sorted(state) == keys


def test_a_state_without_keys_is_an_error() -> None:
    module = CausalConvNeXt(CHANNELS, 8, 2, 5, 2)
    module(torch.randn(1, 3, CHANNELS))
    with pytest.raises(RuntimeError, match="assign_state_keys"):
        module(torch.randn(1, 3, CHANNELS), {})


def test_depthwise_convolution_against_its_definition() -> None:
    conv = CausalDepthwiseConv(3, 4).double().requires_grad_(False)
    conv.bias.normal_()
    x = torch.randn(2, 9, 3, dtype=torch.float64)
    want = conv.bias.expand(2, 9, 3).clone()
    for t in range(9):
        for lag in range(4):
            if t - lag >= 0:
                want[:, t] += conv.weight[:, 0, 3 - lag] * x[:, t - lag]
    torch.testing.assert_close(conv(x), want, rtol=0, atol=1e-12)


@pytest.mark.parametrize("chunk", [1, 4, 64])
def test_attention_pool_against_its_definition(chunk: int) -> None:
    pool = LeakyAttentionPool(CHANNELS, time_constant=5.0, chunk=chunk).requires_grad_(False)
    nn.init.normal_(pool.score.weight)
    x = torch.randn(2, 21, CHANNELS)
    weight = torch.exp(pool.score(x).double().clamp(-8, 8))
    want = torch.zeros(2, 21, CHANNELS, dtype=torch.float64)
    for t in range(21):
        total, norm = torch.zeros(2, CHANNELS, dtype=torch.float64), torch.zeros(2, 1)
        for j in range(t + 1):
            w = math.exp(-(t - j) / 5.0) * weight[:, j]
            total, norm = total + w * x[:, j].double(), norm + w
        want[:, t] = total / norm
    torch.testing.assert_close(pool(x).double(), want, rtol=1e-5, atol=1e-6)


def test_attention_pool_of_a_constant_is_the_constant() -> None:
    pool = LeakyAttentionPool(CHANNELS, time_constant=400.0)
    constant = torch.randn(1, 1, CHANNELS)
    got = pool(constant.expand(1, 3000, CHANNELS))
    torch.testing.assert_close(got, constant.expand_as(got), rtol=1e-4, atol=1e-5)


def test_conditioning_starts_as_the_identity_and_then_acts() -> None:
    block = CausalConvNeXtBlock(CHANNELS, 3, 2, condition_channels=4)
    x, condition = torch.randn(1, 5, CHANNELS), torch.randn(1, 5, 4)
    neutral = block(x, None, condition)
    assert torch.equal(neutral, block(x, None, 0 * condition))
    assert block.film is not None
    nn.init.normal_(block.film.weight)
    assert not torch.equal(neutral, block(x, None, condition))
