# SPDX-License-Identifier: Apache-2.0
"""What is trained, and one step of it; ``run_loop`` repeats the step."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from affectcodec.codec import AffectCodec
from affectcodec.nn.causal import CausalConvNeXt
from affectcodec.nn.quantizer_start import start_from
from affectcodec.nn.snake import SnakeStack
from affectcodec.training.adversarial import Adversary
from affectcodec.training.batches import Batch, BatchSource
from affectcodec.training.breakdown import StepTimer
from affectcodec.training.cache import ClipCache
from affectcodec.training.config import TrainConfig
from affectcodec.training.data_loader import Loader, TrainData
from affectcodec.training.data_report import DataReport
from affectcodec.training.distributed import Pass, World, spread, unsynchronised, whole
from affectcodec.training.guard import Guard
from affectcodec.training.guard import TrainingError as TrainingError
from affectcodec.training.losses import GradientBalancer
from affectcodec.training.networks import for_training
from affectcodec.training.objective import Decoded, Objective
from affectcodec.training.resumable import Resumable
from affectcodec.training.teachers import EmbeddingStore, WaveTeacher

_DEV_STAGES = (1, 2, 4, 8)


class Trainer(Resumable):
    """Trains a codec from a clip cache.

    Args:
        config: the run.
        train, dev: clip caches; either may be None, ``train`` only if there are shards.
        folder: run folder; holds ``config.json``, checkpoints, TensorBoard events.
        extra_loss: place of further losses (adversarial training): called in every training step
            with the decoded wave ``[B, N]`` and the batch, returns named terms, already weighted.
            They are added to the total and logged as ``extra_NAME``; evaluation leaves them out.
        embeddings: a teacher's embeddings of the training clips, for ``loss.teacher``.
        teacher: the teacher itself, for ``loss.cycle_teacher``.
        shards: further corpora that are read as streams of tar shards.
        world: the process among others of the run.
        report: takes what is found wrong with the data.
    """

    def __init__(
        self,
        config: TrainConfig,
        train: ClipCache | None,
        dev: ClipCache | None,
        folder: str | Path,
        *,
        extra_loss: Callable[[Tensor, Batch], dict[str, Tensor]] | None = None,
        embeddings: EmbeddingStore | None = None,
        teacher: WaveTeacher | None = None,
        shards: Mapping[str, Sequence[str]] | None = None,
        world: World | None = None,
        report: DataReport | None = None,
    ) -> None:
        self.config = config
        self.folder = Path(folder)
        self.world = world or World()
        self.report = report if report is not None else DataReport()
        self.data = TrainData(train, dict(shards or {}), embeddings)
        if config.batch_size % (self.world.size * config.scale.accumulate):
            raise ValueError(
                f"batch_size: {config.batch_size} crops cannot be shared by {self.world.size} "
                f"processes times {config.scale.accumulate} parts (scale.accumulate)"
            )
        if config.codec.quantizer.kind == "rvq" and self.world.size > 1:
            raise ValueError(
                "quantizer.kind: codebooks of 'rvq' follow the clips of one process; train that "
                f"baseline in one process, not in {self.world.size}"
            )
        self.loader: Loader | None = None
        self.loader_state: dict[str, Any] = {}
        self.dev = BatchSource(dev, config) if dev is not None else None
        self.extra_loss = extra_loss
        torch.manual_seed(config.seed)
        self.codec = AffectCodec(config.codec)
        self.emotion_head = Objective.head_for(config, 0 if embeddings is None else embeddings.dim)
        self.ema = copy.deepcopy(self.codec).requires_grad_(False).eval()
        for_training(
            self.codec,
            low_precision=config.precision == "bf16",
            recompute=config.scale.recompute,
        )
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
        self.adversary: Adversary | None = None
        if config.adversarial.start is not None:
            # Seeded apart: a run without discriminators starts from the same codec.
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(config.seed + 1)
                self.adversary = Adversary(
                    config.adversarial, config.seed, config.precision == "bf16"
                )
            self.modules["adversary"] = self.adversary
        for module in self.modules.values():
            module.to(self.world.device)
        self.objective.to(self.world.device)
        trained = {"codec": self.codec, "emotion_head": self.emotion_head}
        self._generate = spread(Pass(trained, self._decode), self.world, shard=config.scale.shard)
        # Made after spreading: sharding replaces the parameters.
        self.optimizer = self._optimizer()
        self.optimizers = {"optimizer": self.optimizer}
        self._oppose: nn.Module | None = None
        if self.adversary is not None:
            self._oppose = spread(Pass({"adversary": self.adversary}, self.adversary), self.world)
            self.optimizers["adversary_optimizer"] = torch.optim.AdamW(
                self.adversary.parameters(),
                lr=config.adversarial.learning_rate,
                betas=(0.8, 0.99),
                weight_decay=config.adversarial.weight_decay,
                fused=True,
            )
        self.step = 0
        self.seconds = 0.0
        self.guard = Guard(config.guard)
        self.timer = StepTimer(self.world.device)
        self.timer.watch(self.codec)
        self.timed = True
        if config.scale.compile:
            for module in self.codec.modules():
                if isinstance(module, CausalConvNeXt | SnakeStack):
                    module.compile()

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

    def _decode(self, batch: Batch) -> tuple[Decoded, dict[str, Tensor], dict[str, Tensor]]:
        config = self.config
        return self.objective.decode(
            batch,
            self.codec,
            config.rates,
            told_rates=config.told_rates,
            quantized=self.step >= config.quantizer_warmup,
        )

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

    @functools.cached_property
    def source(self) -> BatchSource:
        """Any batch of prepared clips, without moving on."""
        return BatchSource(
            self.data.cache,
            self.config,
            rank=self.world.rank,
            world=self.world.size,
            embeddings=self.data.embeddings,
        )

    def next_batch(self) -> Batch:
        """This process's share of the batch of the step."""
        if self.loader is None:
            self.loader = Loader(
                self.data,
                self.config,
                self.report,
                start=self.step + self.guard.offset,
                rank=self.world.rank,
                world=self.world.size,
                state=self.loader_state,
                device=self.world.device,
            )
        batch = self.loader.next()
        self.loader_state = self.loader.state()
        return batch

    def train_step(self) -> dict[str, float]:
        """One optimizer step; returns its figures, those of this process's share of the batch but
        for the loss and the norms, which are of the whole batch.

        Raises:
            TrainingError: if the loss is not finite.
        """
        config = self.config
        rate = config.learning_rate_at(self.step) * self.guard.learning_rate
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.timer.start(self.timed)
        batch = self.next_batch()
        self.timer.mark("data")
        if config.quantizer_warmup and self.step == config.quantizer_warmup:
            self._start_quantizer(batch)
        if config.scale.shard:
            self.codec.quantizer.refold()  # gathered weights lie where those of the last step lay
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        parts = config.scale.accumulate
        rows = len(batch.wav) // parts
        figures: dict[str, Tensor] = {}
        for part in range(parts):
            piece = batch if parts == 1 else batch.rows(part * rows, (part + 1) * rows)
            found = self._part(piece, 1 / parts, last=part == parts - 1)
            for name, value in found.items():
                figures[name] = value if parts == 1 else figures.get(name, 0) + value / parts
        loss = self.world.mean(float(figures.pop("loss")))[0]
        judged = self.adversary is not None and self.adversary.learns_at(self.step)
        norms = {"gradient_norm": self._clipped("optimizer", config.clip_norm)}
        if judged:
            clip = config.adversarial.clip_norm
            norms["adversarial_gradient_norm"] = self._clipped("adversary_optimizer", clip)
            for group in self.optimizers["adversary_optimizer"].param_groups:
                factor = config.decay_at(self.step) * self.guard.learning_rate
                group["lr"] = config.adversarial.learning_rate * factor
        self.optimizer.step()
        if judged:
            self.optimizers["adversary_optimizer"].step()
        decay = min(config.ema_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            averaged: list[Tensor] = [*self.ema.parameters()]
            live: list[Tensor] = [whole(p) for p in self.codec.parameters()]
            torch._foreach_lerp_(averaged, live, 1 - decay)
            # Codebooks that follow moving averages are buffers, and averages already.
            for own, other in zip(
                self.ema.quantizer.buffers(), self.codec.quantizer.buffers(), strict=True
            ):
                own.copy_(other)
        self.timer.mark("optimizer")
        self.timer.end()
        self.step += 1
        return {
            "loss": loss,
            **norms,
            "learning_rate": rate,
            **{name: float(value) for name, value in figures.items()},
        }

    @torch.no_grad()
    def _start_quantizer(self, batch: Batch) -> None:
        """The quantizer, and its average, from the latents of a batch."""
        latent = self.codec.encoder(nn.functional.pad(batch.wav, (0, self.objective.hop)))
        start_from(self.codec.quantizer, latent.flatten(0, 1))
        for own, other in zip(
            self.ema.quantizer.parameters(), self.codec.quantizer.parameters(), strict=True
        ):
            own.copy_(other)
        self.ema.quantizer.refold()

    def _part(self, batch: Batch, share: float, *, last: bool) -> dict[str, Tensor]:
        """Gradients of one part of a batch, times its share; returns the figures."""
        adversary = self.adversary
        judged = adversary is not None and adversary.learns_at(self.step)
        with unsynchronised(self._generate, not last):
            decoded, told, figures = self._generate(batch)
            # What discriminators add, and what is balanced, is a gradient at the waves: there the
            # graph of the other losses ends.
            split = judged or self.balancer is not None
            leaf = decoded.wav.detach().requires_grad_() if split else decoded.wav
            heard, more = self._heard(decoded._replace(wav=leaf), self.step)
            figures.update(more)
            terms = {**heard, **told}
            total = torch.stack(list(terms.values())).sum()
            figures["loss"] = total.detach()
            bad = [name for name, value in terms.items() if not bool(torch.isfinite(value))]
            # One process with a bad loss is enough for all to stop, at the same place.
            if self.world.agree(float(not bool(torch.isfinite(total))))[0]:
                raise TrainingError(
                    f"the loss of step {self.step} is not finite (terms {bad}); no weight was "
                    "changed: lower learning_rate and resume"
                )
            self.timer.mark("losses")
            if split:
                gradient = self._gradient_at(leaf, heard)
                self.timer.mark("losses")
                if judged:
                    added, own_figures = self._judge(leaf, decoded.batch, gradient, share, last)
                    figures.update(own_figures)
                    gradient = gradient if added is None else gradient + added
                    self.timer.mark("discriminators")
                rest = torch.stack(list(told.values())).sum()
                torch.autograd.backward([decoded.wav, rest * share], [gradient * share, None])
            else:
                (total * share).backward()
        self.timer.mark("encoder")
        return figures

    def _clipped(self, name: str, limit: float) -> float:
        """Norm of the gradients of an optimizer, which are clipped to ``limit``."""
        parameters = [p for group in self.optimizers[name].param_groups for p in group["params"]]
        norm = float(whole(nn.utils.clip_grad_norm_(parameters, limit)))
        if not math.isfinite(norm):
            whose, rate = "the gradient", "learning_rate"
            if name != "optimizer":
                whose, rate = "the discriminators' gradient", "adversarial.learning_rate"
            raise TrainingError(
                f"{whose} of step {self.step} is not finite though its loss is; no weight was "
                f"changed: lower {rate} and resume"
            )
        return norm

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
        self, wav: Tensor, batch: Batch, gradient: Tensor, share: float, last: bool
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Gradient of the discriminators; returns that of the codec by ``wav``, and figures."""
        assert self._oppose is not None
        with unsynchronised(self._oppose, not last):
            added, loss, figures = self._oppose(wav, batch.wav, gradient, self.step)
            (loss * share).backward()
        return added, figures

    @torch.no_grad()
    def evaluate(self, batches: int = 4) -> dict[str, float]:
        """Loss terms of the averaged weights on fixed dev crops, by stage count."""
        assert self.dev is not None
        crops = [self.dev.batch(i, stream=1).to(self.world.device) for i in range(batches)]
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

    def close(self) -> None:
        """End the processes that make batches."""
        if self.loader is not None:
            self.loader.close()
            self.loader = None

    def run(self, *, progress: bool = True) -> None:
        """Train to ``config.steps``; Ctrl-C and SIGTERM save a checkpoint and return."""
        from affectcodec.training.run_loop import run

        run(self, progress=progress)
