# SPDX-License-Identifier: Apache-2.0
"""Losses on decoded prosody with answers that are known beforehand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from affectcodec.nn.prosody import F0_BINS, Prosody, ProsodyHead
from affectcodec.training.batches import Batch
from affectcodec.training.losses import prosody_losses


def targets(frames: int = 6) -> Batch:
    log_f0 = torch.full((1, frames), math.log(200.0))
    voiced = torch.tensor([[1.0, 1, 1, 0, 0, 0]])
    energy = torch.linspace(-12, -2, frames)[None]
    nothing = torch.zeros(1)
    return Batch(nothing, log_f0, voiced, energy, nothing, nothing, nothing, nothing)


def prosody_of(head: ProsodyHead, batch: Batch, f0: Tensor, confidence: float = 30.0) -> Prosody:
    logits = torch.log(head.f0_targets(torch.log(f0)) + 1e-20)
    voicing = confidence * (2 * batch.voiced - 1)
    return Prosody(f0, logits, voicing, batch.log_energy, torch.zeros(1))


def test_perfect_prosody_costs_only_the_entropy_of_its_targets() -> None:
    head, batch = ProsodyHead(4, 8, 1, 3, 60.0, 700.0), targets()
    f0 = torch.exp(batch.log_f0)
    terms = prosody_losses(head, prosody_of(head, batch, f0), batch)
    p = head.f0_targets(batch.log_f0)[0, 0]
    entropy = float(-(p * torch.log(p + 1e-20)).sum())
    assert float(terms["f0"]) == pytest.approx(entropy, abs=1e-4)
    assert float(terms["voicing"]) == pytest.approx(0, abs=1e-6)
    assert float(terms["energy"]) == 0


def test_wrong_prosody_costs_more_and_unvoiced_frames_have_no_f0() -> None:
    head, batch = ProsodyHead(4, 8, 1, 3, 60.0, 700.0), targets()
    right = torch.exp(batch.log_f0)
    octave, unvoiced = right.clone(), right.clone()
    octave[:, :3] *= 2
    unvoiced[:, 3:] *= 2
    cost = {
        name: float(prosody_losses(head, prosody_of(head, batch, f0), batch)["f0"])
        for name, f0 in {"right": right, "octave": octave, "unvoiced": unvoiced}.items()
    }
    assert cost["octave"] > cost["right"] + 1
    assert cost["unvoiced"] == pytest.approx(cost["right"], abs=1e-5)
    silent = batch._replace(voiced=torch.zeros(1, 6))
    assert float(prosody_losses(head, prosody_of(head, silent, octave), silent)["f0"]) == 0


def test_silences_need_not_be_told_apart() -> None:
    head, batch = ProsodyHead(4, 8, 1, 3, 60.0, 700.0), targets()
    prosody = prosody_of(head, batch, torch.exp(batch.log_f0))
    deeper = prosody._replace(log_energy=batch.log_energy.clone())
    deeper.log_energy[0, 0] = -20.0
    assert float(prosody_losses(head, deeper, batch)["energy"]) == 0
    louder = prosody._replace(log_energy=batch.log_energy + 1)
    assert float(prosody_losses(head, louder, batch)["energy"]) > 0.5


def test_the_f0_distribution_has_the_size_of_the_head() -> None:
    assert ProsodyHead(4, 8, 1, 3, 60.0, 700.0).f0_targets(torch.zeros(1, 1)).shape[-1] == F0_BINS
