# SPDX-License-Identifier: Apache-2.0
"""Targets of teachers on disk, found by the content of teacher and clip."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from pathlib import Path

import numpy as np
from tqdm import tqdm

from affectcodec.training.cache import EMOTIONS, CachedClip, ClipCache
from affectcodec.training.teachers.protocol import Teacher, TeacherClip


class TargetCache:
    """One file a clip: ``root/TEACHER/XX/CLIP.npy``, float16 (float32 below 16 numbers a row).

    Args:
        root: shared by all teachers and runs.
        teacher: asked where a file is missing or damaged.
    """

    def __init__(self, root: str | Path, teacher: Teacher) -> None:
        self.teacher = teacher
        self.folder = Path(root) / teacher.fingerprint
        self.dtype = np.float32 if teacher.dim < 16 else np.float16

    def path(self, clip: TeacherClip) -> Path:
        """Where the targets of a clip lie: a hash of its samples, rate and labels."""
        digest = hashlib.blake2b(digest_size=12)
        digest.update(json.dumps([clip.sample_rate, sorted(clip.labels.items())]).encode())
        digest.update(np.ascontiguousarray(clip.wav, np.float32).tobytes())
        name = digest.hexdigest()
        return self.folder / name[:2] / f"{name[2:]}.npy"

    def get(self, clip: TeacherClip) -> np.ndarray:
        """Targets ``[rows, dim]``, memory-mapped from disk after the first time.

        Raises:
            ValueError: if the teacher returns another shape than it declares.
        """
        path = self.path(clip)
        found = self._read(path)
        if found is not None:
            return found
        made = np.asarray(self.teacher.targets(clip))
        if made.ndim != 2 or made.shape[1] != self.teacher.dim or not len(made):
            raise ValueError(
                f"teacher {self.teacher.name}: wanted targets [rows, {self.teacher.dim}], got "
                f"{made.shape}"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        # Whole or not at all: workers and killed runs share the folder.
        handle, part = tempfile.mkstemp(dir=path.parent, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                np.save(file, made.astype(self.dtype))
            os.replace(part, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(part)
            raise
        written = self._read(path)
        return made.astype(self.dtype) if written is None else written

    def _read(self, path: Path) -> np.ndarray | None:
        try:
            found = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        good = found.ndim == 2 and found.shape[1] == self.teacher.dim and len(found) > 0
        return found if good else None


class EmbeddingStore:
    """Targets of all clips of a training cache, cut like its crops.

    Args:
        cache: the clips; those whose targets are missing are computed now.
        teacher: whose targets.
        root: of the :class:`TargetCache`.
        sample_rate, hop_length: of the codec.
    """

    def __init__(
        self,
        cache: ClipCache,
        teacher: Teacher,
        root: str | Path,
        *,
        sample_rate: int = 16000,
        hop_length: int = 320,
        progress: bool = False,
    ) -> None:
        self.dim, self.rate = teacher.dim, teacher.rate
        self.sample_rate, self.hop_length = sample_rate, hop_length
        targets = TargetCache(root, teacher)
        self.paths: list[Path] = []
        for clip in tqdm(cache.clips, f"targets of {teacher.name}", disable=not progress):
            asked = TeacherClip(_samples(cache, clip), sample_rate, _labels(clip))
            targets.get(asked)
            self.paths.append(targets.path(asked))

    def rows(self, frames: int) -> int:
        """Rows of a crop of ``frames`` codec frames."""
        if self.rate is None:
            return 1
        seconds = (frames - 1) * self.hop_length / self.sample_rate
        return max(1, int(seconds * self.rate + 1e-6))

    def crop(self, index: int | None, first: int, frames: int) -> np.ndarray:
        """Targets of a crop, float32 ``[rows(frames), dim]``; NaN beyond the end of the clip.

        Args:
            index: of the clip in its cache; None for a clip that is in none, which gives NaN.
            first: codec frame at which the crop begins.
        """
        if index is None:
            return np.full((self.rows(frames), self.dim), np.nan, np.float32)
        found = np.load(self.paths[index], mmap_mode="r", allow_pickle=False)
        if self.rate is None:
            return np.asarray(found[:1], np.float32)
        start = round(first * self.hop_length / self.sample_rate * self.rate)
        out = np.full((self.rows(frames), self.dim), np.nan, np.float32)
        piece = found[start : start + len(out)]
        out[: len(piece)] = piece
        return out


def _samples(cache: ClipCache, clip: CachedClip) -> np.ndarray:
    pcm = cache.pcm[clip.sample_offset : clip.sample_offset + clip.num_samples]
    return pcm.astype(np.float32) / 32768


def _labels(clip: CachedClip) -> dict[str, float | int | str]:
    labels: dict[str, float | int | str] = {}
    if clip.emotion >= 0:
        labels["emotion"] = EMOTIONS[clip.emotion]
    for name in ("arousal", "valence"):
        value = getattr(clip, name)
        if value is not None:
            labels[name] = value
    return labels
