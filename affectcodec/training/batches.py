# SPDX-License-Identifier: Apache-2.0
"""Batches of crops. Every random choice is a function of (seed, step): resuming needs no state."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from affectcodec.training.cache import ClipCache
from affectcodec.training.config import TrainConfig


class Batch(NamedTuple):
    """One training batch; ``T`` counts frames, the crop holds ``(T - 1) * hop`` samples.

    ``wav [B, N]``; ``log_f0``, ``voiced``, ``log_energy`` each ``[B, T]``; ``emotion [B]`` (-1
    where unlabelled); ``stages [B, G]``; ``use_true_f0 [B]`` bool; ``noise_start [B]``.
    """

    wav: Tensor
    log_f0: Tensor
    voiced: Tensor
    log_energy: Tensor
    emotion: Tensor
    stages: Tensor
    use_true_f0: Tensor
    noise_start: Tensor


def frame_log_energy(wav: Tensor, hop: int) -> Tensor:
    """Natural log RMS of the two hops around a frame's centre, ``[B, N] -> [B, N / hop + 1]``."""
    power = wav.square().reshape(wav.shape[0], -1, hop).mean(-1)
    padded = torch.nn.functional.pad(power, (1, 1))
    return 0.5 * torch.log((padded[:, 1:] + padded[:, :-1]) / 2 + 1e-9)


class BatchSource:
    """Draws crops of active speech from a cache."""

    def __init__(self, cache: ClipCache, config: TrainConfig) -> None:
        self.cache, self.config = cache, config
        weights = dict(config.dataset_weights)
        names = sorted({clip.dataset for clip in cache.clips})
        frames = dict.fromkeys(names, 0)
        for clip in cache.clips:
            frames[clip.dataset] += clip.active_end - clip.active_start
        unnamed = sum(frames[name] for name in names if name not in weights) or 1
        odds = []
        for clip in cache.clips:
            # Odds go by active length, so that a long clip is not drawn as often as a short one.
            length = clip.active_end - clip.active_start
            if clip.dataset in weights:
                odds.append(weights[clip.dataset] * length / frames[clip.dataset])
            else:
                odds.append((0.0 if weights else 1.0) * length / unnamed)
        total = sum(odds)
        if total <= 0:
            raise ValueError(
                f"dataset_weights: {weights} leaves nothing of the corpora {names} to draw from"
            )
        self.cumulative = np.cumsum(np.asarray(odds) / total)

    def batch(self, step: int, *, stream: int = 0) -> Batch:
        """The batch of a step."""
        config = self.config
        rng = np.random.default_rng((config.seed, stream, step))
        hop, crop = config.codec.hop_length, config.crop_frames
        size = config.batch_size
        wav = np.zeros((size, (crop - 1) * hop), np.float32)
        prosody = np.zeros((size, crop, 3), np.float32)
        emotion = np.full(size, -1, np.int64)
        for i in range(size):
            index = int(np.searchsorted(self.cumulative, rng.random()))
            clip = self.cache.clips[min(index, len(self.cumulative) - 1)]
            low = max(0, clip.active_start - 8)
            high = max(low, min(clip.active_end + 8, clip.num_frames) - crop)
            first = int(rng.integers(low, high + 1))
            count = min(crop, clip.num_frames - first)
            start = first * hop
            stop = min(clip.num_samples, start + wav.shape[1])
            piece = self.cache.pcm[clip.sample_offset + start : clip.sample_offset + stop]
            gain = 1.0
            if rng.random() < config.level_augment:
                target = 10 ** (rng.uniform(*config.level_range_db) / 20)
                gain = target / clip.active_rms
            x = piece.astype(np.float32) / 32768
            peak = float(np.abs(x).max(initial=1e-9))
            wav[i, : len(x)] = x * min(gain, 0.99 / peak)
            offset = clip.frame_offset + first
            prosody[i, :count] = self.cache.prosody[offset : offset + count]
            prosody[i, count:, 0] = prosody[i, count - 1, 0]
            emotion[i] = clip.emotion
        tensor = torch.from_numpy(wav)
        groups = len(config.codec.quantizer.blocks)
        odds = np.asarray(config.stage_weights) / np.sum(config.stage_weights)
        drawn = rng.choice(config.stage_choices, size=(size, groups), p=odds)
        shared = rng.random(size) >= config.independent_stages
        drawn[shared] = drawn[shared, :1]
        targets = torch.from_numpy(prosody)
        return Batch(
            tensor,
            targets[..., 0],
            targets[..., 1],
            frame_log_energy(tensor, hop),
            torch.from_numpy(emotion),
            torch.from_numpy(drawn.astype(np.int64)),
            torch.from_numpy(rng.random(size) < config.true_f0_share),
            torch.from_numpy(rng.integers(0, 65536, size)),
        )
