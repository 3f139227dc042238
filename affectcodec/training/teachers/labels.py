# SPDX-License-Identifier: Apache-2.0
"""Labels of a corpus as a teacher."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence

import numpy as np

from affectcodec.training.teachers.protocol import TeacherClip


class LabelTeacher:
    """Numeric labels of a clip, one row, NaN where a label is missing.

    Args:
        names: of the labels, in the order of the columns.
    """

    name = "labels"
    rate: float | None = None

    def __init__(self, names: Sequence[str] = ("arousal", "valence")) -> None:
        if not names:
            raise ValueError("names: wanted at least one label, got none")
        self.names = tuple(names)
        self.dim = len(self.names)
        text = json.dumps(["labels", *self.names])
        self.fingerprint = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    def targets(self, clip: TeacherClip) -> np.ndarray:
        """``[1, dim]``.

        Raises:
            ValueError: on a label that is no number.
        """
        row = []
        for name in self.names:
            value = clip.labels.get(name, math.nan)
            try:
                row.append(float(value) if value != "" else math.nan)
            except ValueError as error:
                raise ValueError(f"label {name!r}: wanted a number, got {value!r}") from error
        return np.asarray([row], np.float32)
