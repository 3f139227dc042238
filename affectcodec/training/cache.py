# SPDX-License-Identifier: Apache-2.0
"""Clips and prosody targets, computed once and kept on disk as memory-mapped arrays.

A cache folder holds ``pcm.i16`` (all clips end to end), ``prosody.f32`` (three numbers a frame: log
F0 interpolated over unvoiced gaps, voicing, activity) and ``index.json``. It is named by a hash of
what went in, sizes and times of the files included: a changed manifest or file makes a new cache,
and an unchanged one is reused.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from affectcodec.config import CodecConfig
from affectcodec.training.data import EMOTIONS as EMOTIONS
from affectcodec.training.data import Clip as Clip
from affectcodec.training.data import manifest_clips
from affectcodec.training.data_prepare import prepare
from affectcodec.training.data_prepare import prosody_targets as prosody_targets
from affectcodec.training.data_report import NOTED, SKIPPED, DataReport
from affectcodec.training.data_workers import map_isolated

CACHE_VERSION = 4


@dataclass(frozen=True)
class CachedClip:
    """Where a clip lies in the cache; offsets in samples and frames.

    ``path`` and ``speed`` tell which clip it was, ``digest`` the content of its samples; they are
    empty in caches of older releases.
    """

    dataset: str
    emotion: int
    sample_offset: int
    num_samples: int
    frame_offset: int
    num_frames: int
    active_start: int
    active_end: int
    active_rms: float
    path: str = ""
    speaker: str = ""
    speed: float = 1.0
    arousal: float | None = None
    valence: float | None = None
    digest: str = ""


def read_manifest(path: str | Path, split: str) -> list[Clip]:
    """Clips of one split of a manifest; see :func:`~affectcodec.training.data.manifest_clips`."""
    return manifest_clips(path, split, DataReport())


def _key(
    clips: Sequence[Clip], config: CodecConfig, speeds: Sequence[float], *, times: bool
) -> str:
    digest = hashlib.blake2b(digest_size=8)
    net = config.network
    head = [CACHE_VERSION, list(speeds), config.sample_rate, config.hop_length]
    digest.update(json.dumps([*head, net.f0_min, net.f0_max]).encode())
    for clip in clips:
        fields = [clip.path, clip.dataset, clip.speaker, clip.emotion]
        identity = clip.identity()
        if not times:
            digest.update(json.dumps([fields, identity[0]]).encode())
        else:
            affect = [clip.arousal, clip.valence]
            digest.update(json.dumps([fields, affect, identity]).encode())
    return digest.hexdigest()


def _folder(
    root: Path, clips: Sequence[Clip], config: CodecConfig, speeds: Sequence[float]
) -> Path:
    """Where the cache of these clips lies, or has to be made."""
    folder = root / _key(clips, config, speeds, times=True)
    if (folder / "index.json").exists():
        return folder
    # Older releases named a cache without the times of its files. It serves if no file changed
    # after it was made, and nothing is asked for that it does not hold.
    older = root / _key(clips, config, speeds, times=False)
    try:
        made = os.stat(older / "index.json").st_mtime_ns
        if all(0 <= clip.identity()[-1] < made for clip in clips) and all(
            type(clip) is Clip and clip.arousal is None and clip.valence is None for clip in clips
        ):
            return older
    except (OSError, TypeError):
        pass
    return folder


class ClipCache:
    """Memory-mapped clips with their targets; pickles as its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        record = json.loads((folder / "index.json").read_text())
        self.clips = [CachedClip(**clip) for clip in record["clips"]]
        self.skipped: list[list[str]] = record["skipped"]
        self.noted: list[list[str]] = record.get("noted", [])
        self.pcm = np.memmap(folder / "pcm.i16", dtype=np.int16, mode="r")
        self.prosody = np.memmap(folder / "prosody.f32", dtype=np.float32, mode="r").reshape(-1, 3)

    def __reduce__(self) -> tuple[type[ClipCache], tuple[Path]]:
        return ClipCache, (self.folder,)

    @property
    def seconds(self) -> float:
        """Length of all clips at 16 kHz, speeds included."""
        return sum(clip.num_samples for clip in self.clips) / 16000

    def describe(self, report: DataReport) -> None:
        """Write what became of the clips into a report."""
        report.used += len({clip.path for clip in self.clips if clip.path}) or len(self.clips)
        report.extend((SKIPPED, item, reason) for item, reason in self.skipped)
        report.extend((NOTED, item, reason) for item, reason in self.noted)

    @classmethod
    def find(
        cls,
        clips: Sequence[Clip],
        config: CodecConfig,
        root: str | Path,
        speeds: Sequence[float] = (1.0,),
    ) -> ClipCache | None:
        """The cache of these clips below ``root``, None if it is not there."""
        folder = _folder(Path(root), clips, config, speeds)
        return cls(folder) if (folder / "index.json").exists() else None

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

        Clips that cannot be used are skipped and listed in ``skipped`` with the reason: files that
        cannot be read, less than two frames, no sound, listed twice, the samples of another clip.
        What is used but odd (clipped, little bandwidth, several channels) is listed in ``noted``.
        ``workers`` defaults to the number of processors; 1 works in this process.

        Raises:
            ValueError: if no clip can be used.
        """
        if not clips:
            raise ValueError("clips: got none, wanted at least one clip to cache")
        folder = _folder(Path(root), clips, config, speeds)
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
        noted: list[list[str]] = []
        unique: dict[str, Clip] = {}
        for clip in clips:
            if clip.path in unique:
                skipped.append([clip.path, "listed more than once; used once"])
            unique.setdefault(clip.path, clip)
        known: dict[tuple[str, float], str] = {}
        samples = frames = 0
        work = functools.partial(prepare, config=config, speeds=tuple(speeds))
        # Names of their own, so that two runs that make one cache do not write into each other.
        suffix = f".{os.getpid()}.part"
        with (
            open(folder / f"pcm.i16{suffix}", "wb") as pcm,
            open(folder / f"prosody.f32{suffix}", "wb") as prosody,
        ):
            results = map_isolated(work, list(unique.values()), workers)
            bar = tqdm(results, "caching clips", len(unique), unit="clip", disable=not progress)
            for clip, found, died in bar:
                if found is None:
                    skipped.append([clip.path, died])
                    continue
                skipped.extend([clip.path, reason] for reason in found.skipped)
                noted.extend([clip.path, reason] for reason in found.noted)
                for version in found.versions:
                    same = known.setdefault((version.digest, version.speed), clip.path)
                    if same != clip.path:
                        skipped.append([clip.path, f"has the samples of {same}"])
                        continue
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
                            path=clip.path,
                            speaker=clip.speaker,
                            speed=version.speed,
                            arousal=clip.arousal,
                            valence=clip.valence,
                            digest=version.digest,
                        )
                    )
                    pcm.write(version.pcm.tobytes())
                    prosody.write(version.prosody.tobytes())
                    samples += len(version.pcm)
                    frames += len(version.prosody)
        record = {
            "clips": [dataclasses.asdict(entry) for entry in entries],
            "skipped": skipped,
            "noted": noted,
        }
        (folder / f"index.json{suffix}").write_text(json.dumps(record))
        if not entries:
            for name in ("pcm.i16", "prosody.f32", "index.json"):
                (folder / f"{name}{suffix}").unlink()
            raise ValueError(f"none of the clips can be used; the first reasons: {skipped[:3]}")
        for name in ("pcm.i16", "prosody.f32", "index.json"):
            os.replace(folder / f"{name}{suffix}", folder / name)
