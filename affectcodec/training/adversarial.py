# SPDX-License-Identifier: Apache-2.0
"""Adversarial training: what the discriminators learn, and the gradient they give the codec.

One forward pass of the discriminators over real and decoded crops serves both sides: its backward
by the decoded wave is the codec's gradient, its backward by the weights is theirs. Both sides then
take their step at the same time. That saves two of nine passes.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from affectcodec.training.config import AdversarialConfig
from affectcodec.training.discriminators import (
    Discriminators,
    Judgement,
    discriminator_loss,
    feature_loss,
    generator_loss,
)
from affectcodec.training.distributed import local_rows, shared_norm

_NORM_DECAY = 0.99  # of the running norms that balance the gradients


def random_crops(first: Tensor, second: Tensor, length: int, key: tuple[int, ...]) -> Tensor:
    """Start of one crop a clip, int64 ``[B]``; a function of ``key``."""
    batch, total = first.shape
    if second.shape != first.shape:
        raise ValueError(
            f"waves must have one shape, got {tuple(first.shape)} and {tuple(second.shape)}"
        )
    rng = np.random.default_rng(key)
    # Drawn for the clips of all processes, so that it does not matter how many share a batch.
    everyone, first_row = local_rows(batch)
    starts = rng.integers(0, max(1, total - length + 1), everyone)
    return torch.from_numpy(starts[first_row : first_row + batch])


def take_crops(wav: Tensor, starts: Tensor, length: int) -> Tensor:
    """``[B, length]`` of ``wav [B, N]``, from each clip's own start."""
    length = min(length, wav.shape[1])
    index = starts.to(wav.device)[:, None] + torch.arange(length, device=wav.device)
    return wav.gather(1, index)


class Adversary(nn.Module):
    """Discriminators with the schedule, losses and balance of a run.

    Args:
        config: sizes, losses, weights and schedule.
        seed: of the run; crops are a function of it and the step.
        low_precision: run the convolutions in bfloat16.
    """

    norms: Tensor

    def __init__(self, config: AdversarialConfig, seed: int, low_precision: bool) -> None:
        super().__init__()
        self.config, self.seed, self.low_precision = config, seed, low_precision
        self.discriminators = Discriminators(config.discriminators)
        # Running norms of the codec's gradients by the wave: reconstruction, adversarial.
        self.register_buffer("norms", torch.zeros(2))

    def learns_at(self, step: int) -> bool:
        """Whether the discriminators take part in a step."""
        start = self.config.start
        return start is not None and step >= start and (step - start) % self.config.every == 0

    def teaches_at(self, step: int) -> bool:
        """Whether the codec receives their gradient."""
        start = self.config.start
        return start is not None and step >= start + self.config.warmup_steps

    def ramp_at(self, step: int) -> float:
        """Weight of their gradient, rising linearly to 1."""
        if not self.teaches_at(step):
            return 0.0
        assert self.config.start is not None
        done = step - self.config.start - self.config.warmup_steps + 1
        return min(1.0, done / max(1, self.config.ramp_steps))

    def judge(self, wav: Tensor) -> list[Judgement]:
        """All discriminators on ``[B, N]``."""
        if not self.low_precision:
            return self.discriminators(wav)
        with torch.autocast(wav.device.type, torch.bfloat16):
            return self.discriminators(wav)

    def forward(
        self, wav: Tensor, target: Tensor, reconstruction_gradient: Tensor, step: int
    ) -> tuple[Tensor | None, Tensor, dict[str, Tensor]]:
        """Both sides of one step.

        Args:
            wav: decoded waves ``[B, N]``; no gradient leaves through it.
            target: the true waves ``[B, N]``.
            reconstruction_gradient: gradient of all other losses by ``wav``, the measure of the
                balance.
            step: of the run.

        Returns:
            The gradient to add to that of the other losses ``[B, N]`` (None while the codec is not
            taught), the loss of the discriminators, still to be differentiated, and figures.
        """
        config = self.config
        starts = random_crops(wav, target, config.crop_samples, (self.seed, 2, step))
        real = take_crops(target, starts, config.crop_samples)
        # Both are divided by the level of the true crop: loud and quiet speech are one scale.
        level = real.square().mean(1, keepdim=True).sqrt().clamp(min=1e-3)
        leaf = wav.detach().requires_grad_(self.teaches_at(step))
        fake = take_crops(leaf, starts, config.crop_samples) / level
        said_real, said_fake = self.judge(real / level), self.judge(fake)
        loss = discriminator_loss(said_real, said_fake, config.loss)
        figures = {
            "adversarial_discriminator": loss.detach(),
            "adversarial_real": _mean_score(said_real),
            "adversarial_fake": _mean_score(said_fake),
        }
        if not self.teaches_at(step):
            return None, loss, figures
        generator = generator_loss(said_fake, config.loss)
        features = feature_loss(said_real, said_fake)
        wanted = config.generator_weight * generator + config.feature_weight * features
        (gradient,) = torch.autograd.grad(wanted, leaf, retain_graph=True)
        with torch.no_grad():
            covered = take_crops(reconstruction_gradient, starts, config.crop_samples)
            norms = shared_norm(covered.norm()), shared_norm(gradient.norm())
            scale = self._scale(*norms) * self.ramp_at(step)
        figures.update(
            adversarial_generator=generator.detach(),
            adversarial_features=features.detach(),
            adversarial_scale=scale,
        )
        return gradient * scale, loss, figures

    def _scale(self, reconstruction: Tensor, own: Tensor) -> Tensor:
        """Factor of the adversarial gradient: its running norm becomes ``share`` of the other."""
        if self.config.share is None:
            return torch.ones_like(own)
        now = torch.stack([reconstruction, own])
        started = self.norms[1] > 0
        kept = torch.where(started, torch.lerp(now, self.norms, _NORM_DECAY), now)
        self.norms.copy_(kept)
        return self.config.share * kept[0] / kept[1].clamp(min=1e-12)


def _mean_score(judgements: list[Judgement]) -> Tensor:
    return torch.stack([j.score.detach().float().mean() for j in judgements]).mean()
