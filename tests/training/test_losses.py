# SPDX-License-Identifier: Apache-2.0
"""Losses with answers that are known beforehand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from affectcodec.nn.prosody import F0_BINS, Prosody, ProsodyHead
from affectcodec.training.batches import Batch
from affectcodec.training.cache import EMOTIONS
from affectcodec.training.losses import (
    EmotionHead,
    SpectralLosses,
    emotion_loss,
    mel_filters,
    prosody_losses,
    third_octave_bands,
)
from tests.codec_fixtures import speech_like


@pytest.fixture(scope="module")
def losses() -> SpectralLosses:
    return SpectralLosses(16000)


def waves() -> Tensor:
    return torch.stack([speech_like(16000, seed) for seed in (0, 1)])


def test_identical_waves_cost_nothing(losses: SpectralLosses) -> None:
    for name, value in losses(waves(), waves()).items():
        assert float(value) == pytest.approx(0, abs=1e-3), name


def test_every_term_grows_with_the_damage(losses: SpectralLosses) -> None:
    noise = torch.randn(2, 16000)
    slight, strong = (losses(waves() + gain * noise, waves()) for gain in (0.003, 0.1))
    for name in slight:
        assert 0 < float(slight[name]) < float(strong[name]), name


def test_half_the_amplitude(losses: SpectralLosses) -> None:
    """Log spectra move by ln 2, magnitudes by half of themselves, envelopes keep their shape."""
    loud = torch.randn(2, 16000) * 0.3
    terms = losses(0.5 * loud, loud)
    assert float(terms["mel"]) == pytest.approx(math.log(2), abs=0.02)
    assert float(terms["spectral"]) == pytest.approx(0.5, abs=0.01)
    assert float(terms["envelope"]) == pytest.approx(0, abs=1e-3)


def test_silence_has_finite_losses_and_gradients(losses: SpectralLosses) -> None:
    for prediction, target in (
        (torch.zeros(1, 16000), torch.zeros(1, 16000)),
        (torch.zeros(1, 16000), waves()[:1]),
        (waves()[:1], torch.zeros(1, 16000)),
    ):
        x = prediction.clone().requires_grad_(True)
        total = torch.stack(list(losses(x, target).values())).sum()
        total.backward()
        assert bool(torch.isfinite(total))
        assert x.grad is not None and bool(torch.isfinite(x.grad).all())


def test_gradient_descent_approaches_the_target(losses: SpectralLosses) -> None:
    target = waves()[:1, :8000]
    x = (target + 0.05 * torch.randn_like(target)).requires_grad_(True)
    optimizer = torch.optim.Adam([x], lr=1e-3)
    values = []
    for _ in range(12):
        total = torch.stack(list(losses(x, target).values())).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        values.append(float(total.detach()))
    assert values[-1] < 0.9 * values[0]


def test_mel_filters_cover_the_band() -> None:
    filters = mel_filters(16000, 2048, 128)
    assert filters.shape == (1025, 128)
    assert float(filters.min()) == 0 and float(filters.max()) <= 1
    centres = filters.argmax(0)
    assert bool((centres.diff() >= 0).all())
    inside = filters.sum(1)[30:990]  # triangles of neighbours add up to one
    torch.testing.assert_close(inside, torch.ones_like(inside), rtol=0, atol=1e-4)


def test_third_octaves_are_those_of_stoi() -> None:
    bands = third_octave_bands(16000, 512)
    assert bands.shape == (257, 15)
    assert bool((bands.sum(0) >= 1).all())
    assert bool((bands.sum(1) <= 1).all())
    edges = [float(bands[:, i].nonzero()[0, 0]) * 31.25 for i in (0, 14)]
    assert edges[0] == pytest.approx(150 / 2 ** (1 / 6), abs=31.25)
    assert edges[1] == pytest.approx(150 * 2 ** (14 / 3 - 1 / 6), abs=31.25)


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


def test_emotion_loss_counts_labelled_clips_only() -> None:
    logits = torch.full((3, len(EMOTIONS)), -20.0)
    logits[0, 2], logits[1, 1], logits[2, 5] = 20.0, 20.0, 20.0
    loss, accuracy = emotion_loss(logits, torch.tensor([2, 1, -1]))
    assert (float(loss), float(accuracy)) == (pytest.approx(0, abs=1e-6), 1.0)
    loss, accuracy = emotion_loss(logits, torch.tensor([2, 0, -1]))
    assert float(loss) == pytest.approx(20, abs=1e-3)
    assert float(accuracy) == 0.5
    loss, accuracy = emotion_loss(logits, torch.full((3,), -1))
    assert (float(loss), float(accuracy)) == (0.0, 0.0)


def test_emotion_head_gives_one_answer_a_clip() -> None:
    head = EmotionHead(12)
    assert head(torch.randn(3, 20, 12)).shape == (3, len(EMOTIONS))


def test_the_f0_distribution_has_the_size_of_the_head() -> None:
    assert ProsodyHead(4, 8, 1, 3, 60.0, 700.0).f0_targets(torch.zeros(1, 1)).shape[-1] == F0_BINS
