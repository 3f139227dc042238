# SPDX-License-Identifier: Apache-2.0
"""Frozen configurations: blocks, quantizer, networks, codec.

Every configuration validates itself on construction, converts to and from plain dictionaries,
and is hashable. Bits are a property of the configuration, never of a loss.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from affectcodec.config_checks import GRANULARITIES, canonical, check_granularities, later
from affectcodec.config_checks import check_keys as check_keys
from affectcodec.config_checks import check_positive as _check_positive
from affectcodec.quantizer_config import BDRFSQConfig as BDRFSQConfig
from affectcodec.quantizer_config import Block as Block
from affectcodec.quantizer_config import StageSpec as StageSpec
from affectcodec.snake_config import SnakeNetworkConfig

PITCH_BINS = 128  # bins of the pitch window's spectrum that the emotion encoder reads


@dataclass(frozen=True)
class StreamNetworkConfig:
    """Widths and windows of the causal `stream` networks. Lengths are in samples or frames.

    Args:
        analysis_window: short analysis and synthesis window, also the FFT size.
        analysis_hop: hop of the short windows; divides ``hop_length``.
        pitch_window: long causal window whose autocorrelation feeds the emotion encoder.
        acoustic_width, acoustic_blocks: ConvNeXt acoustic encoder.
        emotion_width, emotion_blocks: ConvNeXt emotion encoder (the causal student).
        decoder_width, decoder_blocks: ConvNeXt decoder.
        kernel_size: depthwise kernel, in frames.
        expansion: hidden width of a ConvNeXt block over its width.
        segment_seconds, utterance_seconds: time constants of the causal conditioning pools.
        f0_min, f0_max: range of the harmonic source in Hz.
        conditioning: time scales of the decoded emotion that modulate the decoder (FiLM), of
            ``"frame"``, ``"segment"``, ``"utterance"``; ``()`` for none.
        encoder_conditioning: time scales of the emotion branch that modulate the acoustic branch
            of the encoder.
    """

    analysis_window: int = 480
    analysis_hop: int = 160
    pitch_window: int = 1024
    acoustic_width: int = 256
    acoustic_blocks: int = 4
    emotion_width: int = 128
    emotion_blocks: int = 4
    decoder_width: int = 320
    decoder_blocks: int = 5
    kernel_size: int = 7
    expansion: int = 3
    segment_seconds: float = 0.5
    utterance_seconds: float = 8.0
    f0_min: float = 60.0
    f0_max: float = 700.0
    conditioning: tuple[str, ...] = later(GRANULARITIES)
    encoder_conditioning: tuple[str, ...] = later(())

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            if f.type == "int":
                _check_positive("StreamNetworkConfig", f.name, getattr(self, f.name))
            elif f.name.endswith("conditioning"):
                value = check_granularities("StreamNetworkConfig", f.name, getattr(self, f.name))
                object.__setattr__(self, f.name, value)
            else:
                # 60 and 60.0 are equal but differ in JSON, and with it in the hash.
                object.__setattr__(self, f.name, float(getattr(self, f.name)))
        if self.segment_seconds <= 0 or self.utterance_seconds <= 0:
            raise ValueError(
                "StreamNetworkConfig: segment_seconds and utterance_seconds must be positive, "
                f"got {self.segment_seconds} and {self.utterance_seconds}"
            )
        if not 0 < self.f0_min < self.f0_max:
            raise ValueError(
                f"StreamNetworkConfig: wanted 0 < f0_min < f0_max, got {self.f0_min}, {self.f0_max}"
            )


@dataclass(frozen=True)
class CodecConfig:
    """A whole codec: rates, quantizer and networks.

    Args:
        sample_rate: in Hz.
        hop_length: samples a frame; ``sample_rate / hop_length`` frames a second.
        quantizer: the BD-RFSQ.
        network: the networks, and with them the kind of codec: ``StreamNetworkConfig`` (harmonic
            source) or ``SnakeNetworkConfig`` (the published kind).
        name: name of the preset it started from; informational.
    """

    sample_rate: int = 16000
    hop_length: int = 320
    quantizer: BDRFSQConfig = field(
        default_factory=lambda: BDRFSQConfig(
            blocks=(Block("emotion", 64, (2, 2, 2)), Block("acoustic", 192, (4,) * 6))
        )
    )
    network: StreamNetworkConfig | SnakeNetworkConfig = field(default_factory=StreamNetworkConfig)
    name: str = "stream"

    def __post_init__(self) -> None:
        _check_positive("CodecConfig", "sample_rate", self.sample_rate)
        _check_positive("CodecConfig", "hop_length", self.hop_length)
        net = self.network
        if isinstance(net, SnakeNetworkConfig) and math.prod(net.strides) != self.hop_length:
            raise ValueError(
                f"CodecConfig: the strides {net.strides} make a hop of {math.prod(net.strides)} "
                f"samples, hop_length says {self.hop_length}"
            )
        if self.hop_length % net.analysis_hop:
            raise ValueError(
                f"CodecConfig: analysis_hop must divide hop_length, got {net.analysis_hop} and "
                f"{self.hop_length}"
            )
        if net.analysis_window % net.analysis_hop or net.analysis_window < 3 * net.analysis_hop:
            raise ValueError(
                "CodecConfig: analysis_window must be a multiple of analysis_hop, at least 3 hops "
                f"long, got {net.analysis_window} and {net.analysis_hop}; overlapping windows do "
                "not add up otherwise"
            )
        # A frame may see and fill two hops, no more: that is the declared latency.
        if net.analysis_window + self.hop_length - net.analysis_hop > 2 * self.hop_length:
            raise ValueError(
                f"CodecConfig: analysis_window {net.analysis_window} does not fit into two hops "
                f"of {self.hop_length} samples at analysis_hop {net.analysis_hop}"
            )
        periods = math.ceil(2 * self.sample_rate / net.f0_min)
        shortest = max(PITCH_BINS * 2, self.hop_length, periods)
        if net.pitch_window % 2 or net.pitch_window < shortest:
            raise ValueError(
                f"CodecConfig: pitch_window must be even and at least {shortest} samples (one hop, "
                f"two periods of f0_min = {net.f0_min:g} Hz, {PITCH_BINS} spectral bins), got "
                f"{net.pitch_window}"
            )
        if set(self.quantizer.names) != {"emotion", "acoustic"}:
            raise ValueError(
                "CodecConfig: the networks feed exactly the blocks 'emotion' and 'acoustic', "
                f"got {list(self.quantizer.names)}"
            )

    @property
    def frame_rate(self) -> float:
        """Frames a second."""
        return self.sample_rate / self.hop_length

    @property
    def hash(self) -> str:
        """16 hexadecimal digits that name this configuration (BLAKE2b of its canonical JSON).

        Fields that came later (``config_checks.later``) count only where they leave their default,
        so that a release which adds one keeps the names of all codecs that do not use it.
        """
        text = json.dumps(canonical(self), sort_keys=True, separators=(",", ":"))
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    def num_frames(self, num_samples: int) -> int:
        """Frames that carry ``num_samples``: one a hop, and one that flushes the last overlap."""
        return 0 if num_samples == 0 else -(-num_samples // self.hop_length) + 1

    def kbps(self, stages: StageSpec = None) -> float:
        """Bit rate of the tokens in kbit/s, container excluded."""
        return sum(self.quantizer.bits(stages).values()) * self.frame_rate / 1000

    def stages_for_kbps(self, kbps: float) -> int:
        """Largest stage count whose rate does not exceed ``kbps``.

        Raises:
            ValueError: if even one stage is above ``kbps``.
        """
        per_stage = self.kbps(1)
        if not kbps / per_stage + 1e-9 >= 1:  # also refuses NaN
            raise ValueError(
                f"kbps: {kbps} is below the lowest rate of this codec, {per_stage:g} kbit/s a "
                f"stage; ask for {per_stage:g} to {per_stage * self.quantizer.num_stages:g}"
            )
        return math.floor(min(kbps / per_stage + 1e-9, self.quantizer.num_stages))

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary of JSON types."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> CodecConfig:
        """Inverse of :meth:`to_dict`; unknown keys, or no quantizer or network, are errors."""
        check_keys(cls, data, ("quantizer", "network"))
        values = dict(data)
        values["quantizer"] = BDRFSQConfig.from_dict(values["quantizer"])
        network = values["network"]
        snake = isinstance(network, Mapping) and network.get("kind") == SnakeNetworkConfig.KIND
        kind: type[StreamNetworkConfig] | type[SnakeNetworkConfig]
        kind = SnakeNetworkConfig if snake else StreamNetworkConfig
        check_keys(kind, network)
        values["network"] = kind(**network)
        return cls(**values)

    @classmethod
    def preset(cls, name: str = "stream") -> CodecConfig:
        """A named preset.

        Args:
            name: ``"stream"`` (6.5 million parameters, runs and trains on a CPU),
                ``"stream-large"`` (20 million, the same kind) or ``"paper"`` (132 million, the
                published kind: Snake convolutions and a wide emotion adapter).
        """
        from affectcodec.presets import PRESETS

        if name not in PRESETS:
            raise ValueError(
                f"preset: unknown name {name!r}; available presets are {sorted(PRESETS)}"
            )
        return PRESETS[name]()
