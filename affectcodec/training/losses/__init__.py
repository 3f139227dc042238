# SPDX-License-Identifier: Apache-2.0
"""Losses, one family a file; the objective of a run puts them together."""

from affectcodec.training.losses.balancer import GradientBalancer
from affectcodec.training.losses.cycle import cycle_prosody_loss, latent_cycle_loss
from affectcodec.training.losses.descriptors import Descriptors, FrameDescriptors
from affectcodec.training.losses.emotion import (
    EmotionHead,
    HeadOutput,
    cosine_loss,
    dimension_loss,
    emotion_loss,
    frame_loss,
)
from affectcodec.training.losses.prosody import level_loss, prosody_losses
from affectcodec.training.losses.spectral import (
    SpectralLosses,
    bark_bands,
    mel_filters,
    third_octave_bands,
)

__all__ = [
    "Descriptors",
    "EmotionHead",
    "FrameDescriptors",
    "GradientBalancer",
    "HeadOutput",
    "SpectralLosses",
    "bark_bands",
    "cosine_loss",
    "cycle_prosody_loss",
    "dimension_loss",
    "emotion_loss",
    "frame_loss",
    "latent_cycle_loss",
    "level_loss",
    "mel_filters",
    "prosody_losses",
    "third_octave_bands",
]
