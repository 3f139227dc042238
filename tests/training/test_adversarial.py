# SPDX-License-Identifier: Apache-2.0
"""Adversarial training: schedule, gradients, balance, and its place in a run."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from affectcodec.training.adversarial import Adversary, random_crops, take_crops
from affectcodec.training.cache import ClipCache
from affectcodec.training.config import AdversarialConfig, DiscriminatorConfig
from affectcodec.training.discriminators import feature_loss, generator_loss
from affectcodec.training.trainer import Trainer, TrainingError
from tests.training.sounds import same_tensors, tiny_run

pytest.importorskip("tensorboard")

SMALL = DiscriminatorConfig(
    periods=(2,), period_channels=(4, 8), spectrum_sizes=(64,), spectrum_channels=(4, 4)
)


def settings(**changes: Any) -> AdversarialConfig:
    values: dict[str, Any] = {
        "start": 0,
        "warmup_steps": 0,
        "ramp_steps": 1,
        "crop_samples": 1024,
        "discriminators": SMALL,
    }
    return AdversarialConfig(**{**values, **changes})


def adversary(**changes: Any) -> Adversary:
    torch.manual_seed(0)
    return Adversary(settings(**changes), seed=1, low_precision=False)


def waves(length: int = 3000) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return 0.1 * torch.randn(3, length), 0.1 * torch.randn(3, length)


def state(run: Trainer) -> dict[str, torch.Tensor]:
    return {
        f"{name}.{key}": value.clone()
        for name, module in run.modules.items()
        for key, value in module.state_dict().items()
    }


def test_schedule() -> None:
    one = adversary(start=10, every=2, warmup_steps=4, ramp_steps=4)
    assert [s for s in range(16) if one.learns_at(s)] == [10, 12, 14]
    assert [one.teaches_at(s) for s in (9, 10, 13, 14, 20)] == [False, False, False, True, True]
    assert [one.ramp_at(s) for s in (13, 14, 15, 17, 99)] == [0.0, 0.25, 0.5, 1.0, 1.0]


def test_crops_are_a_function_of_the_key_and_lie_inside() -> None:
    a, b = waves()
    first = random_crops(a, b, 1024, (1, 2, 3))
    assert torch.equal(first, random_crops(a, b, 1024, (1, 2, 3)))
    assert not torch.equal(first, random_crops(a, b, 1024, (1, 2, 4)))
    assert int(first.min()) >= 0 and int(first.max()) <= 3000 - 1024
    crops = take_crops(a, first, 1024)
    assert torch.equal(crops[1], a[1, first[1] : first[1] + 1024])
    assert torch.equal(take_crops(a, random_crops(a, b, 9000, (1,)), 9000), a)
    with pytest.raises(ValueError, match="one shape"):
        random_crops(a, b[:, 1:], 1024, (1,))


def test_the_gradient_is_that_of_the_losses_inside_the_crops() -> None:
    one = adversary(share=None, feature_weight=3.0)
    wav, target = waves()
    gradient, loss, figures = one(wav, target, torch.zeros_like(wav), 5)
    starts = random_crops(wav, target, 1024, (1, 2, 5))
    leaf = wav.clone().requires_grad_()
    real = take_crops(target, starts, 1024)
    level = real.square().mean(1, keepdim=True).sqrt()
    heard = one.judge(real / level), one.judge(take_crops(leaf, starts, 1024) / level)
    wanted = generator_loss(heard[1], "hinge") + 3 * feature_loss(*heard)
    (expected,) = torch.autograd.grad(wanted, leaf)
    torch.testing.assert_close(gradient, expected)
    outside = torch.ones_like(wav).scatter(1, starts[:, None] + torch.arange(1024), 0.0)
    assert float((gradient * outside).abs().max()) == 0.0
    assert float(figures["adversarial_features"]) > 0
    loss.backward()
    assert all(p.grad is not None for p in one.discriminators.parameters())


def test_nothing_reaches_the_codec_during_the_warm_up() -> None:
    one = adversary(warmup_steps=3)
    wav, target = waves()
    gradient, loss, _ = one(wav, target, torch.ones_like(wav), 2)
    assert gradient is None and loss.requires_grad
    assert float(one.norms.sum()) == 0.0


def test_the_balance_holds_the_share_whatever_the_scale_of_the_losses() -> None:
    wav, target = waves()
    for size in (1e-3, 1.0):
        one = adversary(share=0.25, crop_samples=3000)
        measure = torch.randn_like(wav) * size
        gradient, _, _ = one(wav, target, measure, 0)
        assert float(gradient.norm()) == pytest.approx(0.25 * float(measure.norm()), rel=1e-3)


def test_a_level_is_no_mark_of_a_fake() -> None:
    one = adversary(share=None)
    wav, target = waves()
    _, _, loud = one(wav, target, torch.zeros_like(wav), 0)
    _, _, quiet = one(0.01 * wav, 0.05 * target, torch.zeros_like(wav), 0)
    _, _, same = one(0.05 * wav, 0.05 * target, torch.zeros_like(wav), 0)
    assert float(same["adversarial_fake"]) == pytest.approx(float(loud["adversarial_fake"]), 1e-4)
    assert float(quiet["adversarial_fake"]) != pytest.approx(float(loud["adversarial_fake"]), 1e-3)


def test_discriminators_learn_to_tell_noise_from_tones() -> None:
    one = adversary(start=0, warmup_steps=1000)
    optimizer = torch.optim.AdamW(one.parameters(), lr=5e-3)
    time = torch.arange(3000) / 16000
    losses = []
    for step in range(40):
        torch.manual_seed(step)
        tones = torch.sin(6.283 * (100 + 300 * torch.rand(3, 1)) * time)
        _, loss, _ = one(torch.randn(3, 3000), tones, torch.zeros(3, 3000), step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


def test_a_run_with_discriminators_resumes_to_the_same_bits(
    tmp_path: Path, cache: ClipCache
) -> None:
    config = tiny_run(adversarial=settings(start=1, warmup_steps=1, every=1))
    whole = Trainer(config, cache, None, tmp_path / "whole")
    for _ in range(6):
        figures = whole.train_step()
    assert figures["adversarial_scale"] > 0
    first = Trainer(config, cache, None, tmp_path / "cut")
    for _ in range(4):
        first.train_step()
    first.save()
    torch.manual_seed(99)
    second = Trainer(config, cache, None, tmp_path / "cut")
    assert second.resume() and second.step == 4
    for _ in range(2):
        second.train_step()
    assert same_tensors(state(second), state(whole))


def test_discriminators_join_a_run_that_had_none(tmp_path: Path, cache: ClipCache) -> None:
    plain = Trainer(tiny_run(), cache, None, tmp_path)
    for _ in range(2):
        plain.train_step()
    plain.save()
    run = Trainer(tiny_run(adversarial=settings(start=2)), cache, None, tmp_path)
    fresh = {k: v for k, v in state(run).items() if k.startswith("adversary")}
    assert run.resume() and run.step == 2
    after = state(run)
    assert same_tensors({k: v for k, v in after.items() if k in fresh}, fresh)
    assert same_tensors({k: v for k, v in after.items() if k not in fresh}, state(plain))
    run.train_step()
    assert not same_tensors({k: v for k, v in state(run).items() if k in fresh}, fresh)


def test_before_their_start_a_run_is_the_run_without_them(tmp_path: Path, cache: ClipCache) -> None:
    plain = Trainer(tiny_run(), cache, None, tmp_path)
    later = Trainer(tiny_run(adversarial=settings(start=4, warmup_steps=2)), cache, None, tmp_path)
    for _ in range(4):
        plain.train_step()
        later.train_step()
    own = state(plain)
    assert same_tensors({k: v for k, v in state(later).items() if k in own}, own)


def test_what_is_frozen_stays_and_tokens_with_it(tmp_path: Path, cache: ClipCache) -> None:
    config = tiny_run(adversarial=settings(), frozen=("encoder", "quantizer"))
    run = Trainer(config, cache, None, tmp_path)
    before = state(run)
    fingerprint = run.codec.fingerprint
    for _ in range(2):
        run.train_step()
    changed = {k for k, v in state(run).items() if not torch.equal(v, before[k])}
    assert run.codec.fingerprint == fingerprint
    assert not any(k.startswith(("codec.encoder", "codec.quantizer")) for k in changed)
    assert any(k.startswith("codec.decoder") for k in changed)
    assert any(k.startswith("ema.decoder") for k in changed)


def test_a_broken_discriminator_changes_no_weight(tmp_path: Path, cache: ClipCache) -> None:
    run = Trainer(tiny_run(adversarial=settings()), cache, None, tmp_path)
    assert run.adversary is not None
    before = state(run)
    next(run.adversary.discriminators.parameters()).register_hook(lambda g: g * float("nan"))
    with pytest.raises(TrainingError, match="discriminators' gradient of step 0 is not finite"):
        run.train_step()
    now = {k: v for k, v in state(run).items() if not k.endswith("norms")}
    assert same_tensors(now, {k: before[k] for k in now})


def test_a_run_starts_from_weights_of_the_same_configuration(
    tmp_path: Path, cache: ClipCache
) -> None:
    source = Trainer(tiny_run(), cache, None, tmp_path)
    source.train_step()
    source.export(tmp_path / "weights")
    run = Trainer(tiny_run(seed=5), cache, None, tmp_path / "other")
    run.start_from(tmp_path / "weights")
    assert same_tensors(run.codec.state_dict(), source.ema.state_dict())
    assert same_tensors(run.ema.state_dict(), source.ema.state_dict())
    wider = dataclasses.replace(tiny_run().codec, name="other")
    with pytest.raises(ValueError, match="set TrainConfig.codec"):
        Trainer(tiny_run(codec=wider), cache, None, tmp_path).start_from(tmp_path / "weights")
