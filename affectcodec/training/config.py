# SPDX-License-Identifier: Apache-2.0
"""Frozen configuration of a training run; it is written into the run folder."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from affectcodec.config import CodecConfig, check_keys
from affectcodec.training.config_data import AugmentConfig, LoaderConfig
from affectcodec.training.config_run import GuardConfig, ScaleConfig

ENVELOPE_SPAN = 48  # windows that the envelope loss correlates, one every ENVELOPE_HOP samples
ENVELOPE_HOP = 128
CODEC_PARTS = ("encoder", "quantizer", "decoder")


@dataclass(frozen=True)
class LossWeights:
    """Weight of each loss term.

    ``mel`` and ``spectral`` compare spectra at several resolutions. ``envelope`` is one minus the
    correlation of third-octave band envelopes. ``loudness`` compares specific loudness in Bark
    bands and punishes added sound more than missing sound;
    ``level`` keeps the level of the clip. ``f0``, ``voicing`` and ``energy``
    supervise the prosody decoded from the quantized emotion block.

    Through a head of its own the same block is supervised by ``emotion`` (class), ``dimensions``
    (arousal and valence), ``frames`` (F0, voicing, energy, spectral tilt, harmonicity) and
    ``teacher`` (cosine to a teacher's embedding).

    The cycle terms ask for the same in decoded audio: ``cycle_prosody`` (the frame targets),
    ``cycle_latent`` (emotion latent), ``cycle_emotion`` (class), ``cycle_teacher`` (embedding).

    ``commitment`` draws the encoder to the codebooks of the vector quantizer baseline.
    """

    mel: float = 1.0
    spectral: float = 0.5
    envelope: float = 1.0
    loudness: float = 0.5
    level: float = 0.3
    f0: float = 0.8
    voicing: float = 0.3
    energy: float = 0.15
    emotion: float = 0.05
    dimensions: float = 0.0
    frames: float = 0.0
    teacher: float = 0.0
    cycle_prosody: float = 0.0
    cycle_latent: float = 0.0
    cycle_emotion: float = 0.0
    cycle_teacher: float = 0.0
    commitment: float = 0.25

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            if not getattr(self, f.name) >= 0:
                raise ValueError(
                    f"LossWeights: {f.name} must be 0 or more, got {getattr(self, f.name)}"
                )


@dataclass(frozen=True)
class DiscriminatorConfig:
    """Sizes of the discriminators.

    Args:
        periods, period_channels: multi-period discriminators and the channels of their layers.
        spectrum_sizes, spectrum_channels: windows, in samples, of the complex spectrum
            discriminators, and the channels of their layers.
        compression: power of the magnitudes they see; 1 for none.
    """

    periods: tuple[int, ...] = (2, 3, 5, 7, 11)
    period_channels: tuple[int, ...] = (8, 16, 32, 64, 64)
    spectrum_sizes: tuple[int, ...] = (1024, 512, 256)
    spectrum_channels: tuple[int, ...] = (16, 16, 32, 32)
    compression: float = 0.5

    @classmethod
    def preset(cls, name: str) -> DiscriminatorConfig:
        """Sizes that go with a codec preset.

        Args:
            name: ``"stream"`` (0.24 million parameters, for a CPU), ``"stream-large"`` (3 million)
                or ``"paper"`` (42 million, periods as in HiFi-GAN).

        Raises:
            ValueError: on another name.
        """
        if name == "stream":
            return cls()
        if name == "stream-large":
            return cls(
                period_channels=(16, 64, 128, 256, 256),
                spectrum_sizes=(2048, 1024, 512, 256),
                spectrum_channels=(32, 32, 64, 64),
            )
        if name == "paper":
            return cls(
                period_channels=(32, 128, 512, 1024, 1024),
                spectrum_sizes=(2048, 1024, 512),
                spectrum_channels=(64, 64, 128, 128, 128),
            )
        raise ValueError(
            f"preset: unknown name {name!r}; there are 'stream', 'stream-large' and 'paper'"
        )

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            if f.name != "compression":
                object.__setattr__(self, f.name, tuple(getattr(self, f.name)))
        if not self.periods and not self.spectrum_sizes:
            raise ValueError("DiscriminatorConfig: periods and spectrum_sizes are both empty")
        for name in ("period_channels", "spectrum_channels"):
            if not getattr(self, name) or min(getattr(self, name)) < 1:
                raise ValueError(
                    f"DiscriminatorConfig: {name} must name at least one positive width, got "
                    f"{getattr(self, name)}"
                )
        if self.periods and min(self.periods) < 1:
            raise ValueError(f"DiscriminatorConfig: periods must be positive, got {self.periods}")
        for size in self.spectrum_sizes:
            if size < 32 or size % 4:
                raise ValueError(
                    "DiscriminatorConfig: spectrum_sizes must be multiples of 4, at least 32, got "
                    f"{size}"
                )
        if not 0 < self.compression <= 1:
            raise ValueError(
                f"DiscriminatorConfig: compression must lie in (0, 1], got {self.compression}"
            )


@dataclass(frozen=True)
class AdversarialConfig:
    """Adversarial training.

    Args:
        start: step at which the discriminators begin to learn; None for none at all.
        every: they take part in one of so many steps; 2 saves a third of the time.
        warmup_steps: steps in which only they learn.
        ramp_steps: steps over which their gradient to the codec then rises to its full weight.
        loss: ``"hinge"`` or ``"lsgan"`` (least squares).
        generator_weight, feature_weight: of the score and of feature matching, to each other.
        share: norm of the adversarial gradient by the wave as a share of that of all other losses,
            held by running norms; None takes the two weights as they are.
        crop_samples: length of the random crop of each clip that they see; all of it if longer.
        learning_rate, weight_decay, clip_norm: of their own AdamW.
        discriminators: their sizes.
    """

    start: int | None = None
    every: int = 1
    warmup_steps: int = 300
    ramp_steps: int = 500
    loss: str = "hinge"
    generator_weight: float = 1.0
    feature_weight: float = 4.0
    share: float | None = 0.5
    crop_samples: int = 8192
    learning_rate: float = 5e-4
    weight_decay: float = 0.0
    clip_norm: float = 5.0
    discriminators: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)

    def __post_init__(self) -> None:
        if self.loss not in ("hinge", "lsgan"):
            raise ValueError(
                f"AdversarialConfig: loss must be 'hinge' or 'lsgan', got {self.loss!r}"
            )
        if self.every < 1:
            raise ValueError(f"AdversarialConfig: every must be at least 1, got {self.every}")
        if self.crop_samples < 1024:
            raise ValueError(
                f"AdversarialConfig: crop_samples must be at least 1024, got {self.crop_samples}"
            )
        if self.share is not None and self.share <= 0:
            raise ValueError(
                f"AdversarialConfig: share must be positive, or None for no balance, got "
                f"{self.share}"
            )

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> AdversarialConfig:
        """From a dictionary; defaults fill what is left out, unknown keys are errors."""
        check_keys(cls, data)
        values = dict(data)
        if "discriminators" in values:
            check_keys(DiscriminatorConfig, values["discriminators"])
            values["discriminators"] = DiscriminatorConfig(**values["discriminators"])
        return cls(**values)


_GROUPS: dict[str, type] = {
    "augment": AugmentConfig,
    "guard": GuardConfig,
    "loader": LoaderConfig,
    "loss": LossWeights,
    "scale": ScaleConfig,
}


@dataclass(frozen=True)
class TrainConfig:
    """One run.

    Args:
        codec: the codec to train.
        steps: optimizer steps in all; the learning rate decays over the last ``decay_steps``.
        batch_size: crops a step.
        crop_frames: codec frames a crop; long enough for one span of the envelope loss.
        learning_rate, warmup_steps, decay_steps, weight_decay, clip_norm: AdamW and its schedule
            (linear warm-up, constant, then a linear decay to 2 %).
        ema_decay: decay of the averaged weights that are exported.
        stage_choices, stage_weights: stage counts drawn for each clip (biased stage dropout) and
            their odds.
        independent_stages: share of clips whose blocks draw their stage counts independently.
        true_f0_share: share of clips whose source is driven by the true F0.
        rates: stage counts at which every clip is decoded, all from one pass of the quantizer (the
            multi-rate loss, e.g. ``(2, 4, 8)``); in place of the drawn counts.
        told_rates: stage counts at which the tokens of every clip must tell prosody and affect,
            from the same pass, whatever is decoded; in place of the drawn counts.
        quantizer_warmup: steps in which latents pass the quantizer by; then its projections start
            from the latents of one batch (`nn.quantizer_start`). A codebook starts by itself.
        balance: make the weights of the losses on the decoded wave shares of its gradient.
        emotion_gradient: share of the reconstruction gradient that reaches the emotion block.
        dataset_weights: odds of each corpus; if any is named, the others are not drawn.
        dataset_weights_end: odds at the last step, between which and ``dataset_weights`` they move
            evenly; empty to keep them.
        level_range_db: range of the active level that augmentation sets, in dBFS.
        level_augment: share of clips whose level is changed.
        augment: noise and rooms.
        loader: how batches are made and kept ready.
        scale: accumulation, recomputation, compilation, sharding.
        guard: when the run goes back to its last checkpoint.
        speeds: playback speeds cached of every training clip (speaker variety).
        adversarial: discriminators and their schedule; off by default.
        frozen: parts of the codec that are not trained, of ``"encoder"``, ``"quantizer"``,
            ``"decoder"``; with the first two frozen, tokens stay what they are.
        precision: of the products inside the networks, ``"bf16"`` or ``"fp32"``; weights, spectra,
            quantizer and source are float32 either way.
        seed: every random choice is a function of the seed and the step.
        log_every, eval_every, checkpoint_every: in steps.
    """

    codec: CodecConfig = field(default_factory=CodecConfig)
    steps: int = 20000
    batch_size: int = 12
    crop_frames: int = 64
    learning_rate: float = 1e-3
    warmup_steps: int = 300
    decay_steps: int = 4000
    weight_decay: float = 0.01
    clip_norm: float = 2.0
    ema_decay: float = 0.999
    stage_choices: tuple[int, ...] = (1, 2, 3, 4, 6, 8)
    stage_weights: tuple[float, ...] = (0.12, 0.28, 0.08, 0.2, 0.07, 0.25)
    independent_stages: float = 0.1
    true_f0_share: float = 0.5
    rates: tuple[int, ...] = ()
    told_rates: tuple[int, ...] = ()
    quantizer_warmup: int = 0
    balance: bool = False
    emotion_gradient: float = 0.1
    dataset_weights: Mapping[str, float] = field(default_factory=dict)
    dataset_weights_end: Mapping[str, float] = field(default_factory=dict)
    level_range_db: tuple[float, float] = (-45.0, -14.0)
    level_augment: float = 0.6
    speeds: tuple[float, ...] = (1.0, 0.9)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    loader: LoaderConfig = field(default_factory=LoaderConfig)
    scale: ScaleConfig = field(default_factory=ScaleConfig)
    guard: GuardConfig = field(default_factory=GuardConfig)
    loss: LossWeights = field(default_factory=LossWeights)
    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)
    frozen: tuple[str, ...] = ()
    precision: str = "bf16"
    seed: int = 1
    log_every: int = 20
    eval_every: int = 1000
    checkpoint_every: int = 500

    def __post_init__(self) -> None:
        counts = ("steps", "batch_size", "crop_frames", "log_every", "eval_every")
        for name in (*counts, "checkpoint_every"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"TrainConfig: {name} must be a positive integer, got {value!r}")
        span, hop = ENVELOPE_SPAN * ENVELOPE_HOP, self.codec.hop_length
        shortest = -(-span // hop) + 1
        if self.crop_frames < shortest:
            raise ValueError(
                f"TrainConfig: crop_frames must be at least {shortest}, so that the envelope loss "
                f"has its {span} samples at a hop of {hop}, got {self.crop_frames}"
            )
        if self.precision not in ("bf16", "fp32"):
            raise ValueError(
                f"TrainConfig: precision must be 'bf16' or 'fp32', got {self.precision!r}"
            )
        if self.independent_stages > 0 and not self.codec.quantizer.has_blocks:
            raise ValueError(
                f"TrainConfig: a quantizer of kind {self.codec.quantizer.kind!r} has no blocks of "
                "its own, so that blocks cannot draw stage counts apart; set independent_stages=0"
            )
        unknown = sorted(set(self.frozen) - set(CODEC_PARTS))
        if unknown or set(self.frozen) == set(CODEC_PARTS):
            raise ValueError(
                f"TrainConfig: frozen must name some of {list(CODEC_PARTS)}, but not all, got "
                f"{list(self.frozen)}"
            )
        if len(self.stage_choices) != len(self.stage_weights):
            raise ValueError(
                f"TrainConfig: stage_choices and stage_weights must have equal lengths, got "
                f"{len(self.stage_choices)} and {len(self.stage_weights)}"
            )
        if self.quantizer_warmup < 0:
            raise ValueError(
                f"TrainConfig: quantizer_warmup must be 0 or more, got {self.quantizer_warmup}"
            )
        if self.quantizer_warmup and (self.scale.shard or "quantizer" in self.frozen):
            raise ValueError(
                "TrainConfig: quantizer_warmup sets the quantizer's weights anew, and cannot with "
                "scale.shard or a frozen quantizer; set quantizer_warmup=0"
            )
        for name in ("stage_choices", "rates", "told_rates"):
            for count in getattr(self, name):
                if not 1 <= count <= self.codec.quantizer.num_stages:
                    raise ValueError(
                        f"TrainConfig: {name} must lie in "
                        f"1..{self.codec.quantizer.num_stages}, got {count}"
                    )

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        warm = min(1.0, (step + 1) / max(1, self.warmup_steps))
        return self.learning_rate * warm * self.decay_at(step)

    def decay_at(self, step: int) -> float:
        """Factor of the final decay at a step; the discriminators follow it too."""
        left = max(0, self.steps - step)
        return max(0.02, min(1.0, left / max(1, self.decay_steps)))

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary of JSON types."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TrainConfig:
        """Inverse of :meth:`to_dict`; defaults fill what is left out, unknown keys are errors."""
        check_keys(cls, data)
        values = dict(data)
        if "codec" in values:
            values["codec"] = CodecConfig.from_dict(values["codec"])
        for name, group in _GROUPS.items():
            if name in values:
                check_keys(group, values[name])
                values[name] = group(**values[name])
        if "adversarial" in values:
            values["adversarial"] = AdversarialConfig.from_dict(values["adversarial"])
        for name in (
            "stage_choices",
            "stage_weights",
            "speeds",
            "level_range_db",
            "frozen",
            "rates",
            "told_rates",
        ):
            if name in values:
                values[name] = tuple(values[name])
        return cls(**values)
