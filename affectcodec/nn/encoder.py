# SPDX-License-Identifier: Apache-2.0
"""Causal encoders: audio to the acoustic and the emotion block of the latent."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from affectcodec.config import CodecConfig, StreamNetworkConfig
from affectcodec.nn.causal import CausalConvNeXt, StreamState
from affectcodec.nn.conditioning import EncoderConditioning
from affectcodec.nn.spectral import PitchFeatures, ShortTimeAnalysis, log_magnitude

POOLED_BINS = 10  # short-window bins averaged into one band for the emotion encoder


def level_and_shape(log: Tensor) -> tuple[Tensor, Tensor]:
    """Log spectra ``[B, W, bins]`` as what is left without their level, and the level, scaled."""
    level = log.mean(-1, keepdim=True)
    return 0.5 * (log - level), 0.3 * (level + 4)


def emotion_bands(shape: Tensor, level: Tensor, per_frame: int) -> Tensor:
    """Bands and level of the windows of each frame, ``[B, W, .] -> [B, W / per_frame, .]``."""
    batch, windows, bins = shape.shape
    bands = shape[..., : bins // POOLED_BINS * POOLED_BINS]
    bands = bands.reshape(batch, windows, -1, POOLED_BINS).mean(-1)
    return torch.cat([bands, level], -1).reshape(batch, windows // per_frame, -1)


class TwoBranchEncoder(nn.Module):
    """What every encoder is made of behind its acoustic branch: an emotion branch that reads band
    spectra and pitch, a head for each block of the latent, and optional conditioning."""

    analysis: ShortTimeAnalysis
    pitch: PitchFeatures
    emotion: CausalConvNeXt
    heads: nn.ModuleDict
    conditioning: EncoderConditioning | None
    names: tuple[str, ...]

    def emotion_latent(self, wav: Tensor) -> Tensor:
        """The emotion block alone, ``[B, T * hop_length] -> [B, T, D_e]``."""
        shape, level = level_and_shape(log_magnitude(self.analysis(wav)))
        bands = emotion_bands(shape, level, self.analysis.per_frame)
        return self._block("emotion", self.emotion(torch.cat([bands, self.pitch(wav)], -1)))

    def _latent(self, acoustic: Tensor, emotion: Tensor, state: StreamState | None) -> Tensor:
        """``[B, T, D]`` of the outputs of both branches."""
        if self.conditioning is not None:
            acoustic = self.conditioning(acoustic, emotion, state)
        hidden = {"acoustic": acoustic, "emotion": emotion}
        return torch.cat([self._block(name, hidden[name]) for name in self.names], -1)

    def _block(self, name: str, hidden: Tensor) -> Tensor:
        block = self.heads[name](hidden)
        return F.layer_norm(block, block.shape[-1:])


class StreamEncoder(TwoBranchEncoder):
    """Audio to the latent ``[B, T, D]``; two branches that share only the analysis windows.

    Frame ``t`` depends on samples ``< (t + 1) * hop_length``. Spectra are divided by the level of
    their frame, and the level goes in beside them, so that loud and quiet speech share a scale.
    Each block is normalised to unit variance, the range the quantizer starts from.
    """

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        net = config.network
        if not isinstance(net, StreamNetworkConfig):
            raise TypeError(f"config.network must be a StreamNetworkConfig, got {net!r}")
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
        pooled = per_frame * (bins // POOLED_BINS + 1)
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
        self.conditioning = (
            EncoderConditioning(
                net.encoder_conditioning,
                net.emotion_width,
                inputs["acoustic"],
                config.frame_rate,
                net,
            )
            if net.encoder_conditioning
            else None
        )

    def features(self, wav: Tensor, state: StreamState | None = None) -> tuple[Tensor, Tensor]:
        """Inputs of the two branches from ``wav [B, T * hop_length]``; they hold no parameters."""
        shape, level = level_and_shape(log_magnitude(self.analysis(wav, state)))
        per_frame = self.analysis.per_frame
        frames = shape.shape[1] // per_frame
        acoustic = torch.cat([shape, level], -1).reshape(wav.shape[0], frames, -1)
        bands = emotion_bands(shape, level, per_frame)
        return acoustic, torch.cat([bands, self.pitch(wav, state)], -1)

    def forward(self, wav: Tensor, state: StreamState | None = None) -> Tensor:
        """``[B, T * hop_length] -> [B, T, D]``."""
        acoustic, emotion = self.features(wav, state)
        return self._latent(self.acoustic(acoustic, state), self.emotion(emotion, state), state)
