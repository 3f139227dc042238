# SPDX-License-Identifier: Apache-2.0
"""Losses on the prosody that drives the source, and on the level of a clip."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from affectcodec.nn.prosody import Prosody, ProsodyHead
from affectcodec.training.batches import Batch, frame_log_energy
from affectcodec.training.distributed import shared_count

# Silence below -80 dBFS need not be told apart from silence at -90.
LOG_ENERGY_FLOOR = -9.2


def prosody_losses(head: ProsodyHead, prosody: Prosody, batch: Batch) -> dict[str, Tensor]:
    """Terms ``f0`` (cross-entropy on voiced frames), ``voicing`` and ``energy``."""
    targets = head.f0_targets(batch.log_f0)
    cross = -(targets * F.log_softmax(prosody.f0_logits, -1)).sum(-1)
    voiced = batch.voiced
    f0 = (cross * voiced).sum() / shared_count(voiced.sum())
    voicing = F.binary_cross_entropy_with_logits(prosody.voicing_logit, voiced)
    want = batch.log_energy.clamp(min=LOG_ENERGY_FLOOR)
    energy = F.l1_loss(prosody.log_energy.clamp(min=LOG_ENERGY_FLOOR), want)
    return {"f0": f0, "voicing": voicing, "energy": energy}


def level_loss(prediction: Tensor, batch: Batch, hop: int) -> Tensor:
    """Mean difference of log energy over active frames, absolute by clip.

    Losses that punish added sound more than missing sound pull the level down; this one, blind to
    everything but the level of the clip as a whole, keeps it.
    """
    want = batch.log_energy
    active = (want > want.amax(1, keepdim=True) - math.log(100)).float()
    difference = (frame_log_energy(prediction, hop) - want) * active
    return (difference.sum(1) / active.sum(1)).abs().mean()
