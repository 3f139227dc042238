# SPDX-License-Identifier: Apache-2.0
"""Targets on disk: found by content, whole or not there, cut like crops."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from affectcodec.training.batches import BatchSource
from affectcodec.training.cache import ClipCache
from affectcodec.training.config import LossWeights
from affectcodec.training.teachers import (
    EmbeddingStore,
    LabelTeacher,
    ProsodyTeacher,
    TargetCache,
    Teacher,
    TeacherClip,
)
from affectcodec.training.trainer import Trainer
from tests.codec_fixtures import speech_like, tiny_config
from tests.training.sounds import tiny_run


class Counting:
    """Rows of the mean of each 320 samples, many times over."""

    name = "counting"
    fingerprint = "c0"
    dim = 20
    rate: float | None = 50.0

    def __init__(self) -> None:
        self.asked = 0

    def targets(self, clip: TeacherClip) -> np.ndarray:
        self.asked += 1
        rows = len(clip.wav) // 320
        return clip.wav[: rows * 320].reshape(rows, 320).mean(1)[:, None].repeat(self.dim, 1)


def clip(seed: int = 0, **labels: float) -> TeacherClip:
    return TeacherClip(speech_like(3200, seed).numpy(), 16000, labels)


def test_teachers_follow_the_protocol() -> None:
    for teacher in (Counting(), LabelTeacher(), ProsodyTeacher(tiny_config())):
        assert isinstance(teacher, Teacher)


def test_a_clip_is_computed_once_and_found_by_its_content(tmp_path: Path) -> None:
    teacher = Counting()
    cache = TargetCache(tmp_path, teacher)
    first = cache.get(clip())
    assert first.shape == (10, 20) and first.dtype == np.float16
    assert np.array_equal(first, TargetCache(tmp_path, teacher).get(clip()))
    assert teacher.asked == 1
    cache.get(clip(1))
    cache.get(clip(0, arousal=0.5))
    assert teacher.asked == 3
    other = Counting()
    other.fingerprint = "c1"
    TargetCache(tmp_path, other).get(clip())
    assert other.asked == 1


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY junk", b"no array at all"])
def test_a_damaged_file_is_made_again(tmp_path: Path, damage: bytes) -> None:
    teacher = Counting()
    cache = TargetCache(tmp_path, teacher)
    want = np.array(cache.get(clip()))
    cache.path(clip()).write_bytes(damage)
    assert np.array_equal(cache.get(clip()), want)
    assert teacher.asked == 2
    assert not list(tmp_path.rglob("*.part"))


def test_a_teacher_that_breaks_its_word_is_named(tmp_path: Path) -> None:
    teacher = Counting()
    teacher.dim = 21
    teacher.targets = lambda _: np.zeros((3, 20), np.float32)  # type: ignore[method-assign]
    with pytest.raises(ValueError, match=r"counting: wanted targets \[rows, 21\], got \(3, 20\)"):
        TargetCache(tmp_path, teacher).get(clip())
    assert not list(tmp_path.rglob("*.npy"))


def test_labels() -> None:
    teacher = LabelTeacher(("arousal", "valence"))
    row = teacher.targets(clip(arousal=0.25))
    assert row.shape == (1, 2) and row[0, 0] == 0.25 and math.isnan(row[0, 1])
    assert LabelTeacher(("valence",)).fingerprint != teacher.fingerprint
    with pytest.raises(ValueError, match="label 'arousal': wanted a number, got 'high'"):
        teacher.targets(TeacherClip(np.zeros(8, np.float32), 16000, {"arousal": "high"}))
    with pytest.raises(ValueError, match="at least one label"):
        LabelTeacher(())


def test_prosody() -> None:
    config = tiny_config()
    out = ProsodyTeacher(config).targets(clip())
    assert out.shape == (config.num_frames(3200), 3)
    with pytest.raises(ValueError, match="wanted 16000 Hz, got 8000"):
        ProsodyTeacher(config).targets(TeacherClip(np.zeros(800, np.float32), 8000))


def test_crops_are_cut_where_the_audio_is(tmp_path: Path, cache: ClipCache) -> None:
    store = EmbeddingStore(cache, Counting(), tmp_path)
    assert store.rows(24) == 23 and store.dim == 20
    entry = cache.clips[0]
    pcm = cache.pcm[entry.sample_offset : entry.sample_offset + entry.num_samples]
    want = pcm[3 * 320 : 26 * 320].astype(np.float32).reshape(23, 320).mean(1) / 32768
    np.testing.assert_allclose(store.crop(0, 3, 24)[:, 7], want, atol=1e-4)
    last = entry.num_frames - 2
    tail = store.crop(0, last, 24)
    assert tail.shape == (23, 20) and np.isnan(tail[-1]).all()


def test_embeddings_reach_batches_and_the_loss(tmp_path: Path, cache: ClipCache) -> None:
    config = tiny_run(loss=LossWeights(teacher=1.0))
    store = EmbeddingStore(cache, Counting(), tmp_path / "targets")
    batch = BatchSource(cache, config, embeddings=store).batch(0)
    assert batch.embedding is not None and batch.embedding.shape == (2, 23, 20)
    pytest.importorskip("tensorboard")
    run = Trainer(config, cache, None, tmp_path, embeddings=store)
    figures = run.train_step()
    assert 0 < figures["raw_teacher"] <= 2
    assert run.emotion_head.embedding is not None
    assert run.emotion_head.embedding.weight.grad is not None
