# SPDX-License-Identifier: Apache-2.0
"""Where clips come from: manifests, folders, Hugging Face data sets.

Each source gives a list of :class:`Clip`; what cannot be used is written into a
:class:`DataReport`. Tar shards, which have no list, are read by ``data_shards``.
"""

from __future__ import annotations

import functools
import io
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from affectcodec import manifest
from affectcodec.training.data_report import DataReport

EMOTIONS = ("angry", "happy", "sad", "neutral", "fear", "disgust", "surprise", "calm")
AUDIO_SUFFIXES = frozenset(
    (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf", ".w64")
)


@dataclass(frozen=True)
class Clip:
    """One clip; ``emotion`` is an index into ``EMOTIONS`` or -1, ``arousal`` and ``valence`` are
    as their corpus has them."""

    path: str
    dataset: str
    speaker: str
    emotion: int
    arousal: float | None = None
    valence: float | None = None

    def open(self) -> str | BinaryIO:
        """What ``load_audio`` reads.

        Raises:
            ValueError: if it is no plain file: a pipe or device could be read for ever.
            OSError: if it is not there.
        """
        mode = os.stat(self.path).st_mode
        if not stat.S_ISREG(mode):
            kind = "a folder" if stat.S_ISDIR(mode) else "a pipe or device"
            raise ValueError(f"{self.path}: is {kind}, wanted a file")
        if not self.path.isascii():
            # libsndfile takes UTF-8 only, and names of files are bytes.
            return io.BytesIO(Path(self.path).read_bytes())
        return self.path

    def identity(self) -> list[Any]:
        """What tells one content of this clip from another, without reading it."""
        try:
            found = os.stat(self.path)
        except (OSError, ValueError):
            return [-1, -1]
        return [found.st_size, found.st_mtime_ns]


@dataclass(frozen=True)
class HubClip(Clip):
    """A row of a Hugging Face data set; ``path`` is its name in reports."""

    source: str = ""
    split: str = ""
    index: int = 0
    column: str = "audio"

    def open(self) -> str | BinaryIO:
        audio = _hub_rows(self.source, self.split, self.column)[self.index][self.column]
        if not isinstance(audio, dict) or not (audio.get("bytes") or audio.get("path")):
            raise ValueError(f"{self.path}: the column {self.column!r} holds no audio")
        if audio.get("bytes"):
            return io.BytesIO(audio["bytes"])
        return Clip(audio["path"], "", "", -1).open()

    def identity(self) -> list[Any]:
        return [_hub_rows(self.source, self.split, self.column)._fingerprint, self.index]


def emotion_index(label: str, item: str, report: DataReport) -> int:
    """Index of a label, -1 if it is empty or not known; the latter is noted."""
    name = label.strip().lower()
    if name in EMOTIONS:
        return EMOTIONS.index(name)
    if name:
        report.note(item, f"used without its label: {label!r} is not one of {', '.join(EMOTIONS)}")
    return -1


def manifest_clips(path: str | Path, split: str, report: DataReport) -> list[Clip]:
    """Clips of one split of a CSV or JSON lines manifest; needs the columns path and split only.

    Raises:
        ValueError: if a needed column is missing or the split is empty.
    """
    problems: list[tuple[str, str]] = []
    try:
        rows = manifest.read_manifest(
            path, split=split, needed=("path", "split"), problems=problems
        )
    finally:
        for where, reason in problems:
            report.skip(where, reason)
    clips = []
    for row in rows:
        item = os.path.realpath(row.file)
        clips.append(
            Clip(
                item,
                row.dataset or "unknown",
                row.speaker,
                emotion_index(row.emotion, item, report),
                row.arousal,
                row.valence,
            )
        )
    return clips


def folder_clips(folder: str | Path, split: str, report: DataReport) -> list[Clip]:
    """Audio files below a folder, by name; corpus and speaker are called after their folders.

    ``folder/train`` and ``folder/dev`` are its splits if there is one of the name ``split``;
    without any, everything belongs to ``train``.

    Raises:
        ValueError: if it is no folder.
    """
    root = Path(folder)
    if not root.is_dir():
        raise ValueError(f"folder: no folder {root}")
    top = root / split
    if not top.is_dir():
        if split != "train" or any((root / name).is_dir() for name in ("train", "dev", "test")):
            return []
        top = root
    clips = []
    for path in _walk(top):
        if path.suffix.lower() not in AUDIO_SUFFIXES:
            report.skip(str(path), f"{path.suffix or 'no extension'}: not taken for audio")
            continue
        speaker = path.parent.name if path.parent != top else ""
        clips.append(Clip(str(path), root.resolve().name, speaker, -1))
    return clips


def _walk(root: Path) -> Iterator[Path]:
    """Files below a folder in a fixed order, each folder once, whatever links there are."""
    seen: set[tuple[int, int]] = set()
    for folder, inner, files in os.walk(root, followlinks=True):
        found = os.stat(folder)
        if (found.st_dev, found.st_ino) in seen:
            inner.clear()
            continue
        seen.add((found.st_dev, found.st_ino))
        inner.sort()
        for name in sorted(files):
            yield Path(folder) / name


def hub_clips(source: str, split: str, report: DataReport, *, column: str = "audio") -> list[Clip]:
    """Rows of a Hugging Face data set: a folder written by ``save_to_disk``, or a name that
    ``datasets.load_dataset`` takes.

    The columns emotion (or label), speaker (or speaker_id), arousal and valence are used where
    present.

    Raises:
        ValueError: if there is no such set or audio column.
    """
    rows = _hub_rows(source, split, column)
    if rows is None:
        return []
    names = set(rows.column_names)
    label = next((name for name in ("emotion", "label") if name in names), None)
    speaker = next((name for name in ("speaker", "speaker_id") if name in names), None)
    text = getattr(rows.features[label], "int2str", None) if label else None
    used = [name for name in (label, speaker, "arousal", "valence") if name in names]
    table = rows.select_columns(used)[:] if used else {}
    clips: list[Clip] = []
    for index in range(len(rows)):
        value = {name: table[name][index] for name in used}
        item = f"{source}[{split}][{index}]"
        given = value.get(label or "")
        if text is not None and isinstance(given, int):
            given = text(given) if given >= 0 else ""
        clips.append(
            HubClip(
                item,
                Path(source).name,
                str(value.get(speaker or "") or ""),
                emotion_index("" if given is None else str(given), item, report),
                value.get("arousal"),
                value.get("valence"),
                source=source,
                split=split,
                index=index,
                column=column,
            )
        )
    return clips


@functools.lru_cache(maxsize=8)
def _hub_rows(source: str, split: str, column: str) -> Any:
    """The set, its audio not decoded; None if it has no such split. Memory-mapped, so that each
    process can open it for itself."""
    try:
        import datasets
    except ImportError as error:
        raise ValueError(
            f"hub: {source!r} needs the package datasets ({error}): pip install 'affectcodec[data]'"
        ) from error
    try:
        if Path(source).is_dir() and any(
            (Path(source) / name).is_file() for name in ("state.json", "dataset_dict.json")
        ):
            rows = datasets.load_from_disk(source)
        else:
            rows = datasets.load_dataset(source)
    except (OSError, ValueError) as error:
        raise ValueError(f"hub: {source!r} cannot be read: {error}") from error
    if isinstance(rows, datasets.DatasetDict):
        if split not in rows:
            return None
        rows = rows[split]
    elif split != "train":
        return None
    if column not in rows.column_names:
        raise ValueError(f"hub: {source!r} has no column {column!r}; it has {rows.column_names}")
    return rows.cast_column(column, datasets.Audio(decode=False))
