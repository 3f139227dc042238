# SPDX-License-Identifier: Apache-2.0
"""The training loop: one process, resumable to the step."""

from __future__ import annotations

import copy
import json
import math
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from affectcodec.codec import AffectCodec
from affectcodec.nn.causal import CausalConvNeXt
from affectcodec.training.batches import Batch, BatchSource
from affectcodec.training.cache import ClipCache
from affectcodec.training.config import TrainConfig
from affectcodec.training.losses import (
    EmotionHead,
    SpectralLosses,
    emotion_loss,
    level_loss,
    prosody_losses,
)
from affectcodec.training.run_state import latest_checkpoint, load_checkpoint, save_checkpoint

_DEV_STAGES = (1, 2, 4, 8)


class TrainingError(RuntimeError):
    """A run that cannot go on, with the reason."""


class Trainer:
    """Trains a codec from a clip cache.

    Args:
        config: the run.
        train, dev: clip caches; ``dev`` may be None.
        folder: run folder; holds ``config.json``, checkpoints, TensorBoard events.
        extra_loss: place of further losses (adversarial training): called in every training step
            with the decoded wave ``[B, N]`` and the batch, returns named terms, already weighted.
            They are added to the total and logged as ``extra_NAME``; evaluation leaves them out.
    """

    def __init__(
        self,
        config: TrainConfig,
        train: ClipCache,
        dev: ClipCache | None,
        folder: str | Path,
        *,
        extra_loss: Callable[[Tensor, Batch], dict[str, Tensor]] | None = None,
    ) -> None:
        self.config = config
        self.folder = Path(folder)
        self.source = BatchSource(train, config)
        self.dev = BatchSource(dev, config) if dev is not None else None
        self.extra_loss = extra_loss
        torch.manual_seed(config.seed)
        self.codec = AffectCodec(config.codec)
        widths = {block.name: block.width for block in config.codec.quantizer.blocks}
        self.emotion_head = EmotionHead(widths["emotion"])
        self.emotion_slice = config.codec.quantizer.block_slices()["emotion"]
        self.spectral = SpectralLosses(config.codec.sample_rate)
        self.ema = copy.deepcopy(self.codec).requires_grad_(False).eval()
        for module in self.codec.modules():
            if isinstance(module, CausalConvNeXt):
                module.low_precision = config.precision == "bf16"
        self.modules: dict[str, nn.Module] = {
            "codec": self.codec,
            "emotion_head": self.emotion_head,
            "ema": self.ema,
        }
        self.optimizer = self._optimizer()
        self.step = 0
        self.seconds = 0.0
        self.stop_requested = False

    def _optimizer(self) -> torch.optim.Optimizer:
        decay: list[nn.Parameter] = []
        plain: list[nn.Parameter] = []
        for module in (self.codec, self.emotion_head):
            for name, parameter in module.named_parameters():
                matrix = parameter.ndim > 1 and "quantizer" not in name
                (decay if matrix else plain).append(parameter)
        groups = [
            {"params": decay, "weight_decay": self.config.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(
            groups, lr=self.config.learning_rate, betas=(0.8, 0.99), fused=True
        )

    # -- one step -------------------------------------------------------------------------------

    def losses(
        self, batch: Batch, codec: AffectCodec, step: int | None = None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Weighted loss terms and unweighted figures of a batch; without a step, an evaluation."""
        weights = self.config.loss
        true_f0 = torch.exp(batch.log_f0)
        encoded = codec.encoder(nn.functional.pad(batch.wav, (0, self.config.codec.hop_length)))
        quantized = codec.quantizer(encoded, batch.stages, channels_last=True)
        emotion = quantized.latent[..., self.emotion_slice]
        # The source is chosen clip by clip, so the decoder must first read the decoded prosody.
        decoded = codec.decoder(
            quantized.latent,
            source_f0=true_f0,
            source_voicing=batch.voiced,
            source_override=batch.use_true_f0,
            noise_start=batch.noise_start,
            emotion_gradient=self.config.emotion_gradient,
        )
        hop = self.config.codec.hop_length
        wav = decoded.wav[:, hop : hop + batch.wav.shape[1]]
        raw = self.spectral(wav, batch.wav, step)
        raw["level"] = level_loss(wav, batch, hop)
        raw.update(prosody_losses(codec.decoder.prosody, decoded.prosody, batch))
        raw["emotion"], accuracy = emotion_loss(self.emotion_head(emotion), batch.emotion)
        terms = {name: getattr(weights, name) * value for name, value in raw.items()}
        extra: dict[str, Tensor] = {}
        if self.extra_loss is not None and step is not None:
            extra = {f"extra_{k}": v for k, v in self.extra_loss(wav, batch).items()}
        with torch.no_grad():
            voiced = batch.voiced > 0
            error = (torch.log(decoded.prosody.f0) - batch.log_f0).abs() * (1200 / math.log(2))
            error = error[voiced] if bool(voiced.any()) else error.new_zeros(1)
            figures = {
                "f0_cents_median": error.median(),
                "f0_gross_error": (error > 300).float().mean(),
                "voicing_error": ((decoded.prosody.voicing_logit > 0) != voiced).float().mean(),
                "emotion_accuracy": accuracy,
            }
        figures.update({f"raw_{k}": v.detach() for k, v in raw.items()})
        figures.update({k: v.detach() for k, v in extra.items()})
        return {**terms, **extra}, figures

    def train_step(self) -> dict[str, float]:
        """One optimizer step; returns its figures.

        Raises:
            TrainingError: if the loss is not finite.
        """
        config = self.config
        rate = config.learning_rate_at(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        batch = self.source.batch(self.step)
        terms, figures = self.losses(batch, self.codec, self.step)
        total = torch.stack(list(terms.values())).sum()
        if not bool(torch.isfinite(total)):
            bad = [name for name, value in terms.items() if not bool(torch.isfinite(value))]
            raise TrainingError(
                f"the loss of step {self.step} is not finite (terms {bad}); no weight was "
                "changed: lower learning_rate and resume"
            )
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = nn.utils.clip_grad_norm_(parameters, config.clip_norm)
        if not bool(torch.isfinite(norm)):
            raise TrainingError(
                f"the gradient of step {self.step} is not finite though its loss is; no weight was "
                "changed: lower learning_rate and resume"
            )
        self.optimizer.step()
        decay = min(config.ema_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            averaged: list[Tensor] = [*self.ema.parameters()]
            live: list[Tensor] = [*self.codec.parameters()]
            torch._foreach_lerp_(averaged, live, 1 - decay)
        self.step += 1
        return {
            "loss": float(total.detach()),
            "gradient_norm": float(norm),
            "learning_rate": rate,
            **{name: float(value) for name, value in figures.items()},
        }

    @torch.no_grad()
    def evaluate(self, batches: int = 4) -> dict[str, float]:
        """Loss terms of the averaged weights on fixed dev crops, by stage count."""
        assert self.dev is not None
        out: dict[str, float] = {}
        top = self.config.codec.quantizer.num_stages
        for stages in (count for count in _DEV_STAGES if count <= top):
            sums: dict[str, float] = {}
            for index in range(batches):
                batch = self.dev.batch(index, stream=1)
                batch = batch._replace(
                    stages=torch.full_like(batch.stages, stages),
                    use_true_f0=torch.zeros_like(batch.use_true_f0),
                )
                _, figures = self.losses(batch, self.ema)
                for name, value in figures.items():
                    sums[name] = sums.get(name, 0.0) + float(value) / batches
            out.update({f"{name}/stages_{stages}": value for name, value in sums.items()})
        return out

    # -- the run --------------------------------------------------------------------------------

    def save(self) -> Path:
        """Checkpoint now."""
        record = {"seconds": self.seconds, "config": self.config.to_dict()}
        return save_checkpoint(self.folder, self.step, self.modules, self.optimizer, record)

    def resume(self) -> bool:
        """Continue from the newest checkpoint of the run folder; False if there is none."""
        path = latest_checkpoint(self.folder)
        if path is None:
            return False
        record = load_checkpoint(path, self.modules, self.optimizer)
        self.step, self.seconds = int(record["step"]), float(record["seconds"])
        return True

    def export(self, folder: str | Path, metadata: dict[str, Any] | None = None) -> None:
        """Write the averaged weights as a pretrained folder."""
        training = {"steps": self.step, "seconds": round(self.seconds)}
        self.ema.save_pretrained(folder, metadata={**training, **(metadata or {})})

    def run(self, *, progress: bool = True) -> None:
        """Train to ``config.steps``; Ctrl-C and SIGTERM save a checkpoint and return."""
        from torch.utils.tensorboard import SummaryWriter

        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "config.json").write_text(json.dumps(self.config.to_dict(), indent=2) + "\n")
        handlers = {
            number: signal.signal(number, self._request_stop)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        writer = SummaryWriter(str(self.folder), purge_step=self.step)
        audio_seconds = (
            self.config.batch_size
            * (self.config.crop_frames - 1)
            * self.config.codec.hop_length
            / self.config.codec.sample_rate
        )
        bar = tqdm(
            total=self.config.steps, initial=self.step, desc="training", disable=not progress
        )
        started, recent = time.monotonic(), time.monotonic()
        before = self.seconds
        try:
            while self.step < self.config.steps and not self.stop_requested:
                figures = self.train_step()
                self.seconds = before + time.monotonic() - started
                bar.update()
                if self.step % self.config.log_every == 0:
                    now = time.monotonic()
                    speed = self.config.log_every * audio_seconds / max(1e-9, now - recent)
                    recent = now
                    figures["audio_seconds_per_second"] = speed
                    for name, value in figures.items():
                        writer.add_scalar(f"train/{name}", value, self.step)
                    bar.set_postfix(loss=f"{figures['loss']:.3f}", speed=f"{speed:.1f} s/s")
                if self.step % self.config.checkpoint_every == 0:
                    self.save()
                if self.dev is not None and self.step % self.config.eval_every == 0:
                    self._report(writer)
                    recent = time.monotonic()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            bar.close()
            if math.isfinite(self.seconds) and self.step:
                self.save()
            writer.close()

    def _request_stop(self, number: int, frame: Any) -> None:
        if self.stop_requested:
            raise KeyboardInterrupt
        self.stop_requested = True

    @torch.no_grad()
    def _report(self, writer: Any) -> None:
        assert self.dev is not None
        figures = self.evaluate()
        for name, value in figures.items():
            writer.add_scalar(f"dev/{name}", value, self.step)
        with open(self.folder / "dev.jsonl", "a") as file:
            record = {"step": self.step, "seconds": round(self.seconds, 1), **figures}
            file.write(json.dumps(record) + "\n")
        clips = self.dev.batch(0, stream=1).wav[:3]
        rate, top = self.config.codec.sample_rate, self.config.codec.quantizer.num_stages
        for i, clip in enumerate(clips):
            writer.add_audio(f"dev/original_{i}", clip, self.step, rate)
            for stages in sorted({min(2, top), min(8, top)}):
                coded = self.ema(clip[None, None], stages=stages).wav[0, 0]
                writer.add_audio(f"dev/coded_{i}_stages_{stages}", coded, self.step, rate)
