# SPDX-License-Identifier: Apache-2.0
"""Batches are a function of seed and step, and their targets fit their waves."""

from __future__ import annotations

import math

import pytest
import torch

from affectcodec.training.batches import BatchSource, CachedPool, frame_log_energy
from affectcodec.training.cache import ClipCache
from affectcodec.training.config_data import AugmentConfig
from tests.codec_fixtures import HOP
from tests.training.sounds import tiny_run


def test_a_batch_is_a_function_of_seed_and_step(cache: ClipCache) -> None:
    source = BatchSource(cache, tiny_run())
    first = source.batch(3)
    source.batch(4)
    for a, b in zip(first, BatchSource(cache, tiny_run()).batch(3), strict=True):
        assert a is b is None or torch.equal(a, b)
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
    source = BatchSource(cache, tiny_run(dataset_weights={"a": 3.0, "b": 1.0}))
    assert source.names == ["a", "b"]
    assert source.weights(0).tolist() == [0.75, 0.25]
    # Inside a corpus a clip's odds go by its active length.
    pool = CachedPool(cache, [0, 1])
    lengths = [clip.active_end - clip.active_start for clip in cache.clips[:2]]
    assert pool.cumulative[0] == pytest.approx(lengths[0] / sum(lengths))
    # Without weights, so do those of the corpora.
    total = sum(clip.active_end - clip.active_start for clip in cache.clips)
    odds = BatchSource(cache, tiny_run()).weights(0)
    assert odds[0] == pytest.approx(sum(lengths) / total)
    with pytest.raises(ValueError, match="dataset_weights.*leaves nothing"):
        BatchSource(cache, tiny_run(dataset_weights={"c": 1.0}))


def test_weights_move_over_the_run(cache: ClipCache) -> None:
    config = tiny_run(
        steps=100,
        dataset_weights={"a": 1.0},
        dataset_weights_end={"a": 1.0, "b": 3.0},
        batch_size=64,
    )
    source = BatchSource(cache, config)
    assert [source.weights(step)[1] for step in (0, 50, 100, 500)] == pytest.approx(
        [0.0, 0.6, 0.75, 0.75]
    )
    labelled = [int((source.batch(step).emotion >= 0).sum()) for step in (0, 100)]
    assert labelled[0] == 64 > 2 * labelled[1]  # only corpus a has labels


def test_noise_and_rooms_change_the_wave_and_not_its_targets(cache: ClipCache) -> None:
    plain = BatchSource(cache, tiny_run(batch_size=8, level_augment=0.0)).batch(0)
    for how in (
        AugmentConfig(noise=1.0, noise_snr_db=(0.0, 5.0)),
        AugmentConfig(reverb=1.0),
        AugmentConfig(noise=1.0, reverb=1.0),
    ):
        config = tiny_run(batch_size=8, level_augment=0.0, augment=how)
        batch = BatchSource(cache, config).batch(0)
        assert torch.equal(batch.log_f0, plain.log_f0)
        assert torch.equal(batch.voiced, plain.voiced)
        assert all(not torch.equal(a, b) for a, b in zip(batch.wav, plain.wav, strict=True))
        assert float(batch.wav.abs().max()) <= 0.991
        assert torch.equal(batch.log_energy, frame_log_energy(batch.wav, HOP))


def test_a_corpus_of_noise_is_never_a_target(cache: ClipCache) -> None:
    how = AugmentConfig(noise=1.0, noise_snr_db=(0.0, 0.0), noise_datasets=("b",))
    source = BatchSource(cache, tiny_run(batch_size=16, augment=how))
    assert source.names == ["a"]
    assert bool((source.batch(0).emotion >= 0).all())
    with pytest.raises(ValueError, match=r"noise_datasets: no clips of \['c'\]"):
        BatchSource(cache, tiny_run(augment=AugmentConfig(noise_datasets=("c",))))


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
