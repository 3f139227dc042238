# SPDX-License-Identifier: Apache-2.0
"""Supervision of the emotion block: classes, dimensions, frame targets, embeddings."""

from __future__ import annotations

import math

import pytest
import torch

from affectcodec.training.batches import Batch
from affectcodec.training.cache import EMOTIONS
from affectcodec.training.losses import (
    Descriptors,
    EmotionHead,
    cosine_loss,
    dimension_loss,
    emotion_loss,
    frame_loss,
)
from affectcodec.training.losses.emotion import FRAME_TARGETS


def test_emotion_loss_counts_labelled_clips_only() -> None:
    logits = torch.full((3, len(EMOTIONS)), -20.0)
    logits[0, 2], logits[1, 1], logits[2, 5] = 20.0, 20.0, 20.0
    loss, accuracy = emotion_loss(logits, torch.tensor([2, 1, -1]))
    assert (float(loss), float(accuracy)) == (pytest.approx(0, abs=1e-6), 1.0)
    loss, accuracy = emotion_loss(logits, torch.tensor([2, 0, -1]))
    assert float(loss) == pytest.approx(20, abs=1e-3)
    assert float(accuracy) == 0.5
    loss, accuracy = emotion_loss(logits, torch.full((3,), -1))
    assert (float(loss), float(accuracy)) == (0.0, 0.0)


def test_emotion_head_gives_one_answer_a_clip() -> None:
    head = EmotionHead(12)
    said = head(torch.randn(3, 20, 12))
    assert said.classes.shape == (3, len(EMOTIONS))
    assert said.dimensions is said.frames is said.embedding is None
    full = EmotionHead(12, dimensions=True, frames=True, embedding=7)
    said = full(torch.randn(3, 20, 12))
    assert said.dimensions.shape == (3, 2)
    assert said.frames.shape == (3, 20, len(FRAME_TARGETS))
    assert said.embedding.shape == (3, 20, 7)


def test_dimensions_count_where_they_are_labelled() -> None:
    torch.manual_seed(0)
    target = torch.rand(6, 2) * 2 - 1
    assert float(dimension_loss(target, target)) == pytest.approx(0, abs=1e-6)
    assert float(dimension_loss(-target, target)) > 1
    missing = target.clone()
    missing[2:, 1] = math.nan
    guess = target.clone()
    guess[2:, 1] = 9.0
    assert float(dimension_loss(guess, missing)) == pytest.approx(0, abs=1e-6)
    none = torch.full((4, 2), math.nan)
    assert float(dimension_loss(torch.ones(4, 2, requires_grad=True), none)) == 0.0


def test_dimension_gradients_are_finite_for_a_constant_guess() -> None:
    guess = torch.zeros(4, 2, requires_grad=True)
    dimension_loss(guess, torch.randn(4, 2)).backward()
    assert guess.grad is not None and bool(torch.isfinite(guess.grad).all())


def test_frame_targets_that_are_met_cost_nothing_but_voicing() -> None:
    frames = 5
    log_f0 = torch.full((1, frames), math.log(300.0))
    voiced = torch.tensor([[1.0, 1, 0, 0, 1]])
    energy = torch.linspace(-6, -2, frames)[None]
    nothing = torch.zeros(1)
    batch = Batch(nothing, log_f0, voiced, energy, nothing, nothing, nothing, nothing)
    described = Descriptors(energy, torch.randn(1, frames), torch.randn(1, frames), nothing)
    said = torch.stack(
        [
            torch.full((1, frames), 1.0),  # one octave above 150 Hz
            40 * (voiced - 0.5),
            (energy + 4) / 1.15,
            described.tilt,
            described.harmonicity,
        ],
        -1,
    )
    assert float(frame_loss(said, batch, described)) == pytest.approx(0, abs=1e-3)
    worse = said.clone()
    worse[0, 2, [0, 4]] += 5  # an unvoiced frame has neither F0 nor harmonicity
    assert float(frame_loss(worse, batch, described)) == pytest.approx(0, abs=1e-3)
    worse[0, 0, 4] += 3
    assert float(frame_loss(worse, batch, described)) == pytest.approx(0.2, abs=1e-3)


def test_cosine_to_a_teacher_at_its_own_rate() -> None:
    torch.manual_seed(0)
    target = torch.randn(2, 4, 8)
    assert float(cosine_loss(3 * target, target)) == pytest.approx(0, abs=1e-6)
    assert float(cosine_loss(-target, target)) == pytest.approx(2, abs=1e-6)
    assert float(cosine_loss(target.repeat_interleave(2, 1), target)) == pytest.approx(0, abs=1e-6)
    pooled = target.mean(1, keepdim=True)
    assert float(cosine_loss(target, pooled)) == pytest.approx(0, abs=1e-6)
    holes = target.clone()
    holes[:, 2:] = math.nan
    wrong = target.clone()
    wrong[:, 2:] *= -1
    guess = wrong.requires_grad_()
    loss = cosine_loss(guess, holes)
    assert float(loss.detach()) == pytest.approx(0, abs=1e-6)
    loss.backward()
    assert guess.grad is not None and bool(torch.isfinite(guess.grad).all())
    assert float(cosine_loss(target, torch.full_like(target, math.nan))) == 0.0
