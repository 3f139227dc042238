# SPDX-License-Identifier: Apache-2.0
"""Where the time of a step goes: every part is seen, and the parts make the whole."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from affectcodec.training.breakdown import PARTS, StepTimer
from affectcodec.training.cache import ClipCache
from affectcodec.training.trainer import Trainer
from tests.codec_fixtures import HOP, speech_like, tiny_codec
from tests.training.distributed_run import settings
from tests.training.sounds import tiny_run


def test_marks_name_what_was_before_them() -> None:
    timer = StepTimer()
    timer.start()
    time.sleep(0.02)
    timer.mark("data")
    time.sleep(0.01)
    timer.mark("losses")
    timer.end()
    assert timer.steps == 1
    assert timer.seconds["data"] >= 0.02 and timer.seconds["losses"] >= 0.01
    assert sum(timer.shares().values()) == pytest.approx(1)
    assert timer.take()["data"] >= 0.02
    assert not any(timer.seconds.values()) and not any(timer.shares().values())
    timer.start(on=False)
    timer.mark("data")
    timer.end()
    assert timer.steps == 0 and not any(timer.seconds.values())


def test_slow_parts_are_found_forward_and_backward() -> None:
    codec = tiny_codec().requires_grad_(True)
    timer = StepTimer()
    timer.watch(codec)
    for name in ("encoder", "decoder"):
        codec.get_submodule(name).register_forward_pre_hook(lambda *_: time.sleep(0.05))
    wav = speech_like(20 * HOP)[None, None]
    timer.start()
    out = codec(wav)
    out.latent.register_hook(lambda grad: time.sleep(0.1))
    out.wav.square().sum().backward()
    timer.mark("encoder")
    timer.end()
    # The pause before the encoder's own hook belongs to it; that at the latent's gradient to the
    # quantizer, whose backward it begins.
    assert timer.seconds["encoder"] > 0.05 and timer.seconds["decoder"] > 0.05
    assert timer.seconds["quantizer"] > 0.1
    assert timer.seconds["rest"] < 0.05


def test_the_parts_of_a_training_step_are_its_time(tmp_path: Path, cache: ClipCache) -> None:
    run = Trainer(tiny_run(**settings()), cache, None, tmp_path)
    run.train_step()
    run.timer.take()
    started = time.perf_counter()
    run.train_step()
    spent = time.perf_counter() - started
    found = run.timer.take()
    assert set(found) == set(PARTS)
    assert sum(found.values()) == pytest.approx(spent, rel=0.1)
    for part in PARTS[:-1]:
        assert found[part] > 0, part
    assert torch.get_num_threads() == 1
