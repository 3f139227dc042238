# SPDX-License-Identifier: Apache-2.0
"""A codec small enough for tests, and sounds to feed it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from affectcodec.codec import AffectCodec
from affectcodec.config import BDRFSQConfig, Block, CodecConfig, StreamNetworkConfig
from affectcodec.snake_config import SnakeNetworkConfig

HOP = 320


def tiny_config(num_stages: int = 4) -> CodecConfig:
    """The shape of the `stream` preset with few channels; 9 bits a stage, 0.45 kbit/s."""
    return CodecConfig(
        quantizer=BDRFSQConfig(
            blocks=(Block("emotion", 12, (2, 2, 2)), Block("acoustic", 24, (4, 4, 4))),
            num_stages=num_stages,
        ),
        network=StreamNetworkConfig(
            acoustic_width=24,
            acoustic_blocks=2,
            emotion_width=16,
            emotion_blocks=1,
            decoder_width=24,
            decoder_blocks=2,
            expansion=2,
        ),
        name="tiny",
    )


def tiny_snake_config(num_stages: int = 4) -> CodecConfig:
    """The shape of the `paper` preset with few channels."""
    return CodecConfig(
        quantizer=tiny_config(num_stages).quantizer,
        network=SnakeNetworkConfig(
            encoder_width=4, decoder_width=32, emotion_width=16, emotion_blocks=1, expansion=2
        ),
        name="tiny-snake",
    )


def tiny_codec(seed: int = 0, num_stages: int = 4) -> AffectCodec:
    """An untrained codec in which every parameter matters: none is left at zero."""
    torch.manual_seed(seed)
    codec = AffectCodec(tiny_config(num_stages))
    with torch.no_grad():
        for name, parameter in codec.named_parameters():
            if "quantizer" in name or "film" in name or "score" in name:
                parameter += 0.1 * torch.randn_like(parameter)
    return codec.eval().requires_grad_(False)


def speech_like(num_samples: int, seed: int = 0, sample_rate: int = 16000) -> Tensor:
    """Harmonics of a gliding pitch with syllables and noise, float32 ``[N]``, peak about 0.3."""
    generator = torch.Generator().manual_seed(seed)
    t = torch.arange(num_samples, dtype=torch.float64) / sample_rate
    f0 = 120 + 20 * seed + 30 * torch.sin(2 * math.pi * 0.7 * t)
    phase = 2 * math.pi * torch.cumsum(f0, 0) / sample_rate
    tone = sum(torch.sin(k * phase) / k for k in range(1, 8))
    syllables = 0.5 - 0.5 * torch.cos(2 * math.pi * 4 * t)
    noise = torch.randn(num_samples, generator=generator, dtype=torch.float64)
    wave = 0.1 * syllables * tone + 0.01 * noise
    return wave.float()


def padded(clips: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Clips ``[N_i]`` as a batch ``[B, 1, N]`` and its lengths."""
    batch = torch.nn.utils.rnn.pad_sequence(list(clips), batch_first=True)[:, None]
    return batch, torch.tensor([len(clip) for clip in clips])
