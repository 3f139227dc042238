# SPDX-License-Identifier: Apache-2.0
"""Causal encoders: audio to the acoustic and the emotion block of the latent."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from affectcodec.config import CodecConfig
from affectcodec.nn.causal import CausalConvNeXt, StreamState
from affectcodec.nn.spectral import PitchFeatures, ShortTimeAnalysis, log_magnitude

_POOLED_BINS = 10  # short-window bins averaged into one band for the emotion encoder


class StreamEncoder(nn.Module):
    """Audio to the latent ``[B, T, D]``; two branches that share only the analysis windows.

    Frame ``t`` depends on samples ``< (t + 1) * hop_length``. Spectra are divided by the level of
    their frame, and the level goes in beside them, so that loud and quiet speech share a scale.
    Each block is normalised to unit variance, the range the quantizer starts from.
    """

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        net = config.network
        self.analysis = ShortTimeAnalysis(config.hop_length, net.analysis_window, net.analysis_hop)
        self.pitch = PitchFeatures(
            config.hop_length, config.sample_rate, net.pitch_window, net.f0_min, net.f0_max
        )
        per_frame, bins = self.analysis.per_frame, self.analysis.bins
        self.acoustic = CausalConvNeXt(
            per_frame * (bins + 1),
            net.acoustic_width,
            net.acoustic_blocks,
            net.kernel_size,
            net.expansion,
        )
        pooled = per_frame * (bins // _POOLED_BINS + 1)
        self.emotion = CausalConvNeXt(
            pooled + self.pitch.channels,
            net.emotion_width,
            net.emotion_blocks,
            net.kernel_size,
            net.expansion,
        )
        widths = {block.name: block.width for block in config.quantizer.blocks}
        self.names = config.quantizer.names
        inputs = {"emotion": net.emotion_width, "acoustic": net.acoustic_width}
        self.heads = nn.ModuleDict(
            {name: nn.Linear(inputs[name], widths[name]) for name in self.names}
        )

    def features(self, wav: Tensor, state: StreamState | None = None) -> tuple[Tensor, Tensor]:
        """Inputs of the two branches from ``wav [B, T * hop_length]``; they hold no parameters."""
        log = log_magnitude(self.analysis(wav, state))  # [B, T * per_frame, bins]
        level = log.mean(-1, keepdim=True)
        shape = 0.5 * (log - level)
        scaled = 0.3 * (level + 4)
        batch, windows, bins = log.shape
        frames = windows // self.analysis.per_frame
        acoustic = torch.cat([shape, scaled], -1).reshape(batch, frames, -1)
        bands = shape[..., : bins // _POOLED_BINS * _POOLED_BINS]
        bands = bands.reshape(batch, windows, -1, _POOLED_BINS).mean(-1)
        pooled = torch.cat([bands, scaled], -1).reshape(batch, frames, -1)
        return acoustic, torch.cat([pooled, self.pitch(wav, state)], -1)

    def forward(self, wav: Tensor, state: StreamState | None = None) -> Tensor:
        """``[B, T * hop_length] -> [B, T, D]``."""
        acoustic, emotion = self.features(wav, state)
        hidden = {
            "acoustic": self.acoustic(acoustic, state),
            "emotion": self.emotion(emotion, state),
        }
        parts = []
        for name in self.names:
            block = self.heads[name](hidden[name])
            parts.append(F.layer_norm(block, block.shape[-1:]))
        return torch.cat(parts, -1)
