# SPDX-License-Identifier: Apache-2.0
"""The protocol of teachers. A new teacher is one class with four attributes and one method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from torch import Tensor


@dataclass(frozen=True)
class TeacherClip:
    """What a teacher may look at: ``wav`` float32 ``[N]`` and the labels of the clip."""

    wav: np.ndarray
    sample_rate: int
    labels: Mapping[str, float | int | str] = field(default_factory=dict)


@runtime_checkable
class Teacher(Protocol):
    """Targets of a clip.

    Attributes:
        name: for people.
        fingerprint: hexadecimal digits over everything that the targets depend on besides the
            clip: weights, settings. Cached targets are found by it.
        dim: numbers a row.
        rate: rows a second, None for one row a clip.
    """

    name: str
    fingerprint: str
    dim: int
    rate: float | None

    def targets(self, clip: TeacherClip) -> np.ndarray:
        """Float32 ``[rows, dim]``; NaN where the teacher has nothing to say."""
        ...


@runtime_checkable
class WaveTeacher(Protocol):
    """A teacher that can be asked about decoded audio, with a gradient."""

    def embed(self, wav: Tensor) -> Tensor:
        """``wav [B, N]`` at the codec's rate to ``[B, rows, dim]``, differentiable by ``wav``."""
        ...
