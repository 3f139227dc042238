# SPDX-License-Identifier: Apache-2.0
"""Frozen configuration of how a run is spread over processes, and of its guard."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ScaleConfig:
    """What lets a run grow beyond one small process. None of it changes what is learned.

    Args:
        accumulate: parts in which each process works through its share of a batch; more parts take
            less memory. Means over voiced frames or labelled clips are then taken part by part.
        recompute: keep the inputs of layers only, and compute the rest again in the backward pass.
        compile: ``torch.compile`` of the networks.
        shard: spread weights, gradients and optimizer over the processes (FSDP2) instead of a copy
            in each (DDP), for what outgrows a card.
    """

    accumulate: int = 1
    recompute: bool = False
    compile: bool = False
    shard: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.accumulate, int) or self.accumulate < 1:
            raise ValueError(
                f"ScaleConfig: accumulate must be a positive integer, got {self.accumulate!r}"
            )
        for name in ("recompute", "compile", "shard"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(
                    f"ScaleConfig: {name} must be true or false, got {getattr(self, name)!r}"
                )


@dataclass(frozen=True)
class GuardConfig:
    """When a run goes back to its last checkpoint.

    A loss or gradient that is not finite is reason enough. So is a loss above ``spike`` times the
    median of the last ``window`` steps, ``patience`` steps in a row: clipping deals with less.

    Args:
        spike: 0 leaves spikes alone.
        window, patience: in steps.
        rollbacks: so many are made, one more ends the run; 0 ends it at the first reason.
        learning_rate: factor of the learning rate after each.
    """

    spike: float = 4.0
    window: int = 100
    patience: int = 5
    rollbacks: int = 3
    learning_rate: float = 0.5

    def __post_init__(self) -> None:
        if self.spike != 0 and not 1 < self.spike < float("inf"):
            raise ValueError(
                f"GuardConfig: spike must be above 1, or 0 for none, got {self.spike!r}"
            )
        for name, low in (("window", 2), ("patience", 1), ("rollbacks", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < low:
                raise ValueError(f"GuardConfig: {name} must be an integer from {low} on: {value!r}")
        if not 0 < self.learning_rate <= 1:
            raise ValueError(
                f"GuardConfig: learning_rate is a factor in (0, 1], got {self.learning_rate!r}"
            )
