# SPDX-License-Identifier: Apache-2.0
"""Lists of clips: a CSV with the columns path, dataset, speaker, split.

The columns emotion, sha256, gender, language, transcript, arousal and valence are used where
present; training can do without dataset and speaker, too. Paths are relative to the folder of the
CSV.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Clip:
    """One row of a manifest; `file` is the full path, `path` the manifest's own."""

    path: str
    file: Path
    dataset: str
    speaker: str
    emotion: str = ""
    sha256: str = ""
    gender: str = ""
    language: str = ""
    transcript: str = ""
    split: str = ""
    arousal: float | None = None
    valence: float | None = None


def read_manifest(
    manifest: str | Path,
    *,
    split: str,
    datasets: Sequence[str] = (),
    limit: int | None = None,
    needed: Sequence[str] = ("path", "dataset", "speaker", "split"),
) -> list[Clip]:
    """Clips of one split, in the order of the file.

    Args:
        manifest: the CSV.
        split: value of the column `split`.
        datasets: only these (empty: all).
        limit: at most this many clips, spread evenly over the list so that all speakers stay in.
        needed: columns that must be there; others of a clip are empty where missing.

    Raises:
        ValueError: no such file or columns; a dataset without clips in the split; a limit under 1.
    """
    path = Path(manifest)
    if not path.is_file():
        raise ValueError(f"manifest: no file {path}")
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = set(needed) - set(reader.fieldnames or ())
        if missing:
            raise ValueError(
                f"manifest {path}: lacks the columns {sorted(missing)}, has {reader.fieldnames}"
            )
        rows = [row for row in reader if row["split"] == split]
    for dataset in datasets:
        if all(row.get("dataset") != dataset for row in rows):
            known = sorted({row.get("dataset") or "" for row in rows})
            raise ValueError(
                f"manifest {path}: split {split!r} has no clip of {dataset!r}; it has {known}"
            )
    clips = [
        Clip(
            path=row["path"],
            file=path.parent / row["path"],
            dataset=row.get("dataset") or "",
            speaker=row.get("speaker") or "",
            emotion=row.get("emotion") or "",
            sha256=row.get("sha256") or "",
            gender=row.get("gender") or "",
            language=row.get("language") or "",
            transcript=row.get("transcript") or "",
            split=row.get("split") or "",
            arousal=_number(path, row, "arousal"),
            valence=_number(path, row, "valence"),
        )
        for row in rows
        if not datasets or row.get("dataset") in datasets
    ]
    if not clips:
        raise ValueError(f"manifest {path}: no clip in split {split!r}")
    return clips if limit is None else evenly(clips, limit)


def _number(manifest: Path, row: dict[str, str], column: str) -> float | None:
    text = row.get(column) or ""
    try:
        return float(text) if text else None
    except ValueError:
        raise ValueError(
            f"manifest {manifest}: {row['path']}: {column} is {text!r}, wanted a number"
        ) from None


def evenly(clips: list[Clip], count: int) -> list[Clip]:
    """At most `count` clips at equal distances in the list."""
    if count < 1:
        raise ValueError(f"limit: got {count}, wanted 1 or more clips")
    if count >= len(clips):
        return clips
    return [clips[i * len(clips) // count] for i in range(count)]
