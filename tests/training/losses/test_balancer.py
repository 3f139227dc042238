# SPDX-License-Identifier: Apache-2.0
"""Balanced gradients have the shares that the weights say, whatever the losses' scales."""

from __future__ import annotations

import pytest
import torch

from affectcodec.training.losses import GradientBalancer


def test_shares_follow_weights_not_scales() -> None:
    torch.manual_seed(0)
    at = torch.randn(2, 64, requires_grad=True)
    a, b = torch.randn(2, 64), torch.randn(2, 64)
    weights = {"a": 3.0, "b": 1.0}
    for scale in (1e-3, 1.0, 1e3):
        balancer = GradientBalancer(["a", "b"])
        losses = {"a": 3.0 * (a * at).sum(), "b": scale * (b * at).sum()}
        got = balancer(losses, weights, at)
        total = (3 * a + scale * b).norm()
        want = total * (0.75 * a / a.norm() + 0.25 * b / b.norm())
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4 * float(total))


def test_norms_run_and_are_kept_in_the_state() -> None:
    at = torch.ones(1, 4, requires_grad=True)
    balancer = GradientBalancer(["a"], decay=0.5)
    for factor in (1.0, 3.0):
        balancer({"a": factor * at.sum()}, {"a": 1.0}, at)
    assert balancer.norms.tolist() == pytest.approx([4.0, 4.0])  # halfway between 2 and 6
    again = GradientBalancer(["a"])
    again.load_state_dict(balancer.state_dict())
    assert torch.equal(again.norms, balancer.norms)


def test_a_loss_without_gradient_takes_no_part() -> None:
    at = torch.ones(1, 4, requires_grad=True)
    other = torch.ones(1, requires_grad=True)
    balancer = GradientBalancer(["a", "b"])
    got = balancer({"a": at.sum(), "b": other.sum()}, {"a": 1.0, "b": 1.0}, at)
    assert bool(torch.isfinite(got).all()) and float(got.norm()) > 0


def test_other_losses_are_named() -> None:
    at = torch.ones(1, 4, requires_grad=True)
    with pytest.raises(ValueError, match=r"wanted \['a'\], got \['b'\]"):
        GradientBalancer(["a"])({"b": at.sum()}, {"b": 1.0}, at)
