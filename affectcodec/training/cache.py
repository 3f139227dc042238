# SPDX-License-Identifier: Apache-2.0
"""Clips and prosody targets, computed once and kept on disk as memory-mapped arrays.

A cache folder holds ``pcm.i16`` (all clips end to end), ``prosody.f32`` (three numbers a frame: log
F0 interpolated over unvoiced gaps, voicing, activity) and ``index.json``. It is named by a hash of
what went in, so a changed manifest makes a new cache and an unchanged one is reused.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import math
import multiprocessing
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from affectcodec import manifest
from affectcodec._world import load_world
from affectcodec.audio import load_audio, resample
from affectcodec.config import CodecConfig

EMOTIONS = ("angry", "happy", "sad", "neutral", "fear", "disgust", "surprise", "calm")
CACHE_VERSION = 3
_F0_PERIOD_MS = 5.0


@dataclass(frozen=True)
class Clip:
    """One clip of a manifest; ``emotion`` is an index into ``EMOTIONS`` or -1."""

    path: str
    dataset: str
    speaker: str
    emotion: int


@dataclass(frozen=True)
class CachedClip:
    """Where a clip lies in the cache; offsets in samples and frames."""

    dataset: str
    emotion: int
    sample_offset: int
    num_samples: int
    frame_offset: int
    num_frames: int
    active_start: int
    active_end: int
    active_rms: float


def read_manifest(path: str | Path, split: str) -> list[Clip]:
    """Clips of one split of a CSV manifest; needs the columns path and split only.

    Raises:
        ValueError: if a needed column is missing or the split is empty.
    """
    return [
        Clip(
            str(clip.file.resolve()),
            clip.dataset or "unknown",
            clip.speaker,
            EMOTIONS.index(clip.emotion) if clip.emotion in EMOTIONS else -1,
        )
        for clip in manifest.read_manifest(path, split=split, needed=("path", "split"))
    ]


def prosody_targets(wav: np.ndarray, config: CodecConfig) -> np.ndarray:
    """Frame targets ``[T, 3]`` float32: log F0 (gaps interpolated), voicing 0/1, active 0/1.

    F0 is DIO refined by StoneMask (Morise, WORLD), taken at the centre of each frame.
    """
    net, rate = config.network, config.sample_rate
    frames = config.num_frames(len(wav))
    x, pyworld = wav.astype(np.float64), load_world()
    f0, times = pyworld.dio(
        x, rate, f0_floor=net.f0_min, f0_ceil=net.f0_max, frame_period=_F0_PERIOD_MS
    )
    f0 = pyworld.stonemask(x, f0, times, rate)
    per_hop = config.hop_length / rate * 1000 / _F0_PERIOD_MS
    index = np.minimum((np.arange(frames) * per_hop).astype(int), len(f0) - 1)
    f0 = np.where((f0 >= net.f0_min) & (f0 <= net.f0_max), f0, 0.0)
    voiced_at = np.flatnonzero(f0)
    log_f0 = np.full(len(f0), math.log(150.0))
    if len(voiced_at):
        log_f0 = np.interp(np.arange(len(f0)), voiced_at, np.log(f0[voiced_at]))
    padded = np.zeros((frames + 1) * config.hop_length)
    padded[config.hop_length : config.hop_length + len(x)] = x
    power = np.square(padded).reshape(-1, config.hop_length).mean(1)
    level = 10 * np.log10(power[:-1] + power[1:] + 1e-10)
    active = level > max(np.percentile(level, 95) - 40, -75)
    return np.stack([log_f0[index], f0[index] > 0, active], 1).astype(np.float32)


def _key(clips: Sequence[Clip], config: CodecConfig, speeds: Sequence[float]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    net = config.network
    head = [CACHE_VERSION, list(speeds), config.sample_rate, config.hop_length]
    digest.update(json.dumps([*head, net.f0_min, net.f0_max]).encode())
    for clip in clips:
        size = os.path.getsize(clip.path) if os.path.exists(clip.path) else -1
        digest.update(json.dumps([dataclasses.astuple(clip), size]).encode())
    return digest.hexdigest()


class ClipCache:
    """Memory-mapped clips with their targets."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        record = json.loads((folder / "index.json").read_text())
        self.clips = [CachedClip(**clip) for clip in record["clips"]]
        self.skipped: list[list[str]] = record["skipped"]
        self.pcm = np.memmap(folder / "pcm.i16", dtype=np.int16, mode="r")
        self.prosody = np.memmap(folder / "prosody.f32", dtype=np.float32, mode="r").reshape(-1, 3)

    @property
    def seconds(self) -> float:
        """Length of all clips at 16 kHz, speeds included."""
        return sum(clip.num_samples for clip in self.clips) / 16000

    @classmethod
    def build(
        cls,
        clips: Sequence[Clip],
        config: CodecConfig,
        root: str | Path,
        speeds: Sequence[float] = (1.0,),
        progress: bool = True,
        workers: int | None = None,
    ) -> ClipCache:
        """Open the cache of these clips below ``root``, making it first if it is not there.

        Clips that cannot be read, or hold less than two frames, are skipped and listed in
        ``skipped`` with the reason. ``workers`` defaults to the number of processors; 1 works in
        this process.

        Raises:
            ValueError: if no clip can be read.
        """
        if not clips:
            raise ValueError("clips: got none, wanted at least one clip to cache")
        folder = Path(root) / _key(clips, config, speeds)
        if not (folder / "index.json").exists():
            folder.mkdir(parents=True, exist_ok=True)
            cls._write(folder, clips, config, speeds, progress, workers or os.cpu_count() or 1)
        return cls(folder)

    @staticmethod
    def _write(
        folder: Path,
        clips: Sequence[Clip],
        config: CodecConfig,
        speeds: Sequence[float],
        progress: bool,
        workers: int,
    ) -> None:
        entries: list[CachedClip] = []
        skipped: list[list[str]] = []
        samples = frames = 0
        # Spawned workers: forking a process that already runs torch threads can deadlock.
        context = multiprocessing.get_context("spawn")
        work = functools.partial(_prepare, config=config, speeds=tuple(speeds))
        with contextlib.ExitStack() as stack:
            pcm = stack.enter_context(open(folder / "pcm.i16", "wb"))
            prosody = stack.enter_context(open(folder / "prosody.f32", "wb"))
            results: Iterable[tuple[list[_Version], list[str]]] = map(work, clips)
            if workers > 1:
                count = min(workers, len(clips))
                pool = stack.enter_context(ProcessPoolExecutor(count, mp_context=context))
                results = pool.map(work, clips, chunksize=8)
            bar = tqdm(results, "caching clips", len(clips), unit="clip", disable=not progress)
            for clip, (versions, reasons) in zip(clips, bar, strict=True):
                skipped.extend([clip.path, reason] for reason in reasons)
                for version in versions:
                    entries.append(
                        CachedClip(
                            dataset=clip.dataset,
                            emotion=clip.emotion,
                            sample_offset=samples,
                            num_samples=len(version.pcm),
                            frame_offset=frames,
                            num_frames=len(version.prosody),
                            active_start=version.active_start,
                            active_end=version.active_end,
                            active_rms=version.active_rms,
                        )
                    )
                    pcm.write(version.pcm.tobytes())
                    prosody.write(version.prosody.tobytes())
                    samples += len(version.pcm)
                    frames += len(version.prosody)
        if not entries:
            raise ValueError(f"none of the clips can be used; the first reasons: {skipped[:3]}")
        record = {"clips": [dataclasses.asdict(entry) for entry in entries], "skipped": skipped}
        part = folder / "index.json.part"
        part.write_text(json.dumps(record))
        os.replace(part, folder / "index.json")


