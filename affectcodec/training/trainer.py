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
from affectcodec.nn.spectral import OverlapAddSynthesis, WindowedDFT
from affectcodec.training.adversarial import Adversary
from affectcodec.training.batches import Batch, BatchSource
from affectcodec.training.cache import ClipCache
from affectcodec.training.config import TrainConfig
from affectcodec.training.losses import GradientBalancer
from affectcodec.training.objective import Decoded, Objective
from affectcodec.training.run_state import latest_checkpoint, load_checkpoint, save_checkpoint
from affectcodec.training.teachers import EmbeddingStore, WaveTeacher

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
        embeddings: a teacher's embeddings of the training clips, for ``loss.teacher``.
        teacher: the teacher itself, for ``loss.cycle_teacher``.
    """

    def __init__(
        self,
        config: TrainConfig,
        train: ClipCache,
        dev: ClipCache | None,
        folder: str | Path,
        *,
        extra_loss: Callable[[Tensor, Batch], dict[str, Tensor]] | None = None,
        embeddings: EmbeddingStore | None = None,
        teacher: WaveTeacher | None = None,
    ) -> None:
        self.config = config
        self.folder = Path(folder)
        self.source = BatchSource(train, config, embeddings=embeddings)
        self.dev = BatchSource(dev, config) if dev is not None else None
        self.extra_loss = extra_loss
        torch.manual_seed(config.seed)
        self.codec = AffectCodec(config.codec)
        self.emotion_head = Objective.head_for(config, 0 if embeddings is None else embeddings.dim)
        self.ema = copy.deepcopy(self.codec).requires_grad_(False).eval()
        for module in self.codec.modules():
            if isinstance(module, CausalConvNeXt):
                module.low_precision = config.precision == "bf16"
            if isinstance(module, WindowedDFT | OverlapAddSynthesis):
                module.by_fft = True
        for part in config.frozen:
            self.codec.get_submodule(part).requires_grad_(False)
        self.modules: dict[str, nn.Module] = {
            "codec": self.codec,
            "emotion_head": self.emotion_head,
            "ema": self.ema,
        }
        self.objective = Objective(config, self.emotion_head, self.ema, teacher)
        self.balancer = GradientBalancer(self.objective.heard_names) if config.balance else None
        if self.balancer is not None:
            self.modules["balancer"] = self.balancer
        self.optimizer = self._optimizer()
        self.optimizers = {"optimizer": self.optimizer}
        self.adversary: Adversary | None = None
        if config.adversarial.start is not None:
            # Seeded apart: a run without discriminators starts from the same codec.
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(config.seed + 1)
                self.adversary = Adversary(
                    config.adversarial, config.seed, config.precision == "bf16"
                )
            self.modules["adversary"] = self.adversary
            self.optimizers["adversary_optimizer"] = torch.optim.AdamW(
                self.adversary.parameters(),
                lr=config.adversarial.learning_rate,
                betas=(0.8, 0.99),
                weight_decay=config.adversarial.weight_decay,
                fused=True,
            )
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
        decoded, terms, figures = self.objective.decode(batch, codec)
        heard, more = self._heard(decoded, step)
        return {**heard, **terms}, {**figures, **more}

    def _heard(
        self, decoded: Decoded, step: int | None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Terms and figures of decoded waves, those from outside among them."""
        terms, figures = self.objective.heard(decoded.wav, decoded.batch, step)
        if self.extra_loss is not None and step is not None:
            extra = self.extra_loss(decoded.wav, decoded.batch)
            terms.update({f"extra_{k}": v for k, v in extra.items()})
            figures.update({f"extra_{k}": v.detach() for k, v in extra.items()})
        return terms, figures

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
        decoded, told, figures = self.objective.decode(batch, self.codec, config.rates)
        adversary = self.adversary
        judged = adversary is not None and adversary.learns_at(self.step)
        # What discriminators add, and what is balanced, is a gradient at the waves: there the
        # graph of the other losses ends.
        split = judged or self.balancer is not None
        leaf = decoded.wav.detach().requires_grad_() if split else decoded.wav
        heard, more = self._heard(decoded._replace(wav=leaf), self.step)
        figures.update(more)
        terms = {**heard, **told}
        total = torch.stack(list(terms.values())).sum()
        if not bool(torch.isfinite(total)):
            bad = [name for name, value in terms.items() if not bool(torch.isfinite(value))]
            raise TrainingError(
                f"the loss of step {self.step} is not finite (terms {bad}); no weight was "
                "changed: lower learning_rate and resume"
            )
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        if split:
            gradient = self._gradient_at(leaf, heard)
            if judged:
                added, own_figures = self._judge(leaf, decoded.batch, gradient)
                figures.update(own_figures)
                gradient = gradient if added is None else gradient + added
            rest = torch.stack(list(told.values())).sum()
            torch.autograd.backward([decoded.wav, rest], [gradient, None])
        else:
            total.backward()
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = nn.utils.clip_grad_norm_(parameters, config.clip_norm)
        if not bool(torch.isfinite(norm)):
            raise TrainingError(
                f"the gradient of step {self.step} is not finite though its loss is; no weight was "
                "changed: lower learning_rate and resume"
            )
        self.optimizer.step()
        if judged:
            self.optimizers["adversary_optimizer"].step()
        decay = min(config.ema_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            averaged: list[Tensor] = [*self.ema.parameters()]
            live: list[Tensor] = [*self.codec.parameters()]
            torch._foreach_lerp_(averaged, live, 1 - decay)
            # Codebooks that follow moving averages are buffers, and averages already.
            for own, other in zip(
                self.ema.quantizer.buffers(), self.codec.quantizer.buffers(), strict=True
            ):
                own.copy_(other)
        self.step += 1
        return {
            "loss": float(total.detach()),
            "gradient_norm": float(norm),
            "learning_rate": rate,
            **{name: float(value) for name, value in figures.items()},
        }

    def _gradient_at(self, wav: Tensor, heard: dict[str, Tensor]) -> Tensor:
        """Gradient by the waves of all terms on them, balanced if the run says so."""
        if self.balancer is None:
            (gradient,) = torch.autograd.grad(torch.stack(list(heard.values())).sum(), wav)
            return gradient
        weights = {name: getattr(self.config.loss, name) for name in self.balancer.names}
        own = {name: heard[name] for name in self.balancer.names}
        others = [value for name, value in heard.items() if name not in own]
        gradient = self.balancer(own, weights, wav)
        if others:  # terms from outside come with their weight
            gradient = gradient + torch.autograd.grad(torch.stack(others).sum(), wav)[0]
        return gradient

    def _judge(
        self, wav: Tensor, batch: Batch, gradient: Tensor
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Gradient of the discriminators; returns that of the codec by ``wav``, and figures."""
        assert self.adversary is not None
        config = self.config.adversarial
        added, loss, figures = self.adversary(wav, batch.wav, gradient, self.step)
        loss.backward()
        optimizer = self.optimizers["adversary_optimizer"]
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * self.config.decay_at(self.step)
        norm = nn.utils.clip_grad_norm_(self.adversary.parameters(), config.clip_norm)
        if not bool(torch.isfinite(norm)) or (
            added is not None and not bool(torch.isfinite(added).all())
        ):
            raise TrainingError(
                f"the gradient of the discriminators at step {self.step} is not finite; no weight "
                "was changed: lower adversarial.learning_rate and resume"
            )
        return added, {**figures, "adversarial_gradient_norm": norm}

    @torch.no_grad()
    def evaluate(self, batches: int = 4) -> dict[str, float]:
        """Loss terms of the averaged weights on fixed dev crops, by stage count."""
        assert self.dev is not None
        crops = [self.dev.batch(index, stream=1) for index in range(batches)]
        out: dict[str, float] = self.objective.leakage(crops, self.ema)
        top = self.config.codec.quantizer.num_stages
        for stages in (count for count in _DEV_STAGES if count <= top):
            sums: dict[str, float] = {}
            for crop in crops:
                batch = crop._replace(
                    stages=torch.full_like(crop.stages, stages),
                    use_true_f0=torch.zeros_like(crop.use_true_f0),
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
        return save_checkpoint(self.folder, self.step, self.modules, self.optimizers, record)

    def resume(self) -> bool:
        """Continue from the newest checkpoint of the run folder; False if there is none."""
        path = latest_checkpoint(self.folder)
        if path is None:
            return False
        optional = ("adversary", "adversary_optimizer", "balancer")
        record = load_checkpoint(path, self.modules, self.optimizers, optional)
        self.step, self.seconds = int(record["step"]), float(record["seconds"])
        return True

    def start_from(self, weights: str | Path) -> None:
        """Take the codec of a pretrained folder or shipped name as the start of a new run.

        Raises:
            ValueError: if its configuration is not that of this run.
        """
        codec = AffectCodec.from_pretrained(weights)
        if codec.config.hash != self.config.codec.hash:
            raise ValueError(
                f"weights: {weights} is codec {codec.config.hash}, this run trains "
                f"{self.config.codec.hash}; set TrainConfig.codec to that of the weights"
            )
        for module in (self.codec, self.ema):
            module.load_state_dict(codec.state_dict())

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
