# SPDX-License-Identifier: Apache-2.0
"""What the tests of the command line and of the demo read: a small codec and clips."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from affectcodec.audio import save_audio
from affectcodec.codec import AffectCodec
from affectcodec.config import CodecConfig, StreamNetworkConfig

SMALL = StreamNetworkConfig(
    acoustic_width=32,
    acoustic_blocks=1,
    emotion_width=32,
    emotion_blocks=1,
    decoder_width=32,
    decoder_blocks=1,
)


def save_random_codec(folder: Path, seed: int) -> str:
    """Write the weights of a small random codec."""
    torch.manual_seed(seed)
    AffectCodec(CodecConfig(network=SMALL)).save_pretrained(folder)
    return str(folder)


def make_clip(path: Path, seconds: float = 0.5, rate: int = 16000, channels: int = 1) -> Path:
    """A tone with noise; the extension gives the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(0).standard_normal((channels, len(time)))
    wave = 0.3 * np.sin(2 * np.pi * 150 * time) + 0.01 * noise
    save_audio(path, wave.astype(np.float32), rate)
    return path