class _Version(NamedTuple):
    """One clip at one speed, ready to be written."""

    pcm: np.ndarray
    prosody: np.ndarray
    active_start: int
    active_end: int
    active_rms: float


def _prepare(
    clip: Clip, config: CodecConfig, speeds: tuple[float, ...]
) -> tuple[list[_Version], list[str]]:
    """All versions of a clip, and the reasons why some are missing."""
    hop, rate = config.hop_length, config.sample_rate
    try:
        base, _ = load_audio(clip.path, sample_rate=rate, mono=True)
        if len(base) < 2 * hop:
            raise ValueError(f"{len(base)} samples, less than two frames of {hop}")
    except (OSError, ValueError) as error:
        return [], [str(error)]
    versions, reasons = [], []
    for speed in speeds:
        wav = base if speed == 1.0 else np.asarray(resample(base, round(rate * speed), rate))
        target = prosody_targets(wav, config)
        active = np.flatnonzero(target[:, 2])
        if len(active) == 0:
            reasons.append(f"no active speech at speed {speed:g}")
            continue
        start, end = int(active[0]), int(active[-1]) + 1
        loud = wav[max(0, start - 1) * hop : end * hop]
        rms = float(np.sqrt(np.mean(np.square(loud)) + 1e-12))
        pcm = np.clip(np.round(wav * 32767), -32768, 32767).astype(np.int16)
        versions.append(_Version(pcm, target, start, end, rms))
    return versions, reasons
