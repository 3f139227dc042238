# SPDX-License-Identifier: Apache-2.0
"""Emotion cycle consistency: what supervises the emotion tokens must be found in decoded audio."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from affectcodec.training.distributed import shared_count
from affectcodec.training.losses.descriptors import Descriptors
from affectcodec.training.losses.prosody import LOG_ENERGY_FLOOR

_SHARPNESS = 12.0  # of the distribution over lags that a salience stands for


def cycle_prosody_loss(decoded: Descriptors, true: Descriptors, voiced: Tensor) -> Tensor:
    """Energy, tilt, harmonicity and pitch salience of decoded against those of true audio.

    Salience is compared as a distribution over lags (Kullback-Leibler divergence): an argmax has no
    gradient, and a distribution holds its octave ambiguity as the original has it. Harmonicity at
    the true F0 falls with every error of the decoded F0, and is the differentiable form of voicing.
    """
    count = shared_count(voiced.sum())
    energy = F.l1_loss(
        decoded.log_energy.clamp(min=LOG_ENERGY_FLOOR), true.log_energy.clamp(min=LOG_ENERGY_FLOOR)
    )
    tilt = F.l1_loss(decoded.tilt, true.tilt)
    harmonicity = ((decoded.harmonicity - true.harmonicity).abs() * voiced).sum() / count
    want = torch.log_softmax(_SHARPNESS * true.salience, -1)
    got = torch.log_softmax(_SHARPNESS * decoded.salience, -1)
    divergence = (want.exp() * (want - got)).sum(-1)
    salience = (divergence * voiced).sum() / count
    return (energy + tilt + harmonicity + salience) / 4


def latent_cycle_loss(decoded: Tensor, true: Tensor) -> Tensor:
    """One minus the cosine of emotion latents ``[B, T, D_e]`` of decoded and true audio."""
    return (1 - F.cosine_similarity(decoded, true, dim=-1)).mean()
