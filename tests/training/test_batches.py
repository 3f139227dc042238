# SPDX-License-Identifier: Apache-2.0
"""Batches are a function of seed and step, and their targets fit their waves."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from affectcodec.training.batches import BatchSource, frame_log_energy
from affectcodec.training.cache import ClipCache
from tests.codec_fixtures import HOP
from tests.training.sounds import tiny_run


def test_a_batch_is_a_function_of_seed_and_step(cache: ClipCache) -> None:
    source = BatchSource(cache, tiny_run())
    first = source.batch(3)
    source.batch(4)
    for a, b in zip(first, BatchSource(cache, tiny_run()).batch(3), strict=True):
        assert torch.equal(a, b)
    for other in (
        source.batch(4),
        source.batch(3, stream=1),
        BatchSource(cache, tiny_run(seed=2)).batch(3),
    ):
        assert not torch.equal(first.wav, other.wav)


def test_shapes_and_ranges(cache: ClipCache) -> None:
    config = tiny_run(batch_size=32)
    batch = BatchSource(cache, config).batch(0)
    frames = config.crop_frames
    assert batch.wav.shape == (32, (frames - 1) * HOP)
    assert config.codec.num_frames(batch.wav.shape[1]) == frames
    for name in ("log_f0", "voiced", "log_energy"):
        assert getattr(batch, name).shape == (32, frames)
    assert float(batch.wav.abs().max()) <= 1
    assert bool(torch.isfinite(batch.log_f0).all())
    assert set(batch.voiced.unique().tolist()) <= {0.0, 1.0}
    assert set(batch.stages.flatten().tolist()) == {1, 2, 4}
    assert batch.stages.shape == (32, 2)
    assert batch.stages.dtype == torch.int64
    assert 0 < int(batch.use_true_f0.sum()) < 32
    assert set(batch.emotion.tolist()) <= {-1, 1, 2}


def test_targets_lie_at_their_sound(cache: ClipCache) -> None:
    """Corpus b holds a tone of 200 Hz and noise; the tone's crops are voiced at 200 Hz."""
    config = tiny_run(batch_size=16, dataset_weights={"b": 1.0}, level_augment=0.0)
    batch = BatchSource(cache, config).batch(1)
    voiced = batch.voiced[:, 4:-4].mean(1) > 0.9
    assert 0 < int(voiced.sum()) < 16
    f0 = torch.exp(batch.log_f0[voiced][:, 4:-4])
    assert float((f0 - 200).abs().max()) < 5
    spectrum = torch.fft.rfft(batch.wav[voiced][:, : 16 * HOP]).abs()  # bins of 3.125 Hz
    assert bool((spectrum.argmax(1) == 64).all())


def test_corpora_are_drawn_by_their_weights(cache: ClipCache) -> None:
    config = tiny_run(batch_size=64, dataset_weights={"a": 3.0, "b": 1.0})
    source = BatchSource(cache, config)
    edges = np.diff(np.concatenate([[0], source.cumulative]))
    assert edges[:2].sum() == pytest.approx(0.75)
    assert edges[2:].sum() == pytest.approx(0.25)
    # Inside a corpus a clip's odds go by its active length.
    lengths = [clip.active_end - clip.active_start for clip in cache.clips]
    assert edges[0] / edges[1] == pytest.approx(lengths[0] / lengths[1])
    with pytest.raises(ValueError, match="dataset_weights.*leaves nothing"):
        BatchSource(cache, tiny_run(dataset_weights={"c": 1.0}))


def test_level_augmentation_sets_the_level_without_clipping(cache: ClipCache) -> None:
    config = tiny_run(
        batch_size=32, level_augment=1.0, level_range_db=(-30.0, -30.0), dataset_weights={"b": 1.0}
    )
    batch = BatchSource(cache, config).batch(0)
    levels = 10 * torch.log10(batch.wav.square().mean(1))
    torch.testing.assert_close(levels, torch.full((32,), -30.0), rtol=0, atol=1.0)
    loud = tiny_run(batch_size=32, level_augment=1.0, level_range_db=(20.0, 20.0))
    assert float(BatchSource(cache, loud).batch(0).wav.abs().max()) <= 0.991


def test_stage_counts_are_shared_unless_drawn_apart(cache: ClipCache) -> None:
    together = BatchSource(cache, tiny_run(batch_size=64, independent_stages=0.0)).batch(0).stages
    assert torch.equal(together[:, 0], together[:, 1])
    apart = BatchSource(cache, tiny_run(batch_size=64, independent_stages=1.0)).batch(0).stages
    assert not torch.equal(apart[:, 0], apart[:, 1])


def test_energy_of_a_constant() -> None:
    wav = torch.full((1, 4 * HOP), 0.5)
    energy = frame_log_energy(wav, HOP)
    want = math.log(0.5)
    # The first and the last frame cover half of their span: half the power.
    assert energy[0].tolist() == pytest.approx(
        [want - 0.5 * math.log(2), want, want, want, want - 0.5 * math.log(2)], abs=1e-4
    )
