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
from affectcodec.snake_config import SnakeNetworkConfig

StageSpec = int | Mapping[str, int] | None

QUANTIZER_KINDS = ("bd-rfsq", "rfsq", "rvq")
PITCH_BINS = 128  # bins of the pitch window's spectrum that the emotion encoder reads


@dataclass(frozen=True)
class Block:
    """One named subspace of the latent and its finite scalar levels.

    Args:
        name: identifier used in ``stages={name: count}`` and in files.
        width: number of latent channels the block owns.
        levels: quantization levels of each code dim, e.g. ``(2, 2, 2)``; each at least 2.
    """

    name: str
    width: int
    levels: tuple[int, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.isidentifier() or len(self.name) > 32:
            raise ValueError(
                f"Block: name must be an identifier of at most 32 characters, got {self.name!r}"
            )
        _check_positive(f"Block {self.name!r}", "width", self.width)
        object.__setattr__(self, "levels", tuple(self.levels))
        if not self.levels:
            raise ValueError(f"Block {self.name!r}: levels must name at least one code dim, got ()")
        for level in self.levels:
            if not isinstance(level, int) or isinstance(level, bool) or not 2 <= level <= 4096:
                raise ValueError(
                    f"Block {self.name!r}: every level must be an integer in 2..4096, "
                    f"got {level!r} in {self.levels}"
                )

    @property
    def code_dim(self) -> int:
        """Number of code dims, ``len(levels)``."""
        return len(self.levels)

    @property
    def codebook_size(self) -> int:
        """Number of codes a stage, the product of the levels."""
        return math.prod(self.levels)

    @property
    def bits(self) -> float:
        """Information of one stage of this block, in bits a frame."""
        return math.log2(self.codebook_size)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Block:
        """From a dictionary with the keys name, width and levels."""
        check_keys(cls, data, ("name", "width", "levels"))
        return cls(data["name"], data["width"], tuple(data["levels"]))


@dataclass(frozen=True)
class BDRFSQConfig:
    """Block-diagonal residual finite scalar quantizer, or a baseline of equal bits.

    Args:
        blocks: the blocks in latent order; the first one takes the low digits of the token.
        num_stages: residual stages ``K``.
        bound: ``"tanh"`` (smooth) or ``"clamp"`` (hard) bounding of the code dims to [-1, 1].
        kind: ``"bd-rfsq"``; as baselines ``"rfsq"``, the same digits with dense projections, and
            ``"rvq"``, residual vector quantization. Baselines have no blocks of their own: a stage
            is active in all blocks or in none.
        codebooks: of one stage of ``"rvq"``, one after the other; their sizes multiply to the
            codebook of a stage. ``()`` takes two of about equal bits.

    Raises:
        ValueError: on repeated block names, an unknown bound or kind, a codebook above 2**63, or
            codebooks of other bits.
    """

    blocks: tuple[Block, ...] = (
        Block("emotion", 256, (2, 2, 2)),
        Block("acoustic", 768, (4,) * 6),
    )
    num_stages: int = 8
    bound: str = "tanh"
    kind: str = later("bd-rfsq")
    codebooks: tuple[int, ...] = later(())

    def __post_init__(self) -> None:
        object.__setattr__(self, "blocks", tuple(self.blocks))
        object.__setattr__(self, "codebooks", tuple(self.codebooks))
        if not self.blocks:
            raise ValueError("BDRFSQConfig: blocks must hold at least one Block, got ()")
        for block in self.blocks:
            if not isinstance(block, Block):
                raise ValueError(f"BDRFSQConfig: blocks must hold Block objects, got {block!r}")
        names = [block.name for block in self.blocks]
        if len(set(names)) != len(names):
            raise ValueError(f"BDRFSQConfig: block names must differ, got {names}")
        _check_positive("BDRFSQConfig", "num_stages", self.num_stages)
        if self.num_stages > 64:
            raise ValueError(f"BDRFSQConfig: num_stages must be at most 64, got {self.num_stages}")
        if self.bound not in ("tanh", "clamp"):
            raise ValueError(f"BDRFSQConfig: bound must be 'tanh' or 'clamp', got {self.bound!r}")
        if self.codebook_size > 2**63:
            raise ValueError(
                f"BDRFSQConfig: the composite codebook has {self.codebook_size} entries, more "
                "than a 64-bit token can name (2**63). Use fewer code dims or levels a stage and "
                "more stages."
            )
        if self.kind not in QUANTIZER_KINDS:
            raise ValueError(
                f"BDRFSQConfig: kind must be one of {list(QUANTIZER_KINDS)}, got {self.kind!r}"
            )
        if self.codebooks and (
            self.kind != "rvq"
            or min(self.codebooks) < 2
            or math.prod(self.codebooks) != self.codebook_size
        ):
            raise ValueError(
                "BDRFSQConfig: codebooks belong to kind 'rvq' and multiply to the codebook of a "
                f"stage ({self.codebook_size}), so that bits are equal; got {self.codebooks} with "
                f"kind {self.kind!r}"
            )

    @property
    def has_blocks(self) -> bool:
        """Whether blocks are coded apart, and may have stage counts of their own."""
        return self.kind == "bd-rfsq"

    @property
    def width(self) -> int:
        """Latent width ``D``, the sum of the block widths."""
        return sum(block.width for block in self.blocks)

    @property
    def code_dim(self) -> int:
        """Code dims of one stage over all blocks."""
        return sum(block.code_dim for block in self.blocks)

    @property
    def codebook_size(self) -> int:
        """Number of composite tokens a stage, the product over all blocks."""
        return math.prod(block.codebook_size for block in self.blocks)

    @property
    def token_bits(self) -> float:
        """Information of one composite token, in bits."""
        return sum(block.bits for block in self.blocks)

    @property
    def names(self) -> tuple[str, ...]:
        """Block names in latent order."""
        return tuple(block.name for block in self.blocks)

    def block_slices(self) -> dict[str, slice]:
        """Channel range of each block inside the latent."""
        out, start = {}, 0
        for block in self.blocks:
            out[block.name] = slice(start, start + block.width)
            start += block.width
        return out

    def token_bases(self) -> dict[str, int]:
        """Place value of each block's code inside the composite token (mixed radix)."""
        out, base = {}, 1
        for block in self.blocks:
            out[block.name] = base
            base *= block.codebook_size
        return out

    def resolve_stages(self, stages: StageSpec = None) -> dict[str, int]:
        """Stage count of every block.

        Args:
            stages: ``None`` for all stages, one integer for every block, or a mapping from block
                name to count; blocks that a mapping leaves out keep all their stages.

        Raises:
            ValueError: on an unknown block name or a count outside ``0..num_stages``.
            TypeError: on any other type.
        """
        if stages is None:
            return dict.fromkeys(self.names, self.num_stages)
        if isinstance(stages, int) and not isinstance(stages, bool):
            counts = dict.fromkeys(self.names, stages)
        elif isinstance(stages, Mapping):
            unknown = sorted(set(stages) - set(self.names))
            if unknown:
                raise ValueError(
                    f"stages: unknown blocks {unknown}; this quantizer has {list(self.names)}"
                )
            counts = {name: stages.get(name, self.num_stages) for name in self.names}
        else:
            raise TypeError(
                "stages must be None, an int or a mapping block -> int, "
                f"got {type(stages).__name__}"
            )
        for name, count in counts.items():
            if not isinstance(count, int) or not 0 <= count <= self.num_stages:
                raise ValueError(
                    f"stages: block {name!r} asks for {count!r}, wanted 0..{self.num_stages}"
                )
        if not self.has_blocks and len(set(counts.values())) > 1:
            raise ValueError(
                f"stages: a quantizer of kind {self.kind!r} has no blocks of its own; wanted one "
                f"count for all, got {counts}"
            )
        if not any(counts.values()):
            raise ValueError("stages: every block is cut to 0 stages, at least one stage is needed")
        return counts

    def bits(self, stages: StageSpec = None) -> dict[str, float]:
        """Bits a frame of each block at the given stage counts."""
        counts = self.resolve_stages(stages)
        return {block.name: counts[block.name] * block.bits for block in self.blocks}

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary of JSON types."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> BDRFSQConfig:
        """Inverse of :meth:`to_dict`; unknown and missing keys are errors."""
        check_keys(cls, data, ("blocks", "num_stages", "bound"))
        blocks = tuple(Block.from_dict(block) for block in data["blocks"])
        return cls(**{**data, "blocks": blocks})


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
