# SPDX-License-Identifier: Apache-2.0
"""Configuration of a run: schedule, checks, dictionaries."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from affectcodec.training.config import (
    AdversarialConfig,
    DiscriminatorConfig,
    LossWeights,
    TrainConfig,
)
from affectcodec.training.losses import SpectralLosses
from tests.codec_fixtures import speech_like
from tests.training.sounds import tiny_run


def test_learning_rate_schedule() -> None:
    config = TrainConfig(steps=1000, learning_rate=2.0, warmup_steps=10, decay_steps=100)
    rates = [config.learning_rate_at(step) for step in range(1000)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[9] == rates[500] == rates[900] == pytest.approx(2.0)
    assert rates[950] == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(0.04)  # never under 2 %
    assert rates[:10] == sorted(rates[:10])
    assert rates[900:] == sorted(rates[900:], reverse=True)


def test_round_trip_through_json() -> None:
    config = tiny_run(dataset_weights={"a": 2.0}, loss=LossWeights(mel=0.3), speeds=(1.0,), seed=9)
    sizes = DiscriminatorConfig(periods=(2, 3), spectrum_sizes=())
    adversarial = AdversarialConfig(start=5, share=None, discriminators=sizes)
    config = dataclasses.replace(config, adversarial=adversarial, frozen=("encoder",))
    again = TrainConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config
    assert again.codec.hash == config.codec.hash


def test_unknown_keys_are_named() -> None:
    data = tiny_run().to_dict()
    with pytest.raises(ValueError, match="unknown keys \\['momentum'\\]"):
        TrainConfig.from_dict({**data, "momentum": 0.9})
    data["codec"]["dropout"] = 1
    with pytest.raises(ValueError, match="dropout"):
        TrainConfig.from_dict(data)


def test_missing_and_unknown_keys_of_the_parts_are_named() -> None:
    data = tiny_run().to_dict()
    with pytest.raises(ValueError, match="LossWeights: unknown keys \\['mell'\\]"):
        TrainConfig.from_dict({**data, "loss": {"mell": 1.0}})
    with pytest.raises(ValueError, match="AdversarialConfig: unknown keys \\['begin'\\]"):
        TrainConfig.from_dict({**data, "adversarial": {"begin": 1}})
    with pytest.raises(ValueError, match="DiscriminatorConfig: unknown keys \\['size'\\]"):
        TrainConfig.from_dict({**data, "adversarial": {"discriminators": {"size": 1}}})
    del data["codec"]["quantizer"]["bound"]
    with pytest.raises(ValueError, match="missing keys \\['bound'\\]"):
        TrainConfig.from_dict(data)
    assert TrainConfig.from_dict({}) == TrainConfig()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"steps": 0}, "steps must be a positive integer, got 0"),
        ({"batch_size": 2.5}, "batch_size"),
        ({"stage_choices": (1, 5), "stage_weights": (1.0, 1.0)}, "1..4, got 5"),
        ({"stage_choices": (1, 2)}, "equal lengths, got 2 and 3"),
        ({"precision": "fp8"}, "'fp8'"),
        ({"frozen": ("source",)}, "frozen must name some of .*got \\['source'\\]"),
        ({"frozen": ("encoder", "quantizer", "decoder")}, "but not all"),
        ({"crop_frames": 20}, "crop_frames must be at least 21, .*6144 samples.*, got 20"),
    ],
)
def test_bad_runs_are_named(changes: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        tiny_run(**changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"loss": "wgan"}, "'hinge' or 'lsgan', got 'wgan'"),
        ({"every": 0}, "every must be at least 1"),
        ({"crop_samples": 100}, "at least 1024, got 100"),
        ({"share": 0.0}, "share must be positive"),
    ],
)
def test_bad_adversarial_settings_are_named(changes: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        AdversarialConfig(**changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"periods": (), "spectrum_sizes": ()}, "both empty"),
        ({"periods": (0,)}, "periods must be positive"),
        ({"period_channels": ()}, "period_channels must name"),
        ({"spectrum_sizes": (30,)}, "multiples of 4, at least 32, got 30"),
        ({"compression": 0.0}, r"compression must lie in \(0, 1\]"),
    ],
)
def test_bad_discriminators_are_named(changes: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        DiscriminatorConfig(**changes)


def test_the_shortest_crop_has_every_loss() -> None:
    config = tiny_run(crop_frames=21)
    wave = speech_like((config.crop_frames - 1) * config.codec.hop_length)[None]
    terms = SpectralLosses(config.codec.sample_rate)(0.5 * wave, wave)
    assert all(bool(torch.isfinite(value)) for value in terms.values())
