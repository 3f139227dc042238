# SPDX-License-Identifier: Apache-2.0
"""Folded weights: never stale, and kept where nothing changed."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from affectcodec.nn import BDRFSQ
from affectcodec.ops import use_backend
from affectcodec.ops.bd_rfsq import folding
from tests.ops.quantizers import CONFIGS, latent, needs_cpu_kernels, no_saved_graphs, quantizer

pytestmark = needs_cpu_kernels
CONFIG = CONFIGS["odd"]


@pytest.fixture(autouse=True)
def _kernels_only():
    with use_backend("cpu"):
        yield


@pytest.fixture
def folds(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one at every fold."""
    calls: list[int] = []
    real = folding.fold

    def counted(*args):
        calls.append(1)
        return real(*args)

    monkeypatch.setattr(folding, "fold", counted)
    return calls


def fresh(q: BDRFSQ, z: Tensor) -> Tensor:
    """Tokens of a copy that has folded nothing yet."""
    return copy.deepcopy(q).encode(z)


def test_unchanged_weights_are_folded_once(folds: list[int]) -> None:
    q = quantizer(CONFIG).eval()
    z = latent(CONFIG, 1, 20)
    tokens = q.encode(z)
    with torch.inference_mode():
        q.encode(z)
    with torch.no_grad():
        q(z)
    q.decode(tokens, 2)
    assert len(folds) == 1


def flip(q: BDRFSQ) -> None:
    with torch.no_grad():
        for p in q.parameters():
            p.neg_()


def load(q: BDRFSQ) -> None:
    q.load_state_dict({name: -value for name, value in q.state_dict().items()})


def assign(q: BDRFSQ) -> None:
    q.load_state_dict({name: -value for name, value in q.state_dict().items()}, assign=True)


def round_trip(q: BDRFSQ) -> None:
    q.bfloat16().float()


def replace(q: BDRFSQ) -> None:
    for block in q.blocks.values():
        block.W = torch.nn.Parameter(-block.W.detach())


def swap_data(q: BDRFSQ) -> None:
    for p in q.parameters():
        p.data = -p.data


def average(q: BDRFSQ) -> None:
    torch._foreach_lerp_(
        [p.detach() for p in q.parameters()], [-p.detach() for p in q.parameters()], 0.9
    )


def behind_the_back(q: BDRFSQ) -> None:
    for p in q.parameters():
        p.data.neg_()
    q.refold()


def swap_and_evaluate(q: BDRFSQ) -> None:
    q.train()
    for p in q.parameters():
        p.data.neg_()
    q.eval()


CHANGES = [
    flip, load, assign, round_trip, replace, swap_data, average, behind_the_back, swap_and_evaluate,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__)
def test_changed_weights_are_folded_anew(change) -> None:
    q = quantizer(CONFIG).eval()
    z = latent(CONFIG, 1, 200)
    before = q.encode(z)
    for _ in range(2):
        change(q)
        assert torch.equal(q.encode(z), fresh(q, z))
    change(q)
    assert torch.equal(q.encode(z), fresh(q, z))
    assert change is round_trip or not torch.equal(q.encode(z), before)


@pytest.mark.parametrize("change", [flip, load, assign, round_trip, replace, swap_data, average])
def test_both_stamps_tell_changed_parameters(change) -> None:
    from affectcodec import _cpu

    for stamp in (_cpu.stamp, folding._stamp_in_python):
        q = quantizer(CONFIG).eval()
        blocks = dict(q.blocks.items())
        held = [p.detach() for p in q.parameters()]
        before = stamp(blocks)
        assert before is not None and stamp(blocks) == before
        change(q)
        assert stamp(blocks) != before
        del held


def test_a_stamp_of_modules_it_does_not_know() -> None:
    from affectcodec import _cpu

    q = quantizer(CONFIG)
    q.blocks["a"].register_parameter("W", None)
    assert _cpu.stamp(dict(q.blocks.items())) is None
    assert folding._stamp_in_python(dict(q.blocks.items())) is None
    del q.blocks["a"].W
    assert _cpu.stamp(dict(q.blocks.items())) is None
    many = dict.fromkeys(map(str, range(64)), q.blocks["b"])
    assert _cpu.stamp(many) is None
    for wrong in ([1], None, {"a": 1}):
        with pytest.raises((TypeError, AttributeError)):
            _cpu.stamp(wrong)
    with torch.inference_mode():
        inference = quantizer(CONFIG)
    with pytest.raises(RuntimeError, match="version"):
        _cpu.stamp(dict(inference.blocks.items()))


