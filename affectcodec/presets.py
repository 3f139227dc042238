# SPDX-License-Identifier: Apache-2.0
"""Named codecs. A preset is a row here; its parameter count is part of its test."""

from __future__ import annotations

from collections.abc import Callable

from affectcodec.config import BDRFSQConfig, Block, CodecConfig, StreamNetworkConfig
from affectcodec.snake_config import SnakeNetworkConfig


def _blocks(emotion: int, acoustic: int) -> BDRFSQConfig:
    return BDRFSQConfig(
        blocks=(Block("emotion", emotion, (2, 2, 2)), Block("acoustic", acoustic, (4,) * 6))
    )


def stream() -> CodecConfig:
    """Causal, with a harmonic source; 6.5 million parameters."""
    return CodecConfig()


def stream_large() -> CodecConfig:
    """``stream``, wider and deeper; 20 million parameters."""
    network = StreamNetworkConfig(
        acoustic_width=384,
        acoustic_blocks=6,
        emotion_width=224,
        emotion_blocks=6,
        decoder_width=528,
        decoder_blocks=6,
    )
    return CodecConfig(quantizer=_blocks(128, 384), network=network, name="stream-large")


def paper() -> CodecConfig:
    """The published sizes (arXiv 2605.23373); 135 million parameters, emotion adapter included."""
    return CodecConfig(quantizer=_blocks(256, 768), network=SnakeNetworkConfig(), name="paper")


PRESETS: dict[str, Callable[[], CodecConfig]] = {
    "stream": stream,
    "stream-large": stream_large,
    "paper": paper,
}
