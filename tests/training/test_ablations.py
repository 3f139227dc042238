# SPDX-License-Identifier: Apache-2.0
"""Ablations differ only where they say, have equal bits, and train."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from affectcodec.training.ablations import ablations
from affectcodec.training.cache import ClipCache
from affectcodec.training.config import TrainConfig
from affectcodec.training.trainer import Trainer
from tests.codec_fixtures import speech_like
from tests.training.sounds import tiny_run

NAMES = ["rvq", "rfsq", "bd-rfsq", "bd-rfsq+mrt", "bd-rfsq+mrt+cem"]


def runs(**changes: Any) -> dict[str, TrainConfig]:
    return ablations(tiny_run(batch_size=2, **changes))


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            out.update(flat(value, f"{prefix}{key}."))
        else:
            out[prefix + key] = value
    return out


def difference(a: TrainConfig, b: TrainConfig) -> set[str]:
    x, y = flat(a.to_dict()), flat(b.to_dict())
    return {key for key in x.keys() | y.keys() if x.get(key) != y.get(key)}


def test_neighbours_differ_in_the_one_thing_they_are_named_for() -> None:
    found = runs()
    assert list(found) == NAMES
    kind = {"codec.quantizer.kind"}
    assert difference(found["rvq"], found["rfsq"]) == kind
    assert difference(found["rfsq"], found["bd-rfsq"]) == kind
    assert difference(found["bd-rfsq"], found["bd-rfsq+mrt"]) == {
        "told_rates",
        "stage_choices",
        "stage_weights",
    }
    assert difference(found["bd-rfsq+mrt"], found["bd-rfsq+mrt+cem"]) == {
        "codec.network.conditioning"
    }


def test_bits_and_decoded_seconds_are_equal() -> None:
    found = runs()
    bits = {tuple(c.codec.kbps(k) for k in (1, 2, 4)) for c in found.values()}
    assert len(bits) == 1
    assert {(c.batch_size, c.rates) for c in found.values()} == {(2, ())}
    assert found["bd-rfsq+mrt"].told_rates == (2, 4)  # of the 4 stages there are
    assert {c.codec.quantizer.codebook_size for c in found.values()} == {512}


def test_baselines_refuse_stage_counts_of_their_own() -> None:
    data = runs()["rvq"].to_dict()
    with pytest.raises(ValueError, match="set independent_stages=0"):
        TrainConfig.from_dict({**data, "independent_stages": 0.1})


@pytest.mark.parametrize("name", NAMES)
def test_every_run_codes_what_it_trains(tmp_path: Path, cache: ClipCache, name: str) -> None:
    pytest.importorskip("tensorboard")
    run = Trainer(runs()[name], cache, None, tmp_path)
    figures = [run.train_step() for _ in range(2)]
    assert ("raw_commitment" in figures[0]) == (name == "rvq")
    codec = run.ema.eval()
    tokens = codec.encode(speech_like(3200), stages=2)
    assert codec.decode(tokens).shape == (1, 1, 3200)
    run.save()
    again = Trainer(runs()[name], cache, None, tmp_path)
    assert again.resume()
    a, b = run.train_step(), again.train_step()
    assert a["loss"] == b["loss"]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", NAMES)
def test_two_hundred_steps_lower_the_loss(tmp_path: Path, cache: ClipCache, name: str) -> None:
    pytest.importorskip("tensorboard")
    settings = {"steps": 200, "warmup_steps": 10, "decay_steps": 50, "learning_rate": 3e-3}
    run = Trainer(runs(**settings)[name], cache, None, tmp_path)
    mel = [run.train_step()["raw_mel"] for _ in range(200)]
    assert sum(mel[-40:]) < 0.8 * sum(mel[:40])
    if name == "rvq":
        used = run.codec.quantizer.encode(torch.randn(1, 36, 200)).unique()
        assert len(used) > 20
