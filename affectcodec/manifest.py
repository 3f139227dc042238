# SPDX-License-Identifier: Apache-2.0
"""Lists of clips: CSV, or JSON lines, with the columns path, dataset, speaker, split.

The columns emotion, sha256, gender, language, transcript, arousal and valence are used where
present; training can do without dataset and speaker, too. Paths are relative to the folder of the
list.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


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
    problems: list[tuple[str, str]] | None = None,
) -> list[Clip]:
    """Clips of one split, in the order of the file.

    Args:
        manifest: a CSV with a header, or JSON lines (`.jsonl`, `.ndjson`).
        split: value of the column `split`.
        datasets: only these (empty: all).
        limit: at most this many clips, spread evenly over the list so that all speakers stay in.
        needed: columns that must be there; others of a clip are empty where missing.
        problems: takes (place, reason) of rows that cannot be read, which are then left out;
            without it such a row is an error.

    Raises:
        ValueError: no such file or columns; a row that cannot be read; a dataset without clips in
            the split; a limit under 1.
    """
    path = Path(manifest)
    if not path.is_file():
        raise ValueError(f"manifest: no file {path}")
    found: list[tuple[str, str]] = []
    lines = path.suffix.lower() in (".jsonl", ".ndjson")
    rows = list((_json_rows if lines else _csv_rows)(path, needed, found))
    if found and problems is None:
        raise ValueError(f"manifest {found[0][0]}: {found[0][1]}")
    if problems is not None:
        problems.extend(found)
    rows = [row for row in rows if _text(row, "split") == split]
    for dataset in datasets:
        if all(_text(row, "dataset") != dataset for row in rows):
            known = sorted({_text(row, "dataset") for row in rows})
            raise ValueError(
                f"manifest {path}: split {split!r} has no clip of {dataset!r}; it has {known}"
            )
    clips = [
        Clip(
            path=_text(row, "path"),
            file=path.parent / _text(row, "path"),
            dataset=_text(row, "dataset"),
            speaker=_text(row, "speaker"),
            emotion=_text(row, "emotion"),
            sha256=_text(row, "sha256"),
            gender=_text(row, "gender"),
            language=_text(row, "language"),
            transcript=_text(row, "transcript"),
            split=_text(row, "split"),
            arousal=_number(row, "arousal"),
            valence=_number(row, "valence"),
        )
        for row in rows
        if not datasets or _text(row, "dataset") in datasets
    ]
    if not clips:
        raise ValueError(f"manifest {path}: no clip in split {split!r}")
    return clips if limit is None else evenly(clips, limit)


def read_manifests(
    manifests: Sequence[str | Path], *, split: str, limit: int | None = None
) -> list[Clip]:
    """Clips of one split of all manifests that have it; only path and split are needed.

    Args:
        manifests: as of :func:`read_manifest`.
        split: value of the column `split`.
        limit: at most this many clips of each.

    Raises:
        ValueError: as of :func:`read_manifest`; no clip in any of them.
    """
    found: list[Clip] = []
    for manifest in manifests:
        try:
            found += read_manifest(manifest, split=split, limit=limit, needed=("path", "split"))
        except ValueError as error:
            # a list may lack a split that another has
            if "no clip in split" not in str(error):
                raise
    if not found:
        names = [str(manifest) for manifest in manifests]
        raise ValueError(f"manifests: no clip of the split {split!r} in {names}")
    return found


def _csv_rows(
    path: Path, needed: Sequence[str], problems: list[tuple[str, str]]
) -> Iterator[dict[str, Any]]:
    # surrogateescape: names of files are bytes, and a list may hold them as they are.
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        reader = csv.DictReader(file)
        try:
            columns = reader.fieldnames or ()
        except csv.Error as error:
            raise ValueError(f"manifest {path}: the header cannot be read: {error}") from error
        missing = set(needed) - set(columns)
        if missing:
            raise ValueError(
                f"manifest {path}: lacks the columns {sorted(missing)}, has {list(columns)}"
            )
        while True:
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                problems.append((f"{path}:{reader.line_num}", f"no CSV row: {error}"))
                continue
            where = f"{path}:{reader.line_num}"
            reason = "" if row.get(None) is None else "more values than columns"
            reason = _reason(row, needed) or reason
            if reason:
                problems.append((where, reason))
            else:
                yield row


def _json_rows(
    path: Path, needed: Sequence[str], problems: list[tuple[str, str]]
) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8", errors="surrogateescape") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                problems.append((f"{path}:{number}", f"no JSON: {error}"))
                continue
            if not isinstance(row, dict):
                reason = f"wanted a JSON object, got {type(row).__name__}"
            else:
                reason = _reason(row, needed)
            if reason:
                problems.append((f"{path}:{number}", reason))
            else:
                yield row


def _reason(row: dict[str, Any], needed: Sequence[str]) -> str:
    """Why a row cannot be used; empty if it can."""
    for name in needed:
        value = row.get(name)
        if value is None:
            return f"no value for {name!r}"
        if not isinstance(value, str | int):
            return f"{name!r} must be text, got {type(value).__name__}"
    if not _text(row, "path"):
        return "the path is empty"
    if "\0" in _text(row, "path"):
        return "the path holds a zero byte"
    return ""


def _text(row: dict[str, Any], name: str) -> str:
    value = row.get(name)
    return "" if value is None else str(value)


def _number(row: dict[str, Any], name: str) -> float | None:
    given = row.get(name)
    try:
        value = math.nan if given is None or given == "" else float(given)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def evenly(clips: list[Clip], count: int) -> list[Clip]:
    """At most `count` clips at equal distances in the list."""
    if count < 1:
        raise ValueError(f"limit: got {count}, wanted 1 or more clips")
    if count >= len(clips):
        return clips
    return [clips[i * len(clips) // count] for i in range(count)]
