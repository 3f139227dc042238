# SPDX-License-Identifier: Apache-2.0
"""Supervision of the quantized emotion block through a head of its own; used in training only."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from affectcodec.nn.causal import CausalConvNeXt
from affectcodec.training.batches import Batch
from affectcodec.training.cache import EMOTIONS
from affectcodec.training.distributed import shared_count
from affectcodec.training.losses.descriptors import Descriptors
from affectcodec.training.losses.prosody import LOG_ENERGY_FLOOR

FRAME_TARGETS = ("log_f0", "voicing", "log_energy", "tilt", "harmonicity")
DIMENSIONS = ("arousal", "valence")


class HeadOutput(NamedTuple):
    """``classes [B, EMOTIONS]`` logits, ``dimensions [B, 2]`` (arousal, valence), ``frames
    [B, T, 5]`` in the order of ``FRAME_TARGETS``, ``embedding [B, T, E]``; None where not asked."""

    classes: Tensor
    dimensions: Tensor | None
    frames: Tensor | None
    embedding: Tensor | None


class EmotionHead(nn.Module):
    """Classes, and if asked dimensions, frame targets and teacher embeddings.

    Args:
        in_channels: width of the emotion block.
        channels: of the head's own network.
        dimensions, frames: whether there are such outputs.
        embedding: width of the teacher's embedding, 0 for none.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int = 64,
        *,
        dimensions: bool = False,
        frames: bool = False,
        embedding: int = 0,
    ) -> None:
        super().__init__()
        self.network = CausalConvNeXt(in_channels, channels, 1, 7, 2)
        self.score = nn.Linear(channels, 1)
        self.out = nn.Linear(channels, len(EMOTIONS))
        self.dimensions = nn.Linear(channels, len(DIMENSIONS)) if dimensions else None
        self.frames = nn.Linear(channels, len(FRAME_TARGETS)) if frames else None
        self.embedding = nn.Linear(channels, embedding) if embedding else None

    def forward(self, emotion: Tensor) -> HeadOutput:
        """``emotion [B, T, D_e]``: the quantized emotion block."""
        hidden = self.network(emotion)
        weight = torch.softmax(self.score(hidden), 1)
        pooled = (weight * hidden).sum(1)
        return HeadOutput(
            self.out(pooled),
            None if self.dimensions is None else self.dimensions(pooled),
            None if self.frames is None else self.frames(hidden),
            None if self.embedding is None else self.embedding(hidden),
        )


def emotion_loss(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy over labelled clips and accuracy; both 0 when none is labelled."""
    known = labels >= 0
    count = shared_count(known.sum())
    loss = F.cross_entropy(logits, labels, ignore_index=-1, reduction="sum") / count
    accuracy = ((logits.argmax(-1) == labels) & known).sum() / count
    return loss, accuracy


def dimension_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """One minus the concordance of arousal and valence over the labelled clips of a batch.

    Concordance (Lin 1989) is the field's measure; over the few labelled clips of a batch it is
    noisy, so the mean squared error goes with it. NaN in ``target [B, 2]`` marks a missing label.
    """
    known = torch.isfinite(target)
    loss = prediction.sum() * 0  # every process differentiates the head, labels or not
    for i in range(target.shape[1]):
        want, got = target[known[:, i], i], prediction[known[:, i], i]
        if not len(want):
            continue
        loss = loss + F.mse_loss(got, want)
        if len(want) > 2:
            a, b = got - got.mean(), want - want.mean()
            spread = a.square().mean() + b.square().mean() + (got.mean() - want.mean()).square()
            loss = loss + 1 - 2 * (a * b).mean() / spread.clamp(min=1e-6)
    return loss / target.shape[1]


def frame_loss(frames: Tensor, batch: Batch, described: Descriptors) -> Tensor:
    """Mean loss of the five frame targets: F0 and harmonicity where voiced, the rest everywhere.

    F0 counts in octaves from 150 Hz, energy in tens of decibels, so that no target dominates.
    """
    log_f0, voicing, energy, tilt, harmonicity = frames.unbind(-1)
    voiced = batch.voiced
    count = shared_count(voiced.sum())

    def over_voiced(error: Tensor) -> Tensor:
        return (error.abs() * voiced).sum() / count

    octaves = (batch.log_f0 - 5.0106) / 0.6931
    want = batch.log_energy.clamp(min=LOG_ENERGY_FLOOR)
    terms = (
        over_voiced(log_f0 - octaves),
        F.binary_cross_entropy_with_logits(voicing, voiced),
        F.l1_loss(energy, (want + 4) / 1.15),
        F.l1_loss(tilt, described.tilt),
        over_voiced(harmonicity - described.harmonicity),
    )
    return torch.stack(terms).mean()


def cosine_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """One minus the cosine to a teacher's embedding.

    Args:
        prediction: ``[B, T, E]``.
        target: ``[B, T', E]`` at the teacher's own rate, or ``[B, 1, E]`` for one embedding a clip;
            the prediction is averaged to its grid. Rows of NaN (no embedding) do not count.
    """
    if target.shape[1] != prediction.shape[1]:
        prediction = F.adaptive_avg_pool1d(prediction.transpose(1, 2), target.shape[1])
        prediction = prediction.transpose(1, 2)
    known = torch.isfinite(target).all(-1)
    cosine = F.cosine_similarity(prediction, torch.nan_to_num(target), dim=-1)
    return ((1 - cosine) * known).sum() / shared_count(known.sum())
