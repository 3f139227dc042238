# SPDX-License-Identifier: Apache-2.0
"""Generated corpora: short clips in the formats that corpora come in, some of them broken."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile as sf

_RATE = 16000
_POOL_SECONDS = 60

# Container, subtype and sample rate of good clips, in turn; mostly what speech corpora hold.
FORMS = (
    *[("wav", "PCM_16", 16000)] * 10,
    *[("flac", "PCM_16", 16000)] * 6,
    ("wav", "FLOAT", 16000),
    ("wav", "PCM_24", 48000),
    ("wav", "PCM_16", 8000),
    ("ogg", "VORBIS", 24000),
)
MAX_SECONDS = 60.0  # what a run must be told for the kind "too long" to be set aside


@dataclass(frozen=True)
class Corpus:
    """Clips below ``root``: ids of the good ones, and kind of damage by id of the others."""

    root: Path
    good: frozenset[str]
    broken: dict[str, str]


def speech_like(seconds: float, seed: int) -> np.ndarray:
    """Harmonics of a gliding pitch with syllables, pauses and noise, float32 ``[N]`` at 16 kHz."""
    draw = np.random.default_rng(seed)
    t = np.arange(int(seconds * _RATE)) / _RATE
    f0 = 90 + 130 * draw.random() + 30 * np.sin(2 * np.pi * 0.7 * t + draw.random())
    phase = 2 * np.pi * np.cumsum(f0) / _RATE
    tone = sum(np.sin(k * phase) / k for k in range(1, 10))
    syllables = 0.5 - 0.5 * np.cos(2 * np.pi * (3 + 2 * draw.random()) * t)
    wave = 0.1 * syllables * tone + 0.01 * draw.standard_normal(len(t))
    return wave.astype(np.float32)


def make_corpus(
    root: Path,
    count: int,
    *,
    seconds: tuple[float, float] = (0.05, 0.35),
    broken_share: float = 0.01,
    seed: int = 0,
) -> Corpus:
    """Write ``count`` clips in folders of speakers; the same bytes for the same arguments.

    Args:
        seconds: shortest and longest clip; lengths are uniform between them.
        broken_share: of the clips, rounded; the kinds of ``BROKEN`` in turn.
    """
    pick = random.Random(seed)
    pool = speech_like(max(_POOL_SECONDS, 2 * seconds[1]), seed)
    bad = set(pick.sample(range(count), round(broken_share * count)))
    kinds = list(BROKEN)
    good: set[str] = set()
    broken: dict[str, str] = {}
    for index in range(count):
        length = max(1, int(pick.uniform(*seconds) * _RATE))
        start = pick.randrange(len(pool) - length)
        wave = pool[start : start + length]
        folder = root / f"speaker{index % 97:02d}"
        if index in bad:
            kind = kinds[len(broken) % len(kinds)]
            suffix, make = BROKEN[kind]
            path = folder / f"clip{index:06d}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            make(path, wave)
            broken[path.relative_to(root).as_posix()] = kind
            continue
        suffix, subtype, rate = FORMS[index % len(FORMS)]
        path = folder / f"clip{index:06d}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(wave, suffix, subtype, rate))
        good.add(path.relative_to(root).as_posix())
    return Corpus(root, frozenset(good), broken)


def encoded(wave: np.ndarray, suffix: str, subtype: str, rate: int) -> bytes:
    """A clip as the bytes of a file. The sound is not resampled: another rate is another pitch."""
    sink = io.BytesIO()
    sf.write(sink, wave, rate, format=suffix.upper(), subtype=subtype)
    return sink.getvalue()


# -- damage -------------------------------------------------------------------------------------


def _wav(wave: np.ndarray, subtype: str = "PCM_16") -> bytes:
    return encoded(wave, "wav", subtype, _RATE)


def _with_one(value: float) -> Callable[[np.ndarray], bytes]:
    def make(wave: np.ndarray) -> bytes:
        damaged = wave.copy()
        damaged[len(damaged) // 2] = value
        return _wav(damaged, "FLOAT")

    return make


def _flipped(data: bytes) -> bytes:
    """Bits of the middle third inverted."""
    third = len(data) // 3
    return data[:third] + bytes(b ^ 0xFF for b in data[third : 2 * third]) + data[2 * third :]


def _file(make: Callable[[np.ndarray], bytes]) -> Callable[[Path, np.ndarray], None]:
    def write(path: Path, wave: np.ndarray) -> None:
        path.write_bytes(make(wave))

    return write


def _no_target(path: Path, wave: np.ndarray) -> None:
    path.symlink_to(path.with_name("absent.wav"))


def _random(size: int) -> bytes:
    return random.Random(size).randbytes(size)


BROKEN: dict[str, tuple[str, Callable[[Path, np.ndarray], None]]] = {
    "empty file": ("wav", _file(lambda wave: b"")),
    "random bytes": ("wav", _file(lambda wave: _random(1000 + len(wave)))),
    "random bytes named flac": ("flac", _file(lambda wave: _random(1000 + len(wave)))),
    "text": ("wav", _file(lambda wave: b"<html><body>404 Not Found</body></html>\n")),
    "header cut": ("wav", _file(lambda wave: _wav(wave)[:20])),
    "header alone": ("wav", _file(lambda wave: _wav(wave)[:44])),
    "no samples": ("wav", _file(lambda wave: _wav(wave[:0]))),
    "data cut": ("wav", _file(lambda wave: _wav(wave)[: 44 + len(wave)])),
    "flac cut": (
        "flac",
        _file(lambda wave: (d := encoded(wave, "flac", "PCM_16", _RATE))[: len(d) // 2]),
    ),
    "flac flipped": ("flac", _file(lambda wave: _flipped(encoded(wave, "flac", "PCM_16", _RATE)))),
    "ogg cut": ("ogg", _file(lambda wave: encoded(wave, "ogg", "VORBIS", _RATE)[:300])),
    "mp3 of nothing": ("mp3", _file(lambda wave: bytes(4000))),
    "NaN sample": ("wav", _file(_with_one(float("nan")))),
    "infinite sample": ("wav", _file(_with_one(float("inf")))),
    "link to nothing": ("wav", _no_target),
    "too long": (
        "wav",
        _file(lambda wave: encoded(np.zeros(61 * 8000, np.float32), "wav", "PCM_U8", 8000)),
    ),
}
