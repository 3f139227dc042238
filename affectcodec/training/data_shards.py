# SPDX-License-Identifier: Apache-2.0
"""Tar shards in the WebDataset layout, read as a stream and never kept whole.

A sample is what shares a name up to its first dot: the audio (``a.flac``), and where there are any
its labels (``a.json`` with emotion, speaker, arousal, valence). Shards are read by the library
``webdataset``: local files, or whatever its URLs name.

The last ``pool`` clips that came by are at hand for crops. At its step ``k`` a stream has seen
``pool + k * rate`` usable clips, so that what a step can draw is a function of the step, and a
stream can be put back where it was from the place of the oldest clip at hand.
"""

from __future__ import annotations

import glob
import io
import json
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from affectcodec.config import CodecConfig
from affectcodec.training.batches import Piece
from affectcodec.training.data import AUDIO_SUFFIXES, Clip, emotion_index
from affectcodec.training.data_prepare import Prepared, prepare
from affectcodec.training.data_report import DataReport


@dataclass(frozen=True)
class ShardClip(Clip):
    """One sample of a shard, its bytes at hand."""

    data: bytes = b""

    def open(self) -> str | BinaryIO:
        if not self.data:
            raise ValueError(f"{self.path}: the file is empty (0 bytes)")
        return io.BytesIO(self.data)


@dataclass(frozen=True)
class Place:
    """A sample of an endless stream: its pass, the shard of the pass, the sample of the shard."""

    epoch: int = 0
    shard: int = 0
    sample: int = 0


def expand_shards(patterns: Sequence[str]) -> list[str]:
    """Shards named by paths, ``{000..031}`` ranges, ``*`` patterns and folders, in that order.

    Raises:
        ValueError: if a pattern names nothing.
    """
    import braceexpand

    shards: list[str] = []
    for pattern in patterns:
        for name in braceexpand.braceexpand(pattern):
            if Path(name).is_dir():
                found = sorted(str(path) for path in Path(name).glob("*.tar"))
            else:
                found = sorted(glob.glob(name)) if glob.has_magic(name) else [name]
            if not found:
                raise ValueError(f"shards: {name!r} names no tar file")
            shards += found
    return list(dict.fromkeys(shards))


class ShardStream:
    """Clips of tar shards without end, as a pool for crops.

    Args:
        name: of the corpus.
        shards: paths or URLs; see :func:`expand_shards`.
        config: the codec that is trained.
        seed: of the order of the shards, a new one each pass.
        part, parts: this reader takes every ``parts``-th shard of a pass, from ``part`` on.
        pool: clips at hand.
        rate: clips that make room for new ones each time :meth:`advance` is called.

    Raises:
        ValueError: if there are fewer shards than readers.
    """

    def __init__(
        self,
        name: str,
        shards: Sequence[str],
        config: CodecConfig,
        *,
        seed: int,
        part: int = 0,
        parts: int = 1,
        pool: int = 256,
        rate: int = 1,
    ) -> None:
        if len(shards) < parts:
            raise ValueError(
                f"shards: {name!r} has {len(shards)} for {parts} readers (processes times "
                "workers); write more shards, or start fewer readers"
            )
        self.name, self.shards, self.config = name, list(shards), config
        self.seed, self.part, self.parts = seed, part, parts
        self.size, self.rate = pool, rate
        self.report = DataReport()
        self._at_hand: deque[tuple[Place, Piece]] = deque()
        self._source = self._pieces(Place())

    def place(self) -> Place:
        """Where the oldest clip at hand was read."""
        return self._at_hand[0][0] if self._at_hand else Place()

    def seek(self, place: Place) -> None:
        """Fill the pool anew, from ``place`` on."""
        self._at_hand.clear()
        self._source = self._pieces(place)
        self.fill()

    def fill(self) -> None:
        """Read until the pool is full."""
        while len(self._at_hand) < self.size:
            self._at_hand.append(next(self._source))

    def advance(self) -> None:
        """The oldest clips make room for new ones."""
        self.fill()
        for _ in range(self.rate):
            self._at_hand.popleft()
            self._at_hand.append(next(self._source))

    def draw(self, rng: np.random.Generator) -> Piece:
        """One clip of the pool."""
        self.fill()
        return self._at_hand[int(rng.integers(len(self._at_hand)))][1]

    def order(self, epoch: int) -> list[str]:
        """Shards of this reader in a pass."""
        rng = np.random.default_rng((self.seed, epoch))
        return [self.shards[i] for i in rng.permutation(len(self.shards))][self.part :: self.parts]

    def _pieces(self, place: Place) -> Iterator[tuple[Place, Piece]]:
        """Usable clips from a place on, for ever.

        Raises:
            ValueError: if a whole pass holds none.
        """
        epoch, shard, sample = place.epoch, place.shard, place.sample
        while True:
            found = 0
            whole = shard == 0 and sample == 0
            for at, url in enumerate(self.order(epoch)[shard:], shard):
                for index, clip in enumerate(self._samples(url)):
                    if index < sample:
                        continue
                    piece = self._piece(clip)
                    if piece is not None:
                        found += 1
                        yield Place(epoch, at, index), piece
                sample = 0
            if whole and not found:
                raise ValueError(
                    f"shards: none of the samples of {self.name!r} can be used; the first reasons: "
                    f"{list(self.report.skipped.items())[:3]}"
                )
            epoch, shard = epoch + 1, 0

    def _samples(self, url: str) -> Iterator[ShardClip]:
        """Samples of one shard that hold audio; a damaged shard ends where the damage is."""
        from webdataset.tariterators import tarfile_samples

        def record(error: Exception) -> bool:
            self.report.skip(url, f"damaged: {type(error).__name__}: {error.args[0]!s:.200}")
            return True

        for sample in tarfile_samples(iter([{"url": url}]), handler=record):
            clip = self._clip(url, sample)
            if clip is not None:
                yield clip

    def _clip(self, url: str, sample: dict[str, Any]) -> ShardClip | None:
        item = f"{url}:{sample.get('__key__', '?')}"
        audio = [key for key in sample if f".{key.rsplit('.', 1)[-1]}" in AUDIO_SUFFIXES]
        if not audio:
            self.report.skip(item, "holds no audio")
            return None
        values: dict[str, Any] = {}
        if "json" in sample:
            try:
                given = json.loads(sample["json"])
                if not isinstance(given, dict):
                    raise ValueError(f"wanted an object, got {type(given).__name__}")
                values = given
            except (ValueError, RecursionError) as error:
                self.report.note(item, f"used without its labels: no JSON: {error}")
        affect = {
            name: float(values[name])
            for name in ("arousal", "valence")
            if isinstance(values.get(name), int | float)
        }
        return ShardClip(
            f"{item}.{audio[0]}",
            self.name,
            str(values.get("speaker", "")),
            emotion_index(str(values.get("emotion", "")), item, self.report),
            affect.get("arousal"),
            affect.get("valence"),
            sample[audio[0]],
        )

    def _piece(self, clip: ShardClip) -> Piece | None:
        found: Prepared = prepare(clip, self.config, (1.0,))
        for reason in found.skipped:
            self.report.skip(clip.path, reason)
        for reason in found.noted:
            self.report.note(clip.path, reason)
        if not found.versions:
            return None
        version = found.versions[0]
        self.report.used += 1
        return Piece(
            version.pcm,
            version.prosody,
            version.active_start,
            version.active_end,
            version.active_rms,
            clip.emotion,
            (clip.arousal, clip.valence),
        )
