# SPDX-License-Identifier: Apache-2.0
"""Cycle losses fall to zero on the same sound, grow with damage, and lead back to it."""

from __future__ import annotations

import math

import pytest
import torch

from affectcodec.training.losses import (
    FrameDescriptors,
    cycle_prosody_loss,
    latent_cycle_loss,
)
from tests.training.losses.test_descriptors import harmonics

MODULE = FrameDescriptors(16000, 320, 60.0, 700.0)
LOG_F0 = torch.full((1, 51), math.log(200.0))
VOICED = torch.ones(1, 51)


def cost(wav: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    return cycle_prosody_loss(MODULE(wav, LOG_F0), MODULE(true, LOG_F0), VOICED)


def test_the_same_sound_costs_nothing() -> None:
    assert float(cost(harmonics(200.0), harmonics(200.0))) == pytest.approx(0, abs=1e-6)


def test_every_property_counts() -> None:
    true = harmonics(200.0)
    torch.manual_seed(0)
    noisy = true + 0.1 * torch.randn_like(true)
    for worse in (harmonics(240.0), harmonics(200.0, 0.0), 0.2 * true, noisy):
        assert float(cost(worse, true)) > 0.15


def test_its_gradient_leads_from_noise_back_to_the_voice() -> None:
    true = harmonics(200.0)
    torch.manual_seed(0)
    wav = (true + 0.05 * torch.randn_like(true)).requires_grad_()
    optimizer = torch.optim.Adam([wav], lr=2e-3)
    first = float(cost(wav, true).detach())
    for _ in range(30):
        optimizer.zero_grad()
        cost(wav, true).backward()
        optimizer.step()
    assert float(cost(wav, true).detach()) < 0.6 * first


def test_unvoiced_frames_have_no_pitch_to_keep() -> None:
    true, other = MODULE(harmonics(200.0), LOG_F0), MODULE(harmonics(240.0), LOG_F0)
    none = torch.zeros_like(VOICED)
    assert float(cycle_prosody_loss(other, true, none)) < 0.2 * float(
        cycle_prosody_loss(other, true, VOICED)
    )


def test_latents() -> None:
    torch.manual_seed(0)
    latent = torch.randn(2, 5, 8)
    assert float(latent_cycle_loss(2 * latent, latent)) == pytest.approx(0, abs=1e-6)
    assert float(latent_cycle_loss(-latent, latent)) == pytest.approx(2, abs=1e-6)
