# SPDX-License-Identifier: Apache-2.0
"""Frozen configuration of a training run; it is written into the run folder."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from affectcodec.config import CodecConfig, check_keys

ENVELOPE_SPAN = 48  # windows that the envelope loss correlates, one every ENVELOPE_HOP samples
ENVELOPE_HOP = 128


@dataclass(frozen=True)
class LossWeights:
    """Weight of each loss term.

    ``mel`` and ``spectral`` compare spectra at several resolutions. ``envelope`` is one minus the
    correlation of third-octave band envelopes. ``loudness`` compares specific loudness in Bark
    bands and punishes added sound more than missing sound;
    ``level`` keeps the level of the clip. ``f0``, ``voicing`` and ``energy``
    supervise the prosody decoded from the quantized emotion block, ``emotion`` its class head.
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
        emotion_gradient: share of the reconstruction gradient that reaches the emotion block.
        dataset_weights: odds of each corpus; if any is named, the others are not drawn.
        level_range_db: range of the active level that augmentation sets, in dBFS.
        level_augment: share of clips whose level is changed.
        speeds: playback speeds cached of every training clip (speaker variety).
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
    emotion_gradient: float = 0.1
    dataset_weights: Mapping[str, float] = field(default_factory=dict)
    level_range_db: tuple[float, float] = (-45.0, -14.0)
    level_augment: float = 0.6
    speeds: tuple[float, ...] = (1.0, 0.9)
    loss: LossWeights = field(default_factory=LossWeights)
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
        if len(self.stage_choices) != len(self.stage_weights):
            raise ValueError(
                f"TrainConfig: stage_choices and stage_weights must have equal lengths, got "
                f"{len(self.stage_choices)} and {len(self.stage_weights)}"
            )
        for count in self.stage_choices:
            if not 1 <= count <= self.codec.quantizer.num_stages:
                raise ValueError(
                    f"TrainConfig: stage_choices must lie in 1..{self.codec.quantizer.num_stages}, "
                    f"got {count}"
                )

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        warm = min(1.0, (step + 1) / max(1, self.warmup_steps))
        left = max(0, self.steps - step)
        decay = min(1.0, left / max(1, self.decay_steps))
        return self.learning_rate * warm * max(0.02, decay)

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
        if "loss" in values:
            check_keys(LossWeights, values["loss"])
            values["loss"] = LossWeights(**values["loss"])
        for name in ("stage_choices", "stage_weights", "speeds", "level_range_db"):
            if name in values:
                values[name] = tuple(values[name])
        return cls(**values)
