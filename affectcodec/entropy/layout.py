# SPDX-License-Identifier: Apache-2.0
"""The digits of a frame in the order in which they are coded, and where each is seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.signedinteger[Any]]


@dataclass(frozen=True)
class DigitLayout:
    """Blocks of a token and how many stages they may have.

    A frame's digits are coded block after block, stage after stage, dim after dim: emotion first,
    as in a packet. `D` is their number at all stages. A digit is shown to the network as one of
    `E` indicator inputs, or as none where its stage is absent.

    Args:
        names: block names in latent order.
        levels: levels of each code dim of each block.
        num_stages: most stages of a block.
    """

    names: tuple[str, ...]
    levels: tuple[tuple[int, ...], ...]
    num_stages: int

    @cached_property
    def block_of(self) -> npt.NDArray[np.int64]:
        """Block index of each digit, ``[D]``."""
        return np.array([b for b, k in self._order() for _ in self.levels[b]])

    @cached_property
    def stage_of(self) -> npt.NDArray[np.int64]:
        """Stage of each digit, ``[D]``, from 0."""
        return np.array([k for b, k in self._order() for _ in self.levels[b]])

    @cached_property
    def digit_levels(self) -> npt.NDArray[np.int64]:
        """Levels of each digit, ``[D]``."""
        return np.array([level for b, _ in self._order() for level in self.levels[b]])

    @cached_property
    def offsets(self) -> npt.NDArray[np.int64]:
        """First indicator of each digit, ``[D]``."""
        return np.concatenate([[0], np.cumsum(self.digit_levels)[:-1]])

    @property
    def num_digits(self) -> int:
        """D."""
        return len(self.digit_levels)

    @property
    def num_indicators(self) -> int:
        """E."""
        return int(self.digit_levels.sum())

    @property
    def num_counts(self) -> int:
        """Indicators of the stage counts of a frame: one of ``num_stages + 1`` for each block."""
        return len(self.names) * (self.num_stages + 1)

    def _order(self) -> list[tuple[int, int]]:
        return [(b, k) for b in range(len(self.levels)) for k in range(self.num_stages)]

    def digits(self, codes: Sequence[IntArray]) -> npt.NDArray[np.uint8]:
        """Digits ``[T, D]`` of codes per block ``[K_b, T]``; absent stages give 0."""
        frames = codes[0].shape[1]
        out = np.zeros((frames, self.num_digits), np.uint8)
        column = 0
        for block, levels in enumerate(self.levels):
            for stage in range(self.num_stages):
                if stage < len(codes[block]):
                    rest = codes[block][stage].astype(np.int64)
                    for dim, level in enumerate(levels):
                        out[:, column + dim] = rest % level
                        rest = rest // level
                column += len(levels)
        return out

    def codes(self, digits: npt.NDArray[np.uint8], most: Sequence[int]) -> list[IntArray]:
        """The inverse of :meth:`digits` for the first ``most[b]`` stages: int32 ``[most_b, T]``."""
        found: list[IntArray] = []
        column = 0
        for block, levels in enumerate(self.levels):
            out = np.zeros((most[block], len(digits)), np.int32)
            for stage in range(self.num_stages):
                if stage < most[block]:
                    base = 1
                    for dim, level in enumerate(levels):
                        out[stage] += digits[:, column + dim].astype(np.int32) * base
                        base *= level
                column += len(levels)
            found.append(out)
        return found

    def present(self, stages: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
        """Which digits ``[T, D]`` are there, of stage counts ``[G, T]``."""
        return (self.stage_of[None] < stages.T[:, self.block_of]).astype(bool)

    def indicators(
        self, digits: npt.NDArray[np.uint8], present: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.float32]:
        """Indicator inputs ``[T, E]`` of digits ``[T, D]``."""
        out = np.zeros((len(digits), self.num_indicators), np.float32)
        row, column = np.nonzero(present)
        out[row, self.offsets[column] + digits[row, column]] = 1.0
        return out

    def count_indicators(self, stages: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Indicator inputs ``[T, C]`` of stage counts ``[G, T]``."""
        out = np.zeros((stages.shape[1], self.num_counts), np.float32)
        for block, counts in enumerate(stages):
            out[np.arange(len(counts)), block * (self.num_stages + 1) + counts] = 1.0
        return out
