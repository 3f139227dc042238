# SPDX-License-Identifier: Apache-2.0
"""A run from its first step to its last: steps, guard, checkpoints, reports, and being stopped."""

from __future__ import annotations

import json
import platform
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tqdm import tqdm

from affectcodec.training.guard import TrainingError
from affectcodec.training.run_report import RunReport, gradient_norms

if TYPE_CHECKING:
    from affectcodec.training.trainer import Trainer

DATA_REPORT_NAME = "data.json"


class _Stop:
    """Ctrl-C and SIGTERM ask for a checkpoint; a second one ends the process at once."""

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> _Stop:
        self._before = {
            number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: Any) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True


def freeze(trainer: Trainer) -> None:
    """Write configuration and surroundings into the run folder.

    A configuration that was changed when the run was resumed does not replace the one before: that
    stays as ``config.before-step-N.json``.
    """
    folder = trainer.folder
    text = json.dumps(trainer.config.to_dict(), indent=2) + "\n"
    path = folder / "config.json"
    if path.is_file() and path.read_text() != text and trainer.step:
        path.replace(folder / f"config.before-step-{trainer.step:08d}.json")
    _write(path, text)
    surroundings = {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.platform(),
        "device": str(trainer.world.device),
        "processes": trainer.world.size,
        "threads": torch.get_num_threads(),
        "step": trainer.step,
    }
    with open(folder / "environment.jsonl", "a") as file:
        file.write(json.dumps(surroundings) + "\n")


def _write(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(text)
    part.replace(path)


def run(trainer: Trainer, *, progress: bool = True) -> None:
    """Train to ``config.steps``; Ctrl-C and SIGTERM save a checkpoint and return.

    Raises:
        TrainingError: if the run cannot go on; its last checkpoint stays as it was.
    """
    config, world = trainer.config, trainer.world
    trainer.folder.mkdir(parents=True, exist_ok=True)
    if world.leads:
        freeze(trainer)
    report = RunReport(trainer) if world.leads else None
    bar = tqdm(
        total=config.steps,
        initial=trainer.step,
        desc="training",
        disable=not (progress and world.leads),
    )
    before, started = trainer.seconds, time.monotonic()
    whole = False  # whether the run ended between two steps, where it can be saved
    with _Stop() as stop:
        try:
            while trainer.step < config.steps:
                # One process that was asked to stop is enough: all save the same step.
                if world.agree(float(stop.requested))[0]:
                    break
                reason = ""
                try:
                    figures = trainer.train_step()
                    reason = trainer.guard.watch(figures["loss"])
                except TrainingError as error:
                    reason = str(error)
                if reason:
                    done = trainer.roll_back(reason)
                    bar.n = trainer.step
                    if report is not None:
                        report.rolled_back(done)
                    continue
                trainer.seconds = before + time.monotonic() - started
                bar.update()
                if trainer.step % config.log_every == 0:
                    figures.update(gradient_norms(trainer))
                if report is not None:
                    report.step(figures, bar)
                if trainer.step % config.checkpoint_every == 0:
                    trainer.save()
                if trainer.dev is not None and trainer.step % config.eval_every == 0:
                    found = trainer.evaluate()
                    if report is not None:
                        report.evaluation(found)
            whole = True
        finally:
            bar.close()
            trainer.close()
            if whole and trainer.step:
                trainer.save()
            if report is not None:
                trainer.report.write(trainer.folder / DATA_REPORT_NAME)
                report.close()
