# SPDX-License-Identifier: Apache-2.0
"""Causal decoder: quantized latent to audio, through a harmonic-plus-noise source."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from affectcodec.config import CodecConfig, StreamNetworkConfig
from affectcodec.nn.causal import CausalConvNeXt, StreamState
from affectcodec.nn.conditioning import CONDITION_WIDTH, condition_of
from affectcodec.nn.prosody import Prosody, ProsodyHead
from affectcodec.nn.source import HarmonicNoiseSource
from affectcodec.nn.spectral import BufferAnalysis, OverlapAddSynthesis

PROSODY_WIDTH = 96


def scale_gradient(x: Tensor, share: float) -> Tensor:
    """``x`` itself, with its gradient multiplied by ``share``."""
    return x if share == 1.0 else x.detach() + share * (x - x.detach())


class DecoderOutput(NamedTuple):
    """``wav [B, T * hop_length]``, one hop late, and the prosody that drove it."""

    wav: Tensor
    prosody: Prosody


class StreamDecoder(nn.Module):
    """Quantized latent ``[B, T, D]`` to audio.

    Prosody is read from the emotion block and drives the source; the backbone, modulated by that
    emotion at three time scales, filters source and noise in the short-time Fourier domain and
    adds a complex residual. The decoded energy scales all of it, so that loudness comes back.
    """

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        net = config.network
        if not isinstance(net, StreamNetworkConfig):
            raise TypeError(f"config.network must be a StreamNetworkConfig, got {net!r}")
        self.hop_length = config.hop_length
        self.blocks = config.quantizer.block_slices()
        widths = {block.name: block.width for block in config.quantizer.blocks}
        self.prosody = ProsodyHead(
            widths["emotion"], PROSODY_WIDTH, 3, net.kernel_size, net.f0_min, net.f0_max
        )
        self.conditioning = condition_of(net.conditioning, PROSODY_WIDTH, config.frame_rate, net)
        self.backbone = CausalConvNeXt(
            config.quantizer.width + PROSODY_WIDTH,
            net.decoder_width,
            net.decoder_blocks,
            net.kernel_size,
            net.expansion,
            CONDITION_WIDTH if self.conditioning is not None else 0,
        )
        self.source = HarmonicNoiseSource(config.sample_rate, config.hop_length)
        self.analysis = BufferAnalysis(config.hop_length, net.analysis_window, net.analysis_hop)
        self.synthesis = OverlapAddSynthesis(
            config.hop_length, net.analysis_window, net.analysis_hop
        )
        self.bins, self.per_frame = self.synthesis.window // 2 + 1, self.analysis.per_frame
        self.head = nn.Linear(net.decoder_width, self.per_frame * 4 * self.bins)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

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
        """Decode ``[B, T, D]``.

        Args:
            source_f0, source_voicing: optional ``[B, T]`` overrides of the decoded prosody for the
                source.
            source_override: bool ``[B]``, the clips to override; all if None. Training feeds true
                values to a share of the clips.
            noise_start: int64 ``[B]``, see :class:`HarmonicNoiseSource`.
            emotion_gradient: share of the reconstruction gradient that reaches the emotion block;
                below 1 its few bits are left to what supervises it, prosody and affect.
        """
        prosody = self.prosody(latent[..., self.blocks["emotion"]], state)
        carried = scale_gradient(prosody.hidden, emotion_gradient)
        condition = None if self.conditioning is None else self.conditioning(carried, state)
        parts = [
            scale_gradient(latent[..., span], emotion_gradient)
            if name == "emotion"
            else latent[..., span]
            for name, span in self.blocks.items()
        ]
        hidden = self.backbone(torch.cat([*parts, carried], -1), state, condition)
        f0, voicing = prosody.f0, torch.sigmoid(prosody.voicing_logit)
        if source_f0 is not None and source_voicing is not None:
            chosen = latent.new_ones(len(latent), dtype=torch.bool)
            chosen = (chosen if source_override is None else source_override)[:, None]
            f0 = torch.where(chosen, source_f0, f0)
            voicing = torch.where(chosen, source_voicing, voicing)
        harmonic, noise = self.source(f0, voicing, state, noise_start)
        spectrum = self._filter(
            self.head(hidden),
            self.analysis(harmonic),
            self.analysis(noise),
            prosody.log_energy,
        )
        return DecoderOutput(self.synthesis(spectrum, state), prosody)

    def _filter(self, raw: Tensor, harmonic: Tensor, noise: Tensor, log_energy: Tensor) -> Tensor:
        """Filters of each window applied to the source spectra, ``[B, T * per_frame, 2 bins]``."""
        batch, frames, _ = raw.shape
        raw = raw.reshape(batch, frames * self.per_frame, 4 * self.bins)
        log_h, log_n, real, imag = raw.split(self.bins, -1)
        gain = torch.exp(log_energy).repeat_interleave(self.per_frame, 1)[..., None]
        filter_h = torch.exp((2 * log_h).clamp(-12, 4))
        filter_n = torch.exp((2 * log_n - 1).clamp(-12, 4))
        residual = torch.cat([real, imag], -1)
        shaped = (
            harmonic * torch.cat([filter_h, filter_h], -1)
            + noise * torch.cat([filter_n, filter_n], -1)
            + 4 * residual
        )
        return gain * shaped
