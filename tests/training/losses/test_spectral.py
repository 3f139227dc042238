# SPDX-License-Identifier: Apache-2.0
"""Losses with answers that are known beforehand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from affectcodec.training.losses import (
    SpectralLosses,
    mel_filters,
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
