# SPDX-License-Identifier: Apache-2.0
"""Prosody decoded from the quantized emotion block: what drives the harmonic source."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from affectcodec.nn.causal import CausalConvNeXt, StreamState, linear

F0_BINS = 96


class Prosody(NamedTuple):
    """Frame-rate prosody, each ``[B, T]`` but ``f0_logits [B, T, F0_BINS]`` and
    ``hidden [B, T, C]``, the features behind them. In inference ``f0`` and ``voicing_logit``, which
    drive the source, are float64."""

    f0: Tensor
    f0_logits: Tensor
    voicing_logit: Tensor
    log_energy: Tensor
    hidden: Tensor


class ProsodyHead(nn.Module):
    """Small causal network from the quantized emotion block to F0, voicing and energy.

    F0 is a distribution over bins that are even in log frequency, read out as the mean around its
    peak (the readout of CREPE, arXiv 1802.06182): a regression would average octaves.

    Inference runs in float64. The source sums F0 to a phase, so an error of one frame stays: in
    float32, whole clips and streams came out 70 to 80 dB apart, in float64 127 dB.
    """

    NEIGHBOURS = 4
    centres: Tensor

    def __init__(
        self,
        in_channels: int,
        channels: int,
        num_blocks: int,
        kernel_size: int,
        f0_min: float,
        f0_max: float,
    ) -> None:
        super().__init__()
        self.network = CausalConvNeXt(in_channels, channels, num_blocks, kernel_size, 3)
        self.out = nn.Linear(channels, F0_BINS + 2)
        centres = torch.linspace(math.log(f0_min), math.log(f0_max), F0_BINS)
        self.register_buffer("centres", centres, persistent=False)

    def forward(self, emotion: Tensor, state: StreamState | None = None) -> Prosody:
        """``emotion [B, T, D_e]``: the quantized emotion block."""
        exact = not (self.training or self.network.low_precision)
        hidden = self.network(emotion.double() if exact else emotion, state)
        out = linear(self.out, hidden)
        logits = out[..., :F0_BINS]
        log_energy = out[..., F0_BINS + 1] * 2 - 4
        dtype = emotion.dtype
        return Prosody(
            self.read_f0(logits),
            logits.to(dtype),
            out[..., F0_BINS],
            log_energy.to(dtype),
            hidden.to(dtype),
        )

    def read_f0(self, logits: Tensor) -> Tensor:
        """F0 in Hz from bin logits ``[..., F0_BINS] -> [...]``."""
        peak = logits.argmax(-1, keepdim=True)
        bins = torch.arange(F0_BINS, device=logits.device)
        near = (bins - peak).abs() <= self.NEIGHBOURS
        weight = torch.softmax(logits.masked_fill(~near, -math.inf), -1)
        return torch.exp((weight * self.centres).sum(-1))

    def f0_targets(self, log_f0: Tensor) -> Tensor:
        """Soft bin targets ``[B, T, F0_BINS]``: a Gaussian of one bin width around ``log_f0``."""
        width = self.centres[1] - self.centres[0]
        distance = (log_f0[..., None] - self.centres) / width
        return torch.softmax(-0.5 * distance.square(), -1)
