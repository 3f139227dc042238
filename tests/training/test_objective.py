# SPDX-License-Identifier: Apache-2.0
"""The objective: rates from one pass, terms that are asked for, gradients where they belong."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from affectcodec.training.cache import ClipCache
from affectcodec.training.config import LossWeights
from affectcodec.training.trainer import Trainer
from tests.training.sounds import same_tensors, tiny_run

pytest.importorskip("tensorboard")


def run(folder: Path, cache: ClipCache, **changes) -> Trainer:
    return Trainer(tiny_run(precision="fp32", **changes), cache, None, folder)


def test_rates_are_what_separate_passes_give(tmp_path: Path, cache: ClipCache) -> None:
    one = run(tmp_path, cache)
    batch = one.source.batch(0)
    decoded, _, _ = one.objective.decode(batch, one.codec, (1, 2, 4))
    assert decoded.wav.shape[0] == decoded.batch.wav.shape[0] == 3 * len(batch.wav)
    for i, rate in enumerate((1, 2, 4)):
        stages = torch.full_like(batch.stages, rate)
        alone, _, _ = one.objective.decode(batch._replace(stages=stages), one.codec)
        part = slice(i * len(batch.wav), (i + 1) * len(batch.wav))
        torch.testing.assert_close(decoded.wav[part], alone.wav, rtol=1e-3, atol=1e-4)
        assert torch.equal(decoded.batch.stages[part], stages)


def test_a_multi_rate_run_trains(tmp_path: Path, cache: ClipCache) -> None:
    one = run(tmp_path, cache, rates=(2, 4))
    first = one.train_step()["loss"]
    assert first > 0 and one.train_step()["loss"] > 0
    with pytest.raises(ValueError, match=r"rates must lie in 1\.\.4, got 8"):
        tiny_run(rates=(2, 8))


def test_what_is_told_at_several_rates_is_the_mean_of_separate_passes(
    tmp_path: Path, cache: ClipCache
) -> None:
    one = run(tmp_path, cache, stage_choices=(1, 3), stage_weights=(0.5, 0.5))
    batch = one.source.batch(0)
    both, terms, _ = one.objective.decode(batch, one.codec, told_rates=(2, 4))
    alone, own, _ = one.objective.decode(batch, one.codec)
    # the wave is that of the drawn counts, of each block
    torch.testing.assert_close(both.wav, alone.wav, rtol=1e-3, atol=1e-4)
    assert torch.equal(both.batch.stages, batch.stages) and len(both.wav) == len(batch.wav)
    told = []
    for rate in (2, 4):
        stages = torch.full_like(batch.stages, rate)
        told.append(one.objective.decode(batch._replace(stages=stages), one.codec)[1])
    for name in ("energy", "voicing", "emotion"):
        want = (told[0][name] + told[1][name]) / 2
        torch.testing.assert_close(terms[name], want, rtol=1e-3, atol=1e-5)
        assert not torch.equal(terms[name], own[name])


def test_a_run_that_tells_at_several_rates_trains(tmp_path: Path, cache: ClipCache) -> None:
    one = run(tmp_path, cache, told_rates=(2, 4))
    assert one.train_step()["loss"] > 0
    with pytest.raises(ValueError, match=r"told_rates must lie in 1\.\.4, got 8"):
        tiny_run(told_rates=(2, 8))


@pytest.mark.parametrize("kind", ["bd-rfsq", "rfsq", "rvq"])
def test_a_quantizer_comes_in_after_its_warmup(tmp_path: Path, cache: ClipCache, kind: str) -> None:
    base = tiny_run(precision="fp32", quantizer_warmup=2, independent_stages=0.0, batch_size=12)
    quantizer = dataclasses.replace(base.codec.quantizer, kind=kind)
    config = dataclasses.replace(base, codec=dataclasses.replace(base.codec, quantizer=quantizer))
    one = Trainer(config, cache, None, tmp_path)
    before = [p.clone() for p in one.codec.quantizer.parameters()]
    batch = one.source.batch(0)
    free, terms, _ = one.objective.decode(batch, one.codec, quantized=False)
    fewer = batch._replace(stages=torch.ones_like(batch.stages))
    assert torch.equal(free.wav, one.objective.decode(fewer, one.codec, quantized=False)[0].wav)
    assert "commitment" not in terms
    for _ in range(2):
        one.train_step()
    assert all(map(torch.equal, before, one.codec.quantizer.parameters()))
    figures = one.train_step()
    assert ("raw_commitment" in figures) == (kind == "rvq")
    changed = [
        not torch.equal(a, b)
        for a, b in zip(before, one.codec.quantizer.parameters(), strict=True)
        if a.numel() > 3
    ]
    assert all(changed)
    # the average starts where the quantizer does, not where it was
    for live, mean in zip(
        one.codec.quantizer.parameters(), one.ema.quantizer.parameters(), strict=True
    ):
        torch.testing.assert_close(live, mean, atol=0.02, rtol=0.1)


def test_a_warmup_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="quantizer_warmup must be 0 or more, got -1"):
        tiny_run(quantizer_warmup=-1)
    with pytest.raises(ValueError, match="cannot with scale.shard or a frozen quantizer"):
        tiny_run(quantizer_warmup=5, frozen=("quantizer",))


def test_terms_without_weight_are_not_computed(tmp_path: Path, cache: ClipCache) -> None:
    figures = run(tmp_path, cache).train_step()
    assert not any("cycle" in name or "frames" in name for name in figures)


@pytest.mark.parametrize("name", ["frames", "cycle_prosody", "cycle_latent", "cycle_emotion"])
def test_every_term_reaches_the_codec(tmp_path: Path, cache: ClipCache, name: str) -> None:
    one = run(tmp_path, cache, loss=LossWeights(**{name: 1.0}))
    batch = one.source.batch(0)._replace(emotion=torch.tensor([0, 1]))
    decoded, told, _ = one.objective.decode(batch, one.codec)
    heard, _ = one.objective.heard(decoded.wav, decoded.batch, 0)
    term = {**told, **heard}[name]
    assert float(term) > 0
    part = one.codec.encoder.emotion if name == "frames" else one.codec.decoder
    gradients = torch.autograd.grad(term, list(part.parameters()), allow_unused=True)
    assert any(g is not None and float(g.abs().sum()) > 0 for g in gradients)


def test_the_cycle_teaches_the_codec_not_its_judges(tmp_path: Path, cache: ClipCache) -> None:
    one = run(tmp_path, cache)
    weights = LossWeights(cycle_emotion=1.0, cycle_latent=1.0)
    one.objective.config = dataclasses.replace(one.config, loss=weights)
    batch = one.source.batch(0)._replace(emotion=torch.tensor([0, 1]))
    wav = batch.wav.clone().requires_grad_()
    heard, _ = one.objective.heard(wav, batch, 0)
    (heard["cycle_emotion"] + heard["cycle_latent"]).backward()
    assert wav.grad is not None
    assert all(p.grad is None for p in one.emotion_head.parameters())
    assert all(p.grad is None for p in one.ema.parameters())


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_share_of_the_reconstruction_gradient_at_the_emotion_branch(
    tmp_path: Path, cache: ClipCache, share: float
) -> None:
    one = run(tmp_path, cache, emotion_gradient=share)
    batch = one.source.batch(0)
    parameters = list(one.codec.encoder.heads["emotion"].parameters())

    def norm() -> float:
        decoded, _, _ = one.objective.decode(batch, one.codec)
        heard, _ = one.objective.heard(decoded.wav, decoded.batch, 0)
        total = torch.stack(list(heard.values())).sum()
        gradients = torch.autograd.grad(total, parameters, allow_unused=True)
        return sum(float(g.norm()) for g in gradients if g is not None)

    got = norm()
    one.objective.config = dataclasses.replace(one.config, emotion_gradient=1.0)
    whole = norm()
    # What reaches it through the decoded energy is not scaled: level is prosody.
    assert got <= whole * 1.001
    if share == 1.0:
        assert got == pytest.approx(whole)
    else:
        assert got < whole


def test_a_balanced_run_resumes_to_the_same_bits(tmp_path: Path, cache: ClipCache) -> None:
    settings = {"balance": True, "loss": LossWeights(cycle_prosody=0.5)}
    whole = run(tmp_path / "whole", cache, **settings)
    for _ in range(3):
        whole.train_step()
    cut = run(tmp_path / "cut", cache, **settings)
    for _ in range(2):
        cut.train_step()
    cut.save()
    resumed = run(tmp_path / "cut", cache, **settings)
    assert resumed.resume()
    resumed.train_step()
    for name, module in whole.modules.items():
        assert same_tensors(resumed.modules[name].state_dict(), module.state_dict()), name
    assert whole.balancer is not None and float(whole.balancer.norms.min()) > 0


def test_dev_figures_hold_the_leakage_of_both_blocks(
    tmp_path: Path, cache: ClipCache, dev_cache: ClipCache
) -> None:
    one = Trainer(tiny_run(), cache, dev_cache, tmp_path)
    figures = one.evaluate(batches=1)
    for name in ("emotion", "acoustic", "emotion_shape", "acoustic_shape"):
        assert 0 <= figures[f"leakage_{name}"] <= 1


def test_a_teacher_that_is_missing_is_named(tmp_path: Path, cache: ClipCache) -> None:
    with pytest.raises(ValueError, match=r"loss\.teacher is above 0"):
        run(tmp_path, cache, loss=LossWeights(teacher=1.0))
    with pytest.raises(ValueError, match=r"loss\.cycle_teacher is above 0"):
        run(tmp_path, cache, loss=LossWeights(cycle_teacher=1.0))
    with pytest.raises(ValueError, match="mel must be 0 or more, got -1"):
        LossWeights(mel=-1.0)
