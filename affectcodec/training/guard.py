# SPDX-License-Identifier: Apache-2.0
"""The guard of a run: says when a loss has left its course, and keeps what it decided."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from affectcodec.training.config_run import GuardConfig


class TrainingError(RuntimeError):
    """A run that cannot go on, with the reason."""


@dataclass(frozen=True)
class Rollback:
    """One return to a checkpoint."""

    step: int
    to: int
    reason: str


class Guard:
    """Watches the loss of a run, and counts its rollbacks.

    After a rollback the run sees data that it has not seen (``offset`` moves on), at a lower
    learning rate (``learning_rate``): the same step would only fail again. Its state is part of a
    checkpoint, so that a resumed run decides alike.
    """

    def __init__(self, config: GuardConfig) -> None:
        self.config = config
        self.losses: deque[float] = deque(maxlen=config.window)
        self.above = 0
        self.offset = 0
        self.learning_rate = 1.0
        self.rollbacks: list[Rollback] = []

    def watch(self, loss: float) -> str:
        """Take the loss of a step; the reason to go back, or an empty text."""
        config = self.config
        full = len(self.losses) == config.window
        usual = statistics.median(self.losses) if full else float("inf")
        if config.spike and full and loss > config.spike * usual:
            self.above += 1
            if self.above >= config.patience:
                return (
                    f"the loss was above {config.spike:g} times its median {usual:.4g} for "
                    f"{self.above} steps, now {loss:.4g}"
                )
            return ""  # kept out of the median, which has to stay what is usual
        self.above = 0
        self.losses.append(loss)
        return ""

    def roll_back(self, step: int, to: int, reason: str) -> Rollback:
        """Note a return from ``step`` to ``to``.

        Raises:
            TrainingError: if there were too many.
        """
        done = Rollback(step, to, reason)
        if len(self.rollbacks) >= self.config.rollbacks:
            raise TrainingError(
                f"{reason}; the run has gone back {len(self.rollbacks)} times before and stops "
                f"here. Its checkpoint of step {to} is good: lower learning_rate and resume"
            )
        self.rollbacks.append(done)
        self.offset += step - to + 1
        self.learning_rate *= self.config.learning_rate
        self.losses.clear()
        self.above = 0
        return done

    def state(self) -> dict[str, Any]:
        """JSON types."""
        return {
            "losses": list(self.losses),
            "above": self.above,
            "offset": self.offset,
            "learning_rate": self.learning_rate,
            "rollbacks": [[r.step, r.to, r.reason] for r in self.rollbacks],
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Inverse of :meth:`state`."""
        self.losses = deque(state["losses"], maxlen=self.config.window)
        self.above, self.offset = int(state["above"]), int(state["offset"])
        self.learning_rate = float(state["learning_rate"])
        self.rollbacks = [Rollback(int(a), int(b), str(c)) for a, b, c in state["rollbacks"]]
