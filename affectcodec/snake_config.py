# SPDX-License-Identifier: Apache-2.0
"""Sizes of the published kind of network: strided Snake convolutions and an emotion adapter."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from affectcodec.config_checks import GRANULARITIES, check_granularities, check_positive, later


@dataclass(frozen=True)
class SnakeNetworkConfig:
    """Widths and windows of the causal Snake networks. Lengths are in samples or frames.

    Args:
        kind: ``"snake"``; tells this configuration from others in a file.
        strides: of the encoder, coarsest last; their product is the hop.
        encoder_width: channels before the first stride; each stride doubles them.
        decoder_width: channels after the first layer of the decoder; each stride halves them.
        kernel_size: of the residual units, and of the emotion adapter in frames.
        dilations: of the residual units of one stride.
        analysis_window, analysis_hop, pitch_window: windows that the emotion adapter reads.
        emotion_width, emotion_blocks, expansion: ConvNeXt emotion adapter.
        segment_seconds, utterance_seconds: time constants of the causal conditioning pools.
        f0_min, f0_max: range of the prosody head in Hz.
        conditioning, encoder_conditioning: as of ``StreamNetworkConfig``.
    """

    KIND: ClassVar[str] = "snake"

    kind: str = KIND
    strides: tuple[int, ...] = (2, 4, 5, 8)
    encoder_width: int = 64
    decoder_width: int = 1536
    kernel_size: int = 7
    dilations: tuple[int, ...] = (1, 3, 9)
    analysis_window: int = 480
    analysis_hop: int = 160
    pitch_window: int = 1024
    emotion_width: int = 768
    emotion_blocks: int = 12
    expansion: int = 4
    segment_seconds: float = 0.5
    utterance_seconds: float = 8.0
    f0_min: float = 60.0
    f0_max: float = 700.0
    conditioning: tuple[str, ...] = later(GRANULARITIES)
    encoder_conditioning: tuple[str, ...] = later(())

    def __post_init__(self) -> None:
        owner = type(self).__name__
        if self.kind != self.KIND:
            raise ValueError(f"{owner}: kind must be {self.KIND!r}, got {self.kind!r}")
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            if f.type == "int":
                check_positive(owner, f.name, value)
            elif f.type == "float":
                # 60 and 60.0 are equal but differ in JSON, and with it in the hash.
                object.__setattr__(self, f.name, float(value))
        for name in ("conditioning", "encoder_conditioning"):
            value = check_granularities(owner, name, getattr(self, name))
            object.__setattr__(self, name, value)
        for name in ("strides", "dilations"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
            if not getattr(self, name):
                raise ValueError(f"{owner}: {name} must hold at least one integer, got ()")
            for value in getattr(self, name):
                check_positive(owner, name, value)
        halvings = 2 ** len(self.strides)
        if self.decoder_width % halvings:
            raise ValueError(
                f"{owner}: decoder_width is halved at each of {len(self.strides)} strides and must "
                f"be a multiple of {halvings}, got {self.decoder_width}"
            )
        if self.segment_seconds <= 0 or self.utterance_seconds <= 0:
            raise ValueError(
                f"{owner}: segment_seconds and utterance_seconds must be positive, "
                f"got {self.segment_seconds} and {self.utterance_seconds}"
            )
        if not 0 < self.f0_min < self.f0_max:
            raise ValueError(
                f"{owner}: wanted 0 < f0_min < f0_max, got {self.f0_min}, {self.f0_max}"
            )
