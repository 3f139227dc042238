# SPDX-License-Identifier: Apache-2.0
"""The guard: what it takes for a spike, what it does then, and that it remembers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from affectcodec.training.cache import ClipCache
from affectcodec.training.config_run import GuardConfig
from affectcodec.training.guard import Guard, Rollback, TrainingError
from affectcodec.training.run_state import latest_checkpoint
from affectcodec.training.trainer import Trainer
from tests.training.sounds import same_tensors, tiny_run

CONFIG = GuardConfig(spike=3.0, window=5, patience=2, rollbacks=1, learning_rate=0.5)


def fed(losses: list[float], config: GuardConfig = CONFIG) -> list[str]:
    guard = Guard(config)
    return [guard.watch(loss) for loss in losses]


def test_a_spike_has_to_last() -> None:
    usual = [1.0, 1.1, 0.9, 1.0, 1.2]
    assert not any(fed([*usual, 9.0, 1.0, 9.0, 1.0]))
    said = fed([*usual, 9.0, 9.0])
    assert not any(said[:-1]) and "above 3 times its median 1" in said[-1]
    assert not any(fed([1.0, 1.0, 50.0, 50.0, 50.0]))  # too early to know what is usual
    off = GuardConfig(spike=0, window=5, patience=1)
    assert not any(fed([*usual, 99.0, 99.0], off))


def test_what_a_rollback_changes_and_that_it_is_kept() -> None:
    guard = Guard(CONFIG)
    for _ in range(5):
        guard.watch(1.0)
    assert guard.roll_back(107, 100, "why") == Rollback(107, 100, "why")
    assert (guard.offset, guard.learning_rate, len(guard.losses)) == (8, 0.5, 0)
    again = Guard(CONFIG)
    again.load(guard.state())
    assert again.state() == guard.state()
    with pytest.raises(TrainingError, match="new reason; the run has gone back 1 times"):
        again.roll_back(120, 100, "new reason")


def broken_at(run: Trainer, step: int) -> None:
    """The run's loss is NaN at one step, for the data of that step only."""
    losses = run._heard
    bad = run.step + step

    def heard(decoded, at):  # type: ignore[no-untyped-def]
        terms, figures = losses(decoded, at)
        if at == bad and not run.guard.rollbacks:
            terms["mel"] = terms["mel"] * float("nan")
        return terms, figures

    run._heard = heard  # type: ignore[method-assign]


def test_a_run_goes_back_past_the_bad_data_and_says_why(tmp_path: Path, cache: ClipCache) -> None:
    run = Trainer(tiny_run(steps=8, checkpoint_every=3), cache, None, tmp_path)
    broken_at(run, 4)
    run.run(progress=False)
    assert run.step == 8
    assert (run.guard.offset, run.guard.learning_rate) == (2, 0.5)
    (line,) = (tmp_path / "rollbacks.txt").read_text().splitlines()
    assert "step 4: the loss of step 4 is not finite (terms ['mel'])" in line
    assert "Back to step 3" in line and "0.5 times" in line
    assert all(bool(torch.isfinite(p).all()) for p in run.codec.parameters())
    # Resumed, the run knows what its guard decided.
    again = Trainer(tiny_run(steps=9, checkpoint_every=3), cache, None, tmp_path)
    assert again.resume()
    assert again.guard.state() == run.guard.state()


def test_a_run_without_a_checkpoint_or_rollbacks_stops(tmp_path: Path, cache: ClipCache) -> None:
    early = Trainer(tiny_run(steps=8), cache, None, tmp_path / "a")
    broken_at(early, 1)
    with pytest.raises(TrainingError, match="loss of step 1 is not finite"):
        early.run(progress=False)
    assert latest_checkpoint(tmp_path / "a") is None
    none = tiny_run(steps=8, checkpoint_every=1, guard=GuardConfig(rollbacks=0))
    run = Trainer(none, cache, None, tmp_path / "b")
    broken_at(run, 3)
    with pytest.raises(TrainingError, match="loss of step 3"):
        run.run(progress=False)
    path = latest_checkpoint(tmp_path / "b")
    assert path is not None and path.name == "step-00000003"  # good, and still there


def test_a_spike_sends_a_run_back(tmp_path: Path, cache: ClipCache) -> None:
    guard = GuardConfig(spike=5.0, window=4, patience=2)
    config = tiny_run(steps=10, checkpoint_every=5, guard=guard)
    run = Trainer(config, cache, None, tmp_path)
    step = run.train_step

    def train_step() -> dict[str, float]:
        figures = step()
        spiked = run.step in (7, 8) and not run.guard.rollbacks
        return {**figures, "loss": figures["loss"] * (100 if spiked else 1)}

    run.train_step = train_step  # type: ignore[method-assign]
    run.run(progress=False)
    assert [(r.step, r.to) for r in run.guard.rollbacks] == [(8, 5)]
    assert run.step == 10


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: GuardConfig(spike=0.5), "spike must be above 1"),
        (lambda: GuardConfig(window=1), "window must be an integer from 2 on"),
        (lambda: GuardConfig(learning_rate=0.0), "a factor in (0, 1]"),
    ],
)
def test_bad_settings_are_named(make, words: str) -> None:
    with pytest.raises(ValueError) as caught:
        make()
    assert words in str(caught.value)


def test_an_undisturbed_run_is_not_changed_by_its_guard(tmp_path: Path, cache: ClipCache) -> None:
    runs = [
        Trainer(tiny_run(guard=GuardConfig(spike=spike)), cache, None, tmp_path / str(spike))
        for spike in (0, 4.0)
    ]
    for run in runs:
        run.run(progress=False)
    assert same_tensors(*(run.codec.state_dict() for run in runs))
