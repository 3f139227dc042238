# SPDX-License-Identifier: Apache-2.0
"""Discriminators and their losses."""

from __future__ import annotations

import pytest
import torch

from affectcodec.training.config import DiscriminatorConfig
from affectcodec.training.discriminators import (
    Discriminators,
    Judgement,
    PeriodDiscriminator,
    discriminator_loss,
    feature_loss,
    generator_loss,
)

SMALL = DiscriminatorConfig(
    periods=(2, 3), period_channels=(4, 8), spectrum_sizes=(64,), spectrum_channels=(4, 4)
)


def said(*scores: float) -> list[Judgement]:
    return [Judgement(torch.tensor([[score]]), [torch.full((1, 2), score)]) for score in scores]


def test_the_default_is_sized_for_a_processor() -> None:
    count = sum(p.numel() for p in Discriminators(DiscriminatorConfig()).parameters())
    assert 200_000 < count < 400_000


def test_presets_grow() -> None:
    counts = [
        sum(p.numel() for p in Discriminators(DiscriminatorConfig.preset(name)).parameters())
        for name in ("stream", "stream-large", "paper")
    ]
    assert counts == [238_344, 3_041_474, 42_860_912]
    with pytest.raises(ValueError, match="unknown name 'tiny'"):
        DiscriminatorConfig.preset("tiny")


@pytest.mark.parametrize("length", [1024, 1025, 4097])
def test_every_member_judges_any_length(length: int) -> None:
    torch.manual_seed(0)
    members = Discriminators(SMALL)
    assert members.names == ["period_2", "period_3", "spectrum_64"]
    judgements = members(torch.randn(2, length))
    assert len(judgements) == 3
    for judgement in judgements:
        assert judgement.score.shape[:2] == (2, 1)
        assert len(judgement.features) == 2
        assert all(bool(torch.isfinite(f).all()) for f in judgement.features)


def test_a_period_sees_time_alone() -> None:
    torch.manual_seed(0)
    member = PeriodDiscriminator(4, (4, 4))
    wav = torch.randn(1, 256, requires_grad=True)
    score = member(wav).score
    assert score.shape[-1] == 4
    (gradient,) = torch.autograd.grad(score[0, 0, 5, 1], wav)
    touched = gradient[0].nonzero()[:, 0]
    assert len(touched) > 1
    assert set((touched % 4).tolist()) == {1}


def test_silence_and_huge_waves_give_finite_gradients() -> None:
    members = Discriminators(SMALL)
    for scale in (0.0, 1e4):
        wav = (torch.randn(1, 2048) * scale).requires_grad_()
        loss = generator_loss(members(wav), "lsgan")
        (gradient,) = torch.autograd.grad(loss, wav)
        assert bool(torch.isfinite(gradient).all())


def test_losses_against_their_formulas() -> None:
    real, fake = said(0.5, 2.0), said(-0.5, 0.25)
    assert float(discriminator_loss(real, fake, "hinge")) == pytest.approx(
        ((0.5 + 0.5) + (0.0 + 1.25)) / 2
    )
    assert float(discriminator_loss(real, fake, "lsgan")) == pytest.approx(
        ((0.25 + 0.25) + (1.0 + 0.0625)) / 2
    )
    assert float(generator_loss(fake, "hinge")) == pytest.approx((0.5 - 0.25) / 2)
    assert float(generator_loss(fake, "lsgan")) == pytest.approx((2.25 + 0.5625) / 2)
    assert float(feature_loss(real, fake)) == pytest.approx((1.0 / 0.5 + 1.75 / 2.0) / 2)
    assert float(feature_loss(real, real)) == 0.0


def test_feature_matching_holds_the_real_maps_constant() -> None:
    real, fake = torch.ones(1, 2, requires_grad=True), torch.zeros(1, 2, requires_grad=True)
    score = torch.zeros(1, 1)
    feature_loss([Judgement(score, [real])], [Judgement(score, [fake])]).backward()
    assert real.grad is None and fake.grad is not None
