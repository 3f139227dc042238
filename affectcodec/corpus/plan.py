# SPDX-License-Identifier: Apache-2.0
"""The plan of a run: settings and parts, written once and kept."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from affectcodec.corpus.sources import Part, SourceError, list_parts

PLAN_NAME = "plan.jsonl"
FORMATS = ("parquet", "tar")
_VERSION = 1


@dataclass(frozen=True)
class Settings:
    """All that decides what a run writes.

    Args:
        source: as ``affectcodec.corpus.sources.list_parts`` takes it.
        weights: name of shipped weights, a folder, or None for the default.
        fingerprint: of the codec; a resumed run must have the same.
        stages: stage count of each block.
        format: ``"parquet"`` or ``"tar"``.
        clips_per_part: clips of a part.
        max_seconds: longer clips are set aside.
    """

    source: str
    weights: str | None
    fingerprint: str
    stages: dict[str, int]
    format: str = "parquet"
    clips_per_part: int = 256
    max_seconds: float = 3600.0

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise ValueError(f"format: wanted one of {list(FORMATS)}, got {self.format!r}")
        if self.clips_per_part < 1:
            raise ValueError(f"clips_per_part: wanted 1 or more, got {self.clips_per_part}")
        if not self.max_seconds > 0:
            raise ValueError(f"max_seconds: wanted more than 0, got {self.max_seconds}")


class PlanError(ValueError):
    """A folder whose plan is another one than asked for, or damaged."""


@dataclass(frozen=True)
class Plan:
    """Settings and parts of a run in ``folder``."""

    folder: Path
    settings: Settings
    digest: str
    count: int

    @classmethod
    def make(cls, folder: Path, settings: Settings) -> Plan:
        """List the source and write the plan, or take the one that is there.

        Raises:
            SourceError: if the source cannot be listed.
            PlanError: if ``folder`` holds a plan with other settings, or the source has changed
                since it was made.
        """
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / PLAN_NAME
        fresh = folder / f".{PLAN_NAME}.tmp"
        digest, count = hashlib.blake2b(digest_size=16), 0
        with fresh.open("w", encoding="utf-8") as file:
            for part in list_parts(settings.source, settings.clips_per_part):
                line = json.dumps(part, sort_keys=True, default=str)
                digest.update(line.encode())
                file.write(line + "\n")
                count += 1
            if not count:
                raise SourceError(f"source: {settings.source} holds nothing")
            head = {
                "version": _VERSION,
                "digest": digest.hexdigest(),
                "parts": count,
                "settings": dataclasses.asdict(settings),
            }
            # The settings come last, so that a plan without them is known to be cut.
            file.write(json.dumps(head, sort_keys=True) + "\n")
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            held = cls.load(folder)
            fresh.unlink()
            held.check(settings, digest.hexdigest())
            return held
        fresh.replace(path)
        return cls(folder, settings, digest.hexdigest(), count)

    @classmethod
    def load(cls, folder: Path) -> Plan:
        """The plan of a folder.

        Raises:
            PlanError: if there is none, or it is damaged.
        """
        path = folder / PLAN_NAME
        try:
            head = json.loads(_last_line(path))
            if head["version"] != _VERSION:
                raise PlanError(f"{path}: version {head['version']}, this release reads {_VERSION}")
            settings = Settings(**head["settings"])
            return cls(folder, settings, head["digest"], head["parts"])
        except FileNotFoundError:
            raise PlanError(f"{folder}: holds no {PLAN_NAME}; no run was started here") from None
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise PlanError(f"{path}: damaged ({error}); start in an empty folder") from None

    def check(self, settings: Settings, digest: str) -> None:
        """Refuse other settings and another content of the source.

        Raises:
            PlanError: naming what differs.
        """
        own, asked = dataclasses.asdict(self.settings), dataclasses.asdict(settings)
        changed = [f"{k}: {own[k]!r} then, {asked[k]!r} now" for k in own if own[k] != asked[k]]
        if changed:
            raise PlanError(
                f"{self.folder}: was started with other settings ({'; '.join(changed)}); "
                "give the same ones to resume, or another folder to start anew"
            )
        if digest != self.digest:
            raise PlanError(
                f"{self.folder}: the source lists other clips than when the run was started; "
                "restore it, or start in another folder"
            )

    def parts(self) -> Iterator[tuple[int, Part]]:
        """Number and content of each part, read from the file one at a time."""
        with (self.folder / PLAN_NAME).open(encoding="utf-8") as file:
            for number, line in zip(range(self.count), file, strict=False):
                yield number, json.loads(line)

    def offsets(self) -> Iterator[tuple[int, int]]:
        """Number of each part and where its line begins, for :meth:`part_at`."""
        with (self.folder / PLAN_NAME).open("rb") as file:
            start = 0
            for number, line in zip(range(self.count), file, strict=False):
                yield number, start
                start += len(line)

    @staticmethod
    def part_at(folder: Path, offset: int) -> Part:
        """The part whose line begins at a byte of the plan of ``folder``."""
        with (folder / PLAN_NAME).open("rb") as file:
            file.seek(offset)
            found: Part = json.loads(file.readline())
            return found

    def record(self) -> dict[str, Any]:
        """What a manifest says of the run."""
        return {"digest": self.digest, "parts": self.count, **dataclasses.asdict(self.settings)}


def _last_line(path: Path) -> str:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        step, data = 4096, b""
        while size and data.strip().count(b"\n") == 0 and len(data) < size:
            step = min(size, step * 4)
            file.seek(size - step)
            data = file.read(step)
    return data.strip().rpartition(b"\n")[2].decode()
