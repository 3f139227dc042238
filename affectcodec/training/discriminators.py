# SPDX-License-Identifier: Apache-2.0
"""Discriminators of adversarial training: multi-period waves and multi-resolution spectra."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from affectcodec.training.config import DiscriminatorConfig
from affectcodec.training.distributed import shared_mean
from affectcodec.training.spectrogram import spectrum

_SLOPE = 0.1
_FLOOR = 1e-2  # power of a bin, of waves of unit RMS, below which spectra are not compressed


class Judgement(NamedTuple):
    """What one discriminator says: ``score`` (any shape with batch first) and its feature maps."""

    score: Tensor
    features: list[Tensor]


class _ConvStack(nn.Module):
    """Strided convolutions with leaky ReLU, and a score map of one channel."""

    def __init__(
        self,
        in_channels: int,
        channels: Sequence[int],
        kernels: Sequence[tuple[int, int]],
        strides: Sequence[tuple[int, int]],
    ) -> None:
        super().__init__()
        widths = [in_channels, *channels]
        self.layers = nn.ModuleList(
            weight_norm(
                nn.Conv2d(
                    widths[i], widths[i + 1], kernels[i], strides[i], _same_padding(kernels[i])
                )
            )
            for i in range(len(channels))
        )
        last = kernels[-1]
        self.score = weight_norm(nn.Conv2d(widths[-1], 1, last, padding=_same_padding(last)))

    def forward(self, x: Tensor) -> Judgement:
        x = x.contiguous(memory_format=torch.channels_last)
        features = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), _SLOPE)
            features.append(x)
        return Judgement(self.score(x), features)


def _same_padding(kernel: tuple[int, int]) -> tuple[int, int]:
    return kernel[0] // 2, kernel[1] // 2


class PeriodDiscriminator(nn.Module):
    """A wave folded at one period, judged along time alone (HiFi-GAN, arXiv 2010.05646)."""

    def __init__(self, period: int, channels: Sequence[int]) -> None:
        super().__init__()
        self.period = period
        count = len(channels)
        strides = [(3, 1)] * (count - 1) + [(1, 1)]
        self.stack = _ConvStack(1, channels, [(5, 1)] * count, strides)

    def forward(self, wav: Tensor) -> Judgement:
        """``wav [B, N]``; the score is ``[B, 1, frames, period]``."""
        missing = -wav.shape[1] % self.period
        folded = F.pad(wav, (0, missing)).unflatten(1, (-1, self.period))
        return self.stack(folded[:, None])


class SpectrumDiscriminator(nn.Module):
    """Complex spectra at one resolution (after EnCodec, arXiv 2210.13438).

    Magnitudes are compressed by a power, so that a few hundred thousand weights see the weak upper
    bands and not the strong low ones alone.
    """

    window: Tensor

    def __init__(self, size: int, channels: Sequence[int], compression: float) -> None:
        super().__init__()
        self.hop = size // 4
        self.compression = compression
        self.register_buffer("window", torch.hann_window(size), persistent=False)
        count = len(channels)
        kernels = [(3, 5)] * (count - 1) + [(3, 3)]
        strides = [(1, 2)] * (count - 1) + [(1, 1)]
        self.stack = _ConvStack(2, channels, kernels, strides)

    def forward(self, wav: Tensor) -> Judgement:
        """``wav [B, N]``; the score is ``[B, 1, frames, bands]``."""
        with torch.autocast(wav.device.type, enabled=False):
            x = torch.view_as_real(spectrum(wav.float(), self.window, self.hop))
            power = x.square().sum(-1, keepdim=True)
            x = x * (power + _FLOOR).pow((self.compression - 1) / 2)
        return self.stack(x.permute(0, 3, 1, 2))


class Discriminators(nn.Module):
    """All discriminators of a configuration.

    Args:
        config: periods, window sizes and channels; either kind may be left out, not both.
    """

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        members: list[nn.Module] = [
            PeriodDiscriminator(period, config.period_channels) for period in config.periods
        ]
        members += [
            SpectrumDiscriminator(size, config.spectrum_channels, config.compression)
            for size in config.spectrum_sizes
        ]
        self.names = [f"period_{period}" for period in config.periods]
        self.names += [f"spectrum_{size}" for size in config.spectrum_sizes]
        self.members = nn.ModuleList(members)

    def forward(self, wav: Tensor) -> list[Judgement]:
        """Judgements of ``wav [B, N]``, in the order of ``names``."""
        return [member(wav) for member in self.members]


def discriminator_loss(real: Sequence[Judgement], fake: Sequence[Judgement], kind: str) -> Tensor:
    """Mean loss of the discriminators, ``"hinge"`` or least squares (``"lsgan"``)."""
    total = real[0].score.new_zeros((), dtype=torch.float32)
    for a, b in zip(real, fake, strict=True):
        true, false = a.score.float(), b.score.float()
        if kind == "hinge":
            total = total + F.relu(1 - true).mean() + F.relu(1 + false).mean()
        else:
            total = total + (1 - true).square().mean() + false.square().mean()
    return total / len(real)


def generator_loss(fake: Sequence[Judgement], kind: str) -> Tensor:
    """Mean loss of what tries to be judged real."""
    total = fake[0].score.new_zeros((), dtype=torch.float32)
    for judgement in fake:
        score = judgement.score.float()
        total = total + (-score.mean() if kind == "hinge" else (1 - score).square().mean())
    return total / len(fake)


def feature_loss(real: Sequence[Judgement], fake: Sequence[Judgement]) -> Tensor:
    """Feature matching: L1 distance of every feature map over the mean magnitude of the real one.

    The real maps are constants.
    """
    distances, sizes = [], []
    for a, b in zip(real, fake, strict=True):
        for want, got in zip(a.features, b.features, strict=True):
            want = want.detach()
            distances.append(F.l1_loss(got, want).float())
            sizes.append(want.abs().mean().float())
    size = shared_mean(torch.stack(sizes)).clamp(min=1e-3)
    return (torch.stack(distances) / size).mean()
