# SPDX-License-Identifier: Apache-2.0
"""The clips of the demo: those that ship with the package, and the user's own."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from affectcodec.audio import load_audio

MAX_SECONDS = 30.0  # the page holds five versions of every clip


@dataclass(frozen=True)
class DemoClip:
    """One clip.

    Attributes:
        name: names its folder; unique within a run.
        title: for a heading.
        text: what is said, empty if unknown.
        credit: source and licence, empty for the user's own.
        wave: float32 ``[n]``, mono at the codec's rate.
    """

    name: str
    title: str
    text: str
    credit: str
    wave: np.ndarray


def samples_folder() -> Path:
    """Folder of the shipped clips."""
    return Path(__file__).parents[1] / "samples"


def shipped_clips(sample_rate: int) -> list[DemoClip]:
    """The clips of ``affectcodec/samples/manifest.csv``.

    Raises:
        AudioError: a clip is missing or damaged.
        OSError: the manifest is missing.
    """
    folder = samples_folder()
    with (folder / "manifest.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    voices = {"f": "Female voice", "m": "Male voice"}
    return [
        DemoClip(
            name=Path(row["path"]).stem,
            title=f"{voices[row['gender']]}, {row['source']}, speaker {row['speaker']}",
            text=row["transcript"],
            credit=f"{row['attribution']} ({row['licence']}), {row['source_id']}",
            wave=load_audio(folder / row["path"], sample_rate=sample_rate)[0],
        )
        for row in rows
    ]


def own_clips(paths: Sequence[Path], sample_rate: int) -> list[DemoClip]:
    """The user's audio files, each cut after ``MAX_SECONDS``.

    Raises:
        AudioError: a file cannot be read.
    """
    clips: list[DemoClip] = []
    for path in paths:
        wave, _ = load_audio(path, sample_rate=sample_rate)
        most = round(MAX_SECONDS * sample_rate)
        title = path.name if len(wave) <= most else f"{path.name}, first {MAX_SECONDS:g} s"
        taken = {clip.name for clip in clips}
        name, number = path.stem, 2
        while name in taken:
            name, number = f"{path.stem}-{number}", number + 1
        clips.append(DemoClip(name, title, "", "", wave[:most]))
    return clips
