# SPDX-License-Identifier: Apache-2.0
"""What a run tells TensorBoard, and that its figures are those of the run."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from affectcodec.training.cache import ClipCache
from affectcodec.training.run_report import gradient_norms, spectrogram
from affectcodec.training.trainer import Trainer
from tests.training.sounds import tiny_run, tone

pytest.importorskip("tensorboard")


def test_a_run_shows_its_inside(tmp_path: Path, cache: ClipCache, dev_cache: ClipCache) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = Trainer(tiny_run(steps=4, log_every=2, eval_every=4), cache, dev_cache, tmp_path)
    run.run(progress=False)
    events = EventAccumulator(str(tmp_path), size_guidance={"images": 0, "audio": 0})
    events.Reload()
    tags = events.Tags()
    scalars = set(tags["scalars"])
    for part in ("data", "encoder", "quantizer", "decoder", "losses", "optimizer"):
        assert f"time/{part}" in scalars and f"share/{part}" in scalars
    for name in ("loss", "gradient_norm", "learning_rate", "audio_seconds_per_second"):
        assert f"train/{name}" in scalars
    for part in ("encoder", "quantizer", "decoder"):
        assert f"train/gradient_norm_{part}" in scalars
    assert "dev/emotion_accuracy/stages_4" in scalars
    digits = [tag for tag in scalars if tag.startswith("dev_digits/")]
    assert len(digits) == 4 * 6  # stages times dims of both blocks
    assert all(0 <= event.value <= 1 for tag in digits for event in events.Scalars(tag))
    assert len([t for t in tags["histograms"] if t.startswith("dev_levels/")]) == len(digits)
    assert tags["images"] and "dev_audio/0_original" in tags["audio"]
    shares = [events.Scalars(tag)[-1].value for tag in scalars if tag.startswith("share/")]
    assert sum(shares) == pytest.approx(1, abs=1e-3)
    assert [event.step for event in events.Scalars("train/loss")] == [2, 4]


def test_norms_of_the_parts_make_that_of_the_whole(tmp_path: Path, cache: ClipCache) -> None:
    run = Trainer(tiny_run(clip_norm=1e9), cache, None, tmp_path)
    figures = run.train_step()
    parts = gradient_norms(run)
    head = [p.grad.square().sum() for p in run.emotion_head.parameters() if p.grad is not None]
    whole = math.sqrt(sum(v * v for v in parts.values()) + float(torch.stack(head).sum()))
    assert figures["gradient_norm"] == pytest.approx(whole, rel=1e-4)


def test_a_tone_is_a_line() -> None:
    picture = spectrogram(torch.from_numpy(tone(1000.0)))
    assert picture.shape[0] == 257
    assert float(picture.min()) >= 0 and float(picture.max()) <= 1
    row = int(picture.mean(1).argmax())
    assert abs((256 - row) * 31.25 - 1000) <= 31.25