@pytest.mark.parametrize("set_to_none", [True, False])
@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("options", [{}, {"fused": True}, {"foreach": True}], ids=str)
def test_no_optimizer_step_is_missed(options, mode: str, set_to_none: bool) -> None:
    """A fused optimizer writes without raising the version of a parameter."""
    q = quantizer(CONFIG).train(mode == "train")
    z = latent(CONFIG, 1, 200)
    optimizer = torch.optim.AdamW(q.parameters(), lr=0.1, **options)
    for _ in range(3):
        before = q.encode(z)
        loss = q(z).latent.square().mean()
        assert torch.equal(q.encode(z), before)
        loss.backward()
        assert torch.equal(q.encode(z), before)
        optimizer.step()
        assert torch.equal(q.encode(z), fresh(q, z))
        optimizer.zero_grad(set_to_none=set_to_none)
        assert torch.equal(q.encode(z), fresh(q, z))
        assert not torch.equal(q.encode(z), before)


def test_gradients_set_by_hand_are_not_missed() -> None:
    q = quantizer(CONFIG).eval()
    z = latent(CONFIG, 1, 200)
    params = list(q.parameters())
    optimizer = torch.optim.SGD(params, lr=0.5, fused=True)
    before = q.encode(z)
    for p, g in zip(params, torch.autograd.grad(q(z).latent.square().sum(), params), strict=True):
        p.grad = g
    optimizer.step()
    optimizer.zero_grad()
    assert torch.equal(q.encode(z), fresh(q, z))
    assert not torch.equal(q.encode(z), before)


@pytest.mark.timeout(300)
def test_compiled_training_is_not_missed() -> None:
    torch._dynamo.reset()
    q = quantizer(CONFIG).eval()
    z = latent(CONFIG, 1, 200)
    optimizer = torch.optim.SGD(q.parameters(), lr=0.5, fused=True)
    loss = torch.compile(lambda z: q(z).latent.square().sum(), fullgraph=True)
    for _ in range(2):
        before = q.encode(z)
        with no_saved_graphs():
            loss(z).backward()
        optimizer.step()
        optimizer.zero_grad()
        assert torch.equal(q.encode(z), fresh(q, z))
        assert not torch.equal(q.encode(z), before)


def test_modules_made_in_inference_mode_work() -> None:
    with torch.inference_mode():
        q = quantizer(CONFIG)
        z = latent(CONFIG, 1, 20)
        assert torch.equal(q.encode(z), fresh(q, z))
        q.blocks["a"].W.neg_()
        assert torch.equal(q.encode(z), fresh(q, z))


def test_parametrized_weights_are_followed() -> None:
    q = quantizer(CONFIG).eval()
    torch.nn.utils.parametrizations.weight_norm(q.blocks["a"], "W")
    z = latent(CONFIG, 1, 20)
    before = q.encode(z)
    assert torch.equal(before, q.encode(z))
    with torch.no_grad():
        for p in q.blocks["a"].parametrizations.W.parameters():
            p.neg_()
        q.blocks["a"].c.add_(1.0)
    with use_backend("reference"):
        want = q.encode(z)
    assert float((q.encode(z) != want).float().mean()) < 0.02
    assert not torch.equal(q.encode(z), before)


def test_hooks_are_gone_after_use() -> None:
    q = quantizer(CONFIG).eval()
    z = latent(CONFIG, 1, 20)
    for _ in range(5):
        q.encode(z)
        flip(q)
    q.encode(z)
    weights = q.blocks["a"].W
    assert len(weights._post_accumulate_grad_hooks or ()) == 1
    q.refold()
    assert len(weights._post_accumulate_grad_hooks or ()) == 0


def test_parameters_of_other_types_are_read_as_float32() -> None:
    z = latent(CONFIG, 1, 50)
    for dtype in (torch.bfloat16, torch.float64):
        q = quantizer(CONFIG).to(dtype)
        same = copy.deepcopy(q).float()
        assert torch.equal(q.encode(z), same.encode(z))
        out = q(z.requires_grad_(True))
        out.latent.sum().backward()
        assert all(p.grad is not None and p.grad.dtype == dtype for p in q.parameters())
