# SPDX-License-Identifier: Apache-2.0
"""What a trainer keeps: checkpoints, rollbacks, warm starts, released weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from affectcodec.codec import AffectCodec
from affectcodec.training.config import TrainConfig
from affectcodec.training.data_report import DataReport
from affectcodec.training.distributed import World
from affectcodec.training.guard import Guard, TrainingError
from affectcodec.training.run_state import (
    latest_checkpoint,
    load_checkpoint,
    load_warm_state,
    save_checkpoint,
    save_warm_state,
)


class Resumable:
    """The saved side of a trainer; ``Trainer`` makes the attributes."""

    config: TrainConfig
    folder: Path
    world: World
    report: DataReport
    guard: Guard
    codec: AffectCodec
    ema: AffectCodec
    modules: dict[str, nn.Module]
    optimizers: dict[str, torch.optim.Optimizer]
    loader_state: dict[str, Any]
    step: int
    seconds: float

    def close(self) -> None:
        """End the processes that make batches."""
        raise NotImplementedError

    def save(self) -> Path:
        """Checkpoint now; all processes call it."""
        record = {
            "seconds": self.seconds,
            "config": self.config.to_dict(),
            "guard": self.guard.state(),
            "report": self.report.state(),
        }
        own = {"loader": self.loader_state}
        return save_checkpoint(
            self.folder, self.step, self.modules, self.optimizers, record, own, world=self.world
        )

    def resume(self, at_most: int | None = None) -> bool:
        """Continue from the newest checkpoint of the run folder; False if there is none."""
        path = latest_checkpoint(self.folder, at_most)
        if path is None:
            return False
        optional = ("adversary", "adversary_optimizer", "balancer")
        record, own = load_checkpoint(
            path, self.modules, self.optimizers, optional, world=self.world
        )
        self.codec.quantizer.refold()
        self.ema.quantizer.refold()
        self.step, self.seconds = int(record["step"]), float(record["seconds"])
        if "guard" in record:
            self.guard.load(record["guard"])
        if "report" in record:
            self.report.load(record["report"])
        self.loader_state = own.get("loader", {})
        self.close()
        return True

    def roll_back(self, reason: str) -> str:
        """Go back to the last checkpoint, past the data that went wrong; returns what was done.

        Raises:
            TrainingError: with ``reason`` if there is no checkpoint, or too many rollbacks.
        """
        path = latest_checkpoint(self.folder)
        if path is None or not self.config.guard.rollbacks:
            raise TrainingError(reason)
        failed, guard = self.step, self.guard
        to = int(path.name.removeprefix("step-"))
        done = guard.roll_back(failed, to, reason)
        state, report = guard.state(), self.report.state()
        self.resume()
        guard.load(state)
        self.report.load(report)
        return (
            f"step {done.step}: {done.reason}. Back to step {done.to}; the batches between are "
            f"left out and the learning rate is {guard.learning_rate:g} times what it was"
        )

    def start_from(self, weights: str | Path) -> list[str]:
        """Take the codec of a pretrained folder or shipped name as the start of a new run.

        What else of a run lies beside the weights (:meth:`export` with ``warm``), heads,
        discriminators and optimizers, is taken as far as it fits.

        Returns:
            Names of what was taken besides the codec.

        Raises:
            ValueError: if its configuration is not that of this run.
        """
        codec = AffectCodec.from_pretrained(weights)
        if codec.config.hash != self.config.codec.hash:
            raise ValueError(
                f"weights: {weights} is codec {codec.config.hash}, this run trains "
                f"{self.config.codec.hash}; set TrainConfig.codec to that of the weights"
            )
        for module in (self.codec, self.ema):
            module.load_state_dict(codec.state_dict())
        return load_warm_state(weights, self.modules, self.optimizers)

    def export(
        self, folder: str | Path, metadata: dict[str, Any] | None = None, *, warm: bool = False
    ) -> None:
        """Write the averaged weights as a pretrained folder; with ``warm`` what a run that starts
        from them would otherwise have to learn anew beside them."""
        if not self.world.leads:
            return
        training = {"steps": self.step, "seconds": round(self.seconds)}
        self.ema.save_pretrained(folder, metadata={**training, **(metadata or {})})
        if warm:
            save_warm_state(folder, self.modules, self.optimizers)
