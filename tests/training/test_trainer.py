# SPDX-License-Identifier: Apache-2.0
"""The training loop: it learns, stops, resumes to the bit, and exports what it learned."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import torch

from affectcodec import AffectCodec
from affectcodec.training.batches import Batch
from affectcodec.training.cache import ClipCache
from affectcodec.training.config import TrainConfig
from affectcodec.training.run_state import latest_checkpoint, save_checkpoint
from affectcodec.training.trainer import Trainer, TrainingError
from tests.codec_fixtures import speech_like
from tests.training.sounds import same_tensors, tiny_run

pytest.importorskip("tensorboard")


def trainer(folder: Path, cache: ClipCache, dev: ClipCache | None = None, **changes) -> Trainer:
    return Trainer(tiny_run(**changes), cache, dev, folder)


def weights(t: Trainer) -> dict[str, torch.Tensor]:
    return {
        f"{name}.{key}": value.clone()
        for name, module in t.modules.items()
        for key, value in module.state_dict().items()
    }


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_killed_run_resumes_to_the_same_bits(
    tmp_path: Path, cache: ClipCache, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trainer(tmp_path / "whole", cache, precision=precision)
    for _ in range(6):
        whole.train_step()

    killed = trainer(tmp_path / "killed", cache, precision=precision)
    step = killed.train_step

    def step_and_be_killed() -> dict[str, float]:
        figures = step()
        if killed.step == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return figures

    monkeypatch.setattr(killed, "train_step", step_and_be_killed)
    before = signal.getsignal(signal.SIGTERM)
    killed.run(progress=False)
    assert killed.step == 4
    assert signal.getsignal(signal.SIGTERM) == before
    path = latest_checkpoint(tmp_path / "killed")
    assert path is not None and path.name == "step-00000004"

    torch.manual_seed(99)  # the state of the generators must not matter
    resumed = trainer(tmp_path / "killed", cache, precision=precision)
    assert resumed.resume()
    assert resumed.step == 4
    resumed.run(progress=False)
    assert resumed.step == 6
    assert same_tensors(weights(resumed), weights(whole))


def test_a_run_leaves_what_is_needed_to_read_it(
    tmp_path: Path, cache: ClipCache, dev_cache: ClipCache
) -> None:
    run = trainer(tmp_path, cache, dev_cache)
    run.run(progress=False)
    record = json.loads((tmp_path / "config.json").read_text())
    assert TrainConfig.from_dict(record) == run.config
    assert sorted(p.name for p in tmp_path.glob("step-*")) == ["step-00000003", "step-00000006"]
    (line,) = [json.loads(line) for line in (tmp_path / "dev.jsonl").read_text().splitlines()]
    assert line["step"] == 4
    # A codec with four stages is judged at 1, 2 and 4, not at 8.
    stages = {key.split("/")[1] for key in line if "/" in key}
    assert stages == {"stages_1", "stages_2", "stages_4"}
    assert all(isinstance(value, int | float) for value in line.values())
    assert list(tmp_path.glob("events.out.tfevents.*"))
    assert not run.resume() or run.step == 6


def test_there_is_nothing_to_resume_in_a_new_folder(tmp_path: Path, cache: ClipCache) -> None:
    run = trainer(tmp_path / "new", cache)
    assert run.resume() is False
    assert run.step == 0


def test_training_lowers_the_loss(tmp_path: Path, cache: ClipCache) -> None:
    run = trainer(tmp_path, cache, steps=40, warmup_steps=4, decay_steps=1, learning_rate=3e-3)
    losses = [run.train_step()["loss"] for _ in range(40)]
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


def test_the_export_loads_and_is_the_averaged_codec(tmp_path: Path, cache: ClipCache) -> None:
    run = trainer(tmp_path, cache)
    for _ in range(3):
        run.train_step()
    run.export(tmp_path / "out", {"corpus": "tones"})
    codec = AffectCodec.from_pretrained(tmp_path / "out")
    assert same_tensors(codec.state_dict(), run.ema.state_dict())
    assert not same_tensors(codec.state_dict(), run.codec.state_dict())
    assert codec.fingerprint == run.ema.fingerprint
    wav = speech_like(3200)
    assert torch.equal(codec.decode(codec.encode(wav)), run.ema.decode(run.ema.encode(wav)))
    metadata = json.loads((tmp_path / "out" / "config.json").read_text())["metadata"]
    assert metadata["steps"] == 3 and metadata["corpus"] == "tones"


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path, cache: ClipCache) -> None:
    run = trainer(tmp_path, cache)
    run.train_step()
    with torch.no_grad():
        run.codec.decoder.head.bias[0] = float("nan")
    with pytest.raises(TrainingError, match="loss of step 1 is not finite .*mel.*learning_rate"):
        run.train_step()
    assert run.step == 1


def test_a_gradient_that_is_not_finite_changes_nothing(tmp_path: Path, cache: ClipCache) -> None:
    run = trainer(tmp_path, cache)
    before = weights(run)
    run.codec.decoder.head.bias.register_hook(lambda grad: grad * float("nan"))
    with pytest.raises(TrainingError, match="gradient of step 0"):
        run.train_step()
    assert same_tensors(weights(run), before)


def test_a_further_loss_is_part_of_the_step_and_of_its_figures(
    tmp_path: Path, cache: ClipCache, dev_cache: ClipCache
) -> None:
    plain = trainer(tmp_path, cache)
    seen: list[tuple[torch.Tensor, Batch]] = []

    def further(wav: torch.Tensor, batch: Batch) -> dict[str, torch.Tensor]:
        seen.append((wav, batch))
        return {"loudest": 3.0 * wav.abs().max(), "offset": wav.new_tensor(0.25)}

    run = Trainer(tiny_run(), cache, dev_cache, tmp_path, extra_loss=further)
    want, got = plain.train_step(), run.train_step()
    ((wav, batch),) = seen
    assert wav.shape == batch.wav.shape and wav.requires_grad
    assert got["extra_loudest"] == pytest.approx(3 * float(wav.detach().abs().max()))
    assert got["extra_offset"] == 0.25
    assert got["loss"] == pytest.approx(want["loss"] + got["extra_loudest"] + 0.25, rel=1e-5)
    assert not same_tensors(weights(run), weights(plain))  # its gradient arrived
    assert not any(name.startswith("extra") for name in run.evaluate(batches=1))
    assert len(seen) == 1


def test_evaluation_changes_nothing_and_is_repeatable(
    tmp_path: Path, cache: ClipCache, dev_cache: ClipCache
) -> None:
    run = trainer(tmp_path, cache, dev_cache)
    run.train_step()
    before = weights(run)
    first = run.evaluate(batches=1)
    assert run.evaluate(batches=1) == first
    assert same_tensors(weights(run), before)


def test_equal_seeds_start_equally(tmp_path: Path, cache: ClipCache) -> None:
    a, b, c = (trainer(tmp_path, cache, seed=seed) for seed in (1, 1, 2))
    assert same_tensors(weights(a), weights(b))
    assert not same_tensors(weights(a), weights(c))


def test_an_unfinished_checkpoint_is_not_resumed(tmp_path: Path, cache: ClipCache) -> None:
    run = trainer(tmp_path, cache)
    run.train_step()
    good = run.save()
    (tmp_path / "step-00000009").mkdir()
    (tmp_path / ".part-00000005").mkdir()
    assert latest_checkpoint(tmp_path) == good


def test_old_checkpoints_are_removed(tmp_path: Path, cache: ClipCache) -> None:
    run = trainer(tmp_path, cache)
    run.train_step()
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, step, run.modules, run.optimizers, {"seconds": 0.0})
    assert sorted(p.name for p in tmp_path.glob("step-*")) == ["step-00000002", "step-00000003"]
