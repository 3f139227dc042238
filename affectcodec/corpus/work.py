# SPDX-License-Identifier: Apache-2.0
"""Tokens of one part."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
import torch

from affectcodec.audio import AudioError, load_audio
from affectcodec.codec import AffectCodec
from affectcodec.corpus.parts import PartResult, is_done, write_part
from affectcodec.corpus.plan import Settings
from affectcodec.corpus.sources import Entry, Part, read_part

BATCH_SECONDS = 80.0  # of padded audio in a batch; bounds memory, and more gains no speed on a CPU
_POOL_SECONDS = 600.0  # of audio among which clips of like length are found


@dataclass(frozen=True)
class Row:
    """Tokens of one clip: ``codes`` int32 ``[K, T]``."""

    id: str
    codes: np.ndarray
    num_samples: int
    metadata: dict[str, Any]


@dataclass(frozen=True)
class Rejected:
    """A clip set aside, with the reason."""

    id: str
    reason: str


@dataclass
class _Pool:
    """Clips waiting for others of like length."""

    places: list[int] = field(default_factory=list)
    waves: list[np.ndarray] = field(default_factory=list)
    samples: int = 0

    def add(self, place: int, wave: np.ndarray) -> None:
        self.places.append(place)
        self.waves.append(wave)
        self.samples += len(wave)


def do_part(folder: Path, number: int, part: Part, settings: Settings, codec: AffectCodec) -> None:
    """Write one part, unless it is there. What it writes depends on part and settings alone."""
    if is_done(folder, number, settings.format):
        return
    write_part(folder, number, settings, tokenize(read_part(part), settings, codec))


def tokenize(entries: Iterable[Entry], settings: Settings, codec: AffectCodec) -> PartResult:
    """Tokens of clips, in their order, and the clips set aside."""
    rate = codec.config.sample_rate
    found: dict[int, Row | Rejected] = {}
    names: list[tuple[str, dict[str, Any]]] = []
    pool = _Pool()
    for place, entry in enumerate(entries):
        names.append((entry.id, entry.metadata))
        try:
            wave = _load(entry, rate, settings.max_seconds)
        except (AudioError, OSError, ValueError, MemoryError) as error:
            found[place] = Rejected(entry.id, _one_line(error))
            continue
        pool.add(place, wave)
        if pool.samples >= _POOL_SECONDS * rate:
            found.update(_encode(pool, names, settings, codec))
            pool = _Pool()
    found.update(_encode(pool, names, settings, codec))
    ordered = [found[place] for place in range(len(names))]
    return PartResult(
        rows=[item for item in ordered if isinstance(item, Row)],
        rejected=[item for item in ordered if isinstance(item, Rejected)],
    )


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text or type(error).__name__


def _load(entry: Entry, rate: int, max_seconds: float) -> np.ndarray:
    if entry.problem is not None:
        raise AudioError(entry.problem)
    source = entry.open()
    if isinstance(source, Path) and not source.is_file():
        raise AudioError(f"no file {source}")
    # The header tells the length before hours of samples are decoded into memory.
    try:
        with sf.SoundFile(source if not isinstance(source, Path) else str(source)) as file:
            seconds = file.frames / file.samplerate
    except (sf.LibsndfileError, TypeError, RuntimeError):
        seconds = 0.0  # load_audio says what is wrong
    if seconds > max_seconds:
        raise AudioError(f"longer than {max_seconds:g} s: {seconds:.0f} s")
    if isinstance(source, io.BytesIO):
        source.seek(0)
    wave, _ = load_audio(source, sample_rate=rate)
    if len(wave) > max_seconds * rate:
        raise AudioError(f"longer than {max_seconds:g} s: {len(wave) / rate:.0f} s")
    return wave


def _batches(pool: _Pool, limit: int) -> Iterator[list[int]]:
    """Indices of clips whose padded batch holds at most ``limit`` samples, longest first."""
    order = sorted(range(len(pool.waves)), key=lambda i: (-len(pool.waves[i]), i))
    held: list[int] = []
    for i in order:
        if held and len(pool.waves[held[0]]) * (len(held) + 1) > limit:
            yield held
            held = []
        held.append(i)
    if held:
        yield held


def _encode(
    pool: _Pool, names: list[tuple[str, dict[str, Any]]], settings: Settings, codec: AffectCodec
) -> Iterator[tuple[int, Row | Rejected]]:
    for indices in _batches(pool, int(BATCH_SECONDS * codec.config.sample_rate)):
        try:
            yield from _encode_batch(pool, indices, names, settings, codec)
        except ValueError:
            # One clip that the codec refuses must not take its neighbours with it.
            for i in indices:
                try:
                    yield from _encode_batch(pool, [i], names, settings, codec)
                except ValueError as error:
                    yield pool.places[i], Rejected(names[pool.places[i]][0], _one_line(error))


def _encode_batch(
    pool: _Pool,
    indices: list[int],
    names: list[tuple[str, dict[str, Any]]],
    settings: Settings,
    codec: AffectCodec,
) -> list[tuple[int, Row | Rejected]]:
    lengths = torch.tensor([len(pool.waves[i]) for i in indices])
    batch = torch.zeros(len(indices), 1, int(lengths.max()))
    for row, i in enumerate(indices):
        batch[row, 0, : len(pool.waves[i])] = torch.from_numpy(pool.waves[i])
    tokens = codec.encode(
        batch.to(codec.device),
        codec.config.sample_rate,
        lengths=lengths,
        stages=settings.stages,
    )
    codes = tokens.codes.cpu().numpy()
    out: list[tuple[int, Row | Rejected]] = []
    for row, i in enumerate(indices):
        place, frames = pool.places[i], int(tokens.lengths[row])
        name, metadata = names[place]
        own = np.ascontiguousarray(codes[row, :, :frames])
        out.append((place, Row(name, own, int(lengths[row]), metadata)))
    return out
