# SPDX-License-Identifier: Apache-2.0
"""Encoder and decoder of the published kind (arXiv 2605.23373), causal, for one 20 ms hop.

Acoustics pass through strided Snake convolutions as in the Descript audio codec. The emotion
adapter reads band spectra and the autocorrelation of the signal, so that a codec needs no teacher
at hand; a teacher supervises it in training.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from affectcodec.config import CodecConfig
from affectcodec.nn.causal import CausalConvNeXt, StreamState
from affectcodec.nn.conditioning import EncoderConditioning, FiLM, condition_of
from affectcodec.nn.decoder import PROSODY_WIDTH, DecoderOutput, scale_gradient
from affectcodec.nn.encoder import (
    POOLED_BINS,
    TwoBranchEncoder,
    emotion_bands,
    level_and_shape,
)
from affectcodec.nn.prosody import ProsodyHead
from affectcodec.nn.snake import Snake, SnakeConv, SnakeDown, SnakeStack, SnakeUp
from affectcodec.nn.spectral import PitchFeatures, ShortTimeAnalysis, log_magnitude
from affectcodec.snake_config import SnakeNetworkConfig


def _network(config: CodecConfig) -> SnakeNetworkConfig:
    if not isinstance(config.network, SnakeNetworkConfig):
        raise TypeError(
            f"config.network must be a SnakeNetworkConfig, got {type(config.network).__name__}"
        )
    return config.network


class SnakeEncoder(TwoBranchEncoder):
    """Audio to the latent ``[B, T, D]``; frame ``t`` depends on samples ``< (t + 1) * hop``."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        net = _network(config)
        width = net.encoder_width
        layers: list[nn.Module] = [SnakeConv(1, width, net.kernel_size)]
        for stride in net.strides:
            layers.append(SnakeDown(width, stride, net.kernel_size, net.dilations))
            width *= 2
        layers += [Snake(width), SnakeConv(width, width, 3)]
        self.acoustic = SnakeStack(layers)
        self.analysis = ShortTimeAnalysis(config.hop_length, net.analysis_window, net.analysis_hop)
        self.pitch = PitchFeatures(
            config.hop_length, config.sample_rate, net.pitch_window, net.f0_min, net.f0_max
        )
        pooled = self.analysis.per_frame * (self.analysis.bins // POOLED_BINS + 1)
        self.emotion = CausalConvNeXt(
            pooled + self.pitch.channels,
            net.emotion_width,
            net.emotion_blocks,
            net.kernel_size,
            net.expansion,
        )
        widths = {block.name: block.width for block in config.quantizer.blocks}
        self.names = config.quantizer.names
        inputs = {"emotion": net.emotion_width, "acoustic": width}
        self.heads = nn.ModuleDict(
            {name: nn.Linear(inputs[name], widths[name]) for name in self.names}
        )
        self.conditioning = (
            EncoderConditioning(
                net.encoder_conditioning, net.emotion_width, width, config.frame_rate, net
            )
            if net.encoder_conditioning
            else None
        )

    def forward(self, wav: Tensor, state: StreamState | None = None) -> Tensor:
        """``[B, T * hop_length] -> [B, T, D]``."""
        shape, level = level_and_shape(log_magnitude(self.analysis(wav, state)))
        bands = emotion_bands(shape, level, self.analysis.per_frame)
        acoustic = self.acoustic(wav[:, None], state).transpose(1, 2)
        emotion = self.emotion(torch.cat([bands, self.pitch(wav, state)], -1), state)
        return self._latent(acoustic, emotion, state)


class SnakeDecoder(nn.Module):
    """Quantized latent ``[B, T, D]`` to audio, by transposed Snake convolutions.

    Emotion, decoded from its own block, modulates the frames before the first stride (FiLM); the
    waveform comes from the network alone. Prosody is read for supervision and inspection.
    """

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        net = _network(config)
        self.hop_length = config.hop_length
        self.blocks = config.quantizer.block_slices()
        widths = {block.name: block.width for block in config.quantizer.blocks}
        self.prosody = ProsodyHead(
            widths["emotion"], PROSODY_WIDTH, 3, net.kernel_size, net.f0_min, net.f0_max
        )
        self.conditioning = condition_of(net.conditioning, PROSODY_WIDTH, config.frame_rate, net)
        width = net.decoder_width
        self.embed = SnakeConv(config.quantizer.width, width, net.kernel_size)
        self.film = FiLM(width) if self.conditioning is not None else None
        layers: list[nn.Module] = []
        for stride in reversed(net.strides):
            layers.append(SnakeUp(width, stride, net.kernel_size, net.dilations))
            width //= 2
        layers += [Snake(width), SnakeConv(width, 1, net.kernel_size)]
        self.backbone = SnakeStack(layers)

    def forward(
        self,
        latent: Tensor,
        state: StreamState | None = None,
        *,
        source_f0: Tensor | None = None,
        source_voicing: Tensor | None = None,
        source_override: Tensor | None = None,
        noise_start: Tensor | None = None,
        emotion_gradient: float = 1.0,
    ) -> DecoderOutput:
        """Decode ``[B, T, D]`` to ``[B, T * hop_length]``, one hop late.

        Args:
            source_f0, source_voicing, source_override, noise_start: what drives a harmonic source;
                taken, so that all decoders are called alike, and not used.
            emotion_gradient: share of the reconstruction gradient that reaches the emotion block.
        """
        prosody = self.prosody(latent[..., self.blocks["emotion"]], state)
        parts = [
            scale_gradient(latent[..., span], emotion_gradient)
            if name == "emotion"
            else latent[..., span]
            for name, span in self.blocks.items()
        ]
        hidden = self.embed(torch.cat(parts, -1).transpose(1, 2), state)
        if self.conditioning is not None and self.film is not None:
            carried = scale_gradient(prosody.hidden, emotion_gradient)
            condition = self.conditioning(carried, state)
            hidden = self.film(hidden.transpose(1, 2), condition).transpose(1, 2)
        wav = self.backbone(hidden, state)
        return DecoderOutput(torch.tanh(wav[:, 0]), prosody)
