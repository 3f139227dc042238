# SPDX-License-Identifier: Apache-2.0
"""Batches of crops. Every random choice is a function of (seed, step, crop).

Resuming therefore needs no state, and it does not matter how many processes share a batch: rank
``r`` of ``n`` makes crops ``r * B / n`` to ``(r + 1) * B / n`` of the batch that a single process
would make. Streams of tar shards are the exception, see ``data_shards``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from affectcodec.training import augment
from affectcodec.training.cache import ClipCache
from affectcodec.training.config import TrainConfig

if TYPE_CHECKING:
    from affectcodec.training.teachers.store import EmbeddingStore

_BABBLE_SHARE, _VOICES = 0.3, 4  # of noise without a corpus of its own


class Batch(NamedTuple):
    """One training batch; ``T`` counts frames, the crop holds ``(T - 1) * hop`` samples.

    ``wav [B, N]``; ``log_f0``, ``voiced``, ``log_energy`` each ``[B, T]``; ``emotion [B]`` (-1
    where unlabelled); ``stages [B, G]``; ``use_true_f0 [B]`` bool; ``noise_start [B]``.
    ``embedding [B, T', E]`` of a teacher and ``dimensions [B, 2]`` (arousal, valence), NaN where a
    clip has none, are None in a run that does not ask for them.
    """

    wav: Tensor
    log_f0: Tensor
    voiced: Tensor
    log_energy: Tensor
    emotion: Tensor
    stages: Tensor
    use_true_f0: Tensor
    noise_start: Tensor
    embedding: Tensor | None = None
    dimensions: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """The same batch elsewhere; itself if it is there already."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def rows(self, first: int, last: int) -> Batch:
        """Crops ``first`` to ``last``."""
        return self._each(lambda tensor: tensor[first:last])

    def repeat(self, count: int) -> Batch:
        """All crops ``count`` times, one batch after the other."""
        return self._each(lambda tensor: torch.cat([tensor] * count))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        values: dict[str, Any] = {
            name: None if tensor is None else change(tensor)
            for name, tensor in self._asdict().items()
        }
        return Batch(**values)


class Piece(NamedTuple):
    """A clip to crop: int16 samples, targets ``[T, 3]``, active span in frames, level, labels.

    ``clip_index`` is its place in the cache, None for a clip of a stream.
    """

    pcm: np.ndarray
    prosody: np.ndarray
    active_start: int
    active_end: int
    active_rms: float
    emotion: int
    dimensions: tuple[float | None, float | None] = (None, None)
    clip_index: int | None = None


class Pool(Protocol):
    """Clips of one corpus that crops are drawn from."""

    def draw(self, rng: np.random.Generator) -> Piece:
        """One clip."""


class CachedPool:
    """Clips of a cache by their active length, so that a long clip is drawn more often."""

    def __init__(self, cache: ClipCache, indices: Sequence[int]) -> None:
        self.cache, self.indices = cache, list(indices)
        lengths = [cache.clips[i].active_end - cache.clips[i].active_start for i in self.indices]
        self.frames = sum(lengths)
        self.cumulative = np.cumsum(np.asarray(lengths) / max(1, self.frames))

    def draw(self, rng: np.random.Generator) -> Piece:
        at = min(int(np.searchsorted(self.cumulative, rng.random())), len(self.indices) - 1)
        index = self.indices[at]
        clip = self.cache.clips[index]
        samples = slice(clip.sample_offset, clip.sample_offset + clip.num_samples)
        frames = slice(clip.frame_offset, clip.frame_offset + clip.num_frames)
        return Piece(
            self.cache.pcm[samples],
            self.cache.prosody[frames],
            clip.active_start,
            clip.active_end,
            clip.active_rms,
            clip.emotion,
            (clip.arousal, clip.valence),
            index,
        )


def frame_log_energy(wav: Tensor, hop: int) -> Tensor:
    """Natural log RMS of the two hops around a frame's centre, ``[B, N] -> [B, N / hop + 1]``."""
    power = wav.square().reshape(wav.shape[0], -1, hop).mean(-1)
    padded = torch.nn.functional.pad(power, (1, 1))
    return 0.5 * torch.log((padded[:, 1:] + padded[:, :-1]) / 2 + 1e-9)


class BatchSource:
    """Draws crops of active speech.

    Args:
        cache: prepared clips; None if all comes from streams.
        config: the run.
        streams: further corpora by name.
        rank, world: which share of each batch to make.
        embeddings: a teacher's targets of the prepared clips.

    Raises:
        ValueError: if the weights leave nothing to draw from, or a corpus is asked for as noise
            that is not there, or ``batch_size`` cannot be shared by ``world`` processes.
    """

    def __init__(
        self,
        cache: ClipCache | None,
        config: TrainConfig,
        *,
        streams: Mapping[str, Pool] | None = None,
        rank: int = 0,
        world: int = 1,
        embeddings: EmbeddingStore | None = None,
    ) -> None:
        self.config, self.embeddings = config, embeddings
        if config.batch_size % world:
            raise ValueError(
                f"batch_size: {config.batch_size} crops cannot be shared by {world} processes; "
                f"wanted a multiple of {world}"
            )
        share = config.batch_size // world
        self.crops = range(rank * share, (rank + 1) * share)
        by_name: dict[str, list[int]] = {}
        for index, clip in enumerate(cache.clips if cache is not None else ()):
            by_name.setdefault(clip.dataset, []).append(index)
        cached = {
            name: CachedPool(cache, indices)
            for name, indices in sorted(by_name.items())
            if cache is not None
        }
        missing = sorted(set(config.augment.noise_datasets) - set(cached))
        if missing:
            raise ValueError(f"noise_datasets: no clips of {missing}; there are {sorted(cached)}")
        self.noises = [cached.pop(name) for name in config.augment.noise_datasets]
        self.pools: dict[str, Pool] = {**cached, **(streams or {})}
        self.names = list(self.pools)
        # Without weights a corpus is drawn by its active length; a stream does not know its own.
        self.lengths = {name: float(pool.frames) for name, pool in cached.items()}
        if streams and cached and not config.dataset_weights:
            raise ValueError(
                "dataset_weights: the length of a stream of shards is not known, so that shards "
                f"and prepared clips can be mixed by weight only; name weights of {self.names}"
            )
        self.weights(0)
        self.weights(config.steps)

    def weights(self, step: int) -> np.ndarray:
        """Odds of the corpora ``self.names`` at a step.

        Raises:
            ValueError: if they are all 0.
        """
        config = self.config
        done = min(1.0, step / max(1, config.steps))
        odds = []
        for name in self.names:
            if not config.dataset_weights:
                odds.append(self.lengths.get(name, 1.0))
                continue
            start = config.dataset_weights.get(name, 0.0)
            end = config.dataset_weights_end.get(name, 0.0) if config.dataset_weights_end else start
            odds.append(start + done * (end - start))
        if sum(odds) <= 0:
            raise ValueError(
                f"dataset_weights: {dict(config.dataset_weights)} leaves nothing of the corpora "
                f"{self.names} to draw from"
            )
        return np.asarray(odds) / sum(odds)

    def batch(self, step: int, *, stream: int = 0) -> Batch:
        """This process's share of the batch of a step."""
        config = self.config
        hop, crop, size = config.codec.hop_length, config.crop_frames, len(self.crops)
        wav = np.zeros((size, (crop - 1) * hop), np.float32)
        prosody = np.zeros((size, crop, 3), np.float32)
        emotion = np.full(size, -1, np.int64)
        dimensions = np.full((size, 2), np.nan, np.float32)
        taught: list[np.ndarray] = []
        stages = np.zeros((size, len(config.codec.quantizer.blocks)), np.int64)
        true_f0 = np.zeros(size, bool)
        noise_start = np.zeros(size, np.int64)
        corpora = np.cumsum(self.weights(step))
        odds = np.asarray(config.stage_weights) / np.sum(config.stage_weights)
        for row, index in enumerate(self.crops):
            rng = np.random.default_rng((config.seed, stream, step, index))
            name = self.names[min(int(np.searchsorted(corpora, rng.random())), len(corpora) - 1)]
            piece, first = self._crop(self.pools[name], name, rng, wav[row], prosody[row])
            emotion[row] = piece.emotion
            dimensions[row] = [np.nan if value is None else value for value in piece.dimensions]
            if self.embeddings is not None:
                taught.append(self.embeddings.crop(piece.clip_index, first, crop))
            stages[row] = rng.choice(config.stage_choices, size=stages.shape[1], p=odds)
            if rng.random() >= config.independent_stages:
                stages[row] = stages[row, 0]
            true_f0[row] = rng.random() < config.true_f0_share
            noise_start[row] = rng.integers(0, 65536)
        tensor, targets = torch.from_numpy(wav), torch.from_numpy(prosody)
        return Batch(
            tensor,
            targets[..., 0].contiguous(),
            targets[..., 1].contiguous(),
            frame_log_energy(tensor, hop),
            torch.from_numpy(emotion),
            torch.from_numpy(stages),
            torch.from_numpy(true_f0),
            torch.from_numpy(noise_start),
            torch.from_numpy(np.stack(taught)) if taught else None,
            torch.from_numpy(dimensions) if config.loss.dimensions > 0 else None,
        )

    def _crop(
        self, pool: Pool, name: str, rng: np.random.Generator, wav: np.ndarray, prosody: np.ndarray
    ) -> tuple[Piece, int]:
        """One crop into ``wav [N]`` and ``prosody [T, 3]``; returns its clip and first frame."""
        config = self.config
        hop, crop = config.codec.hop_length, config.crop_frames
        piece = pool.draw(rng)
        frames = len(piece.prosody)
        low = max(0, piece.active_start - 8)
        high = max(low, min(piece.active_end + 8, frames) - crop)
        first = int(rng.integers(low, high + 1))
        count = min(crop, frames - first)
        samples = piece.pcm[first * hop : first * hop + len(wav)]
        x = samples.astype(np.float32) / 32768
        x = self._augmented(x, name, rng)
        gain = 1.0
        if rng.random() < config.level_augment:
            gain = 10 ** (rng.uniform(*config.level_range_db) / 20) / piece.active_rms
        wav[: len(x)] = augment.fit(x, gain)
        prosody[:count] = piece.prosody[first : first + count]
        prosody[count:, 0] = prosody[count - 1, 0]
        return piece, first

    def _augmented(self, x: np.ndarray, name: str, rng: np.random.Generator) -> np.ndarray:
        config, rate = self.config.augment, self.config.codec.sample_rate
        if config.reverb and rng.random() < config.reverb:
            seconds = rng.uniform(*config.reverb_seconds)
            direct = rng.uniform(*config.reverb_direct_db)
            x = augment.reverberate(x, augment.room_response(seconds, direct, rate, rng))
        if config.noise and rng.random() < config.noise:
            snr = rng.uniform(*config.noise_snr_db)
            if self.noises:
                noise = self._excerpt(self.noises[int(rng.integers(len(self.noises)))], len(x), rng)
            elif rng.random() < _BABBLE_SHARE:
                voices = [self._excerpt(self.pools[name], len(x), rng) for _ in range(_VOICES)]
                noise = np.sum(voices, axis=0)
            else:
                noise = augment.coloured_noise(len(x), rng.uniform(0.0, 6.0), rng)
            x = augment.add_noise(x, noise, snr)
        return x

    @staticmethod
    def _excerpt(pool: Pool, length: int, rng: np.random.Generator) -> np.ndarray:
        """``length`` samples from anywhere in a clip, repeated if it is shorter."""
        pcm = pool.draw(rng).pcm
        start = int(rng.integers(0, max(1, len(pcm) - length + 1)))
        found = np.resize(pcm[start : start + length], length)
        return found.astype(np.float32) / 32768
