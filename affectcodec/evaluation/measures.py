# SPDX-License-Identifier: Apache-2.0
"""What is measured of one clip after one codec: a row of `MEASURES` each.

A measure sees a `Pair` and gives a JSON object or an array; both are cached under its name and
version. To add one: write a function, add a row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from affectcodec.evaluation.alignment import active_region
from affectcodec.evaluation.metrics import METRICS_VERSION, measure
from affectcodec.evaluation.store import Value
from affectcodec.manifest import Clip


@dataclass(frozen=True)
class Pair:
    """An original and what a codec made of it: float32 `[n]` each, 16 kHz, delay removed."""

    clip: Clip
    ref: np.ndarray
    deg: np.ndarray

    @cached_property
    def region(self) -> slice:
        """Where the original speaks, 100 ms on both sides; the same for every codec."""
        region = active_region(self.ref)
        if region is None:
            raise ValueError("the original is silent")
        return slice(*region)

    @property
    def speech(self) -> np.ndarray:
        """The coded wave where the original speaks."""
        return self.deg[self.region]


def _reconstruction(pair: Pair) -> Value:
    scores = measure(pair.ref, pair.deg)
    return {**scores.values, "failures": scores.failures}


def _egemaps(pair: Pair) -> Value:
    from affectcodec.evaluation.egemaps import functionals

    return functionals(pair.speech)


def _whisper(pair: Pair) -> Value:
    from affectcodec.evaluation.whisper import shared

    return shared().statistics(pair.speech)


def _transcript(pair: Pair) -> Value:
    from affectcodec.evaluation.whisper import shared

    return {"text": shared().transcribe(pair.speech, pair.clip.language or "en")}


@dataclass(frozen=True)
class Measure:
    """One measure.

    Attributes:
        name: as on the command line.
        version: raised when its values change, so that old ones are measured anew.
        compute: raises ValueError where it has no value; the reason is kept in place of it.
        meaning: one line of help.
        wants: whether a clip is worth it (a transcript needs a reference).
    """

    name: str
    version: int
    compute: Callable[[Pair], Value]
    meaning: str
    wants: Callable[[Clip], bool] = lambda clip: True


MEASURES: tuple[Measure, ...] = (
    Measure(
        "reconstruction",
        METRICS_VERSION,
        _reconstruction,
        "F0, voicing, energy, PESQ-WB, STOI, ESTOI, mel distance",
    ),
    Measure("egemaps", 1, _egemaps, "88 eGeMAPS functionals: first judge, concordance"),
    Measure("whisper", 1, _whisper, "Whisper encoder statistics: second judge"),
    Measure(
        "transcript",
        1,
        _transcript,
        "words recognised by Whisper: WER and CER",
        wants=lambda clip: bool(clip.transcript),
    ),
)
BY_NAME = {row.name: row for row in MEASURES}


def find_measures(names: Sequence[str]) -> tuple[Measure, ...]:
    """Rows by name, in the order of `MEASURES`.

    Raises:
        ValueError: an unknown name, or none.
    """
    unknown = sorted(set(names) - set(BY_NAME))
    if unknown or not names:
        raise ValueError(f"measures: got {unknown or 'none'}, wanted some of {list(BY_NAME)}")
    return tuple(row for row in MEASURES if row.name in names)
