# SPDX-License-Identifier: Apache-2.0
"""Reconstruction losses on spectra: mel, spectral convergence, band envelopes, loudness."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from affectcodec.training.config import ENVELOPE_HOP, ENVELOPE_SPAN
from affectcodec.training.distributed import shared_count
from affectcodec.training.spectrogram import magnitude

_LOG_FLOOR = 2e-5


def mel_filters(sample_rate: int, n_fft: int, bands: int) -> Tensor:
    """Triangular mel filters ``[n_fft / 2 + 1, bands]`` (HTK mel scale, unit peak)."""

    def mel(hz: float) -> float:
        return 2595 * math.log10(1 + hz / 700)

    edges_mel = torch.linspace(mel(0.0), mel(sample_rate / 2), bands + 2, dtype=torch.float64)
    edges = 700 * (10 ** (edges_mel / 2595) - 1)
    hz = torch.linspace(0, sample_rate / 2, n_fft // 2 + 1, dtype=torch.float64)[:, None]
    rise = (hz - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - hz) / (edges[2:] - edges[1:-1])
    return torch.minimum(rise, fall).clamp(min=0).float()


def third_octave_bands(sample_rate: int, n_fft: int) -> Tensor:
    """0/1 matrix ``[bins, 15]`` of the third-octave bands of STOI (Taal et al. 2011)."""
    hz = torch.linspace(0, sample_rate / 2, n_fft // 2 + 1)
    centres = 150 * 2 ** (torch.arange(15) / 3)
    low, high = centres * 2 ** (-1 / 6), centres * 2 ** (1 / 6)
    return ((hz[:, None] >= low) & (hz[:, None] < high)).float()


def bark_bands(sample_rate: int, n_fft: int, count: int = 42) -> Tensor:
    """0/1 matrix ``[bins, count]`` of bands even in Bark (Traunmueller 1990)."""
    hz = torch.linspace(0, sample_rate / 2, n_fft // 2 + 1, dtype=torch.float64)
    bark = 26.81 * hz / (1960 + hz) - 0.53
    index = ((bark - bark[1]) / (bark[-1] - bark[1]) * count).floor().clamp(0, count - 1)
    return (index[:, None] == torch.arange(count)).float() * (hz[:, None] > 0)


class SpectralLosses(nn.Module):
    """Log-mel distance, spectral convergence, band envelopes and loudness."""

    bands: Tensor
    bark: Tensor

    def __init__(self, sample_rate: int) -> None:
        super().__init__()
        self.resolutions = (
            (256, 64, 32),
            (512, ENVELOPE_HOP, 64),
            (1024, 256, 80),
            (2048, 512, 128),
        )
        for n_fft, _, bands in self.resolutions:
            self.register_buffer(f"window{n_fft}", torch.hann_window(n_fft), persistent=False)
            filters = mel_filters(sample_rate, n_fft, bands)
            filters = filters / filters.sum(0).clamp(min=1e-3)
            self.register_buffer(f"mel{n_fft}", filters, persistent=False)
        bands15 = third_octave_bands(sample_rate, 512)
        self.register_buffer("bands", bands15, persistent=False)
        bark = bark_bands(sample_rate, 512)
        self.register_buffer("bark", bark[:, bark.sum(0) > 0], persistent=False)

    def _magnitude(self, wav: Tensor, n_fft: int, hop: int) -> Tensor:
        window = getattr(self, f"window{n_fft}")
        # Scaled to the amplitude of a sinusoid's half, so that one floor fits all resolutions.
        return magnitude(wav, window, hop) / (n_fft / 4)

    def forward(
        self, prediction: Tensor, target: Tensor, step: int | None = None
    ) -> dict[str, Tensor]:
        """Terms ``mel``, ``spectral``, ``envelope``, ``loudness`` of waves ``[B, N]``.

        With a ``step``, the 512-point resolution and one of the others by turns: all four take
        40 % of a training step on a CPU, and over three steps the gradient sees them all.
        """
        chosen: tuple[tuple[int, int, int], ...] = self.resolutions
        if step is not None:
            others = [r for r in self.resolutions if r[0] != 512]
            chosen = (self.resolutions[1], others[step % len(others)])
        mel = prediction.new_zeros(())
        spectral = prediction.new_zeros(())
        envelope = prediction.new_zeros(())
        loudness = prediction.new_zeros(())
        for n_fft, hop, _ in chosen:
            with torch.no_grad():
                want = self._magnitude(target, n_fft, hop)
                want_mel = torch.matmul(want, getattr(self, f"mel{n_fft}"))
            got = self._magnitude(prediction, n_fft, hop)
            got_mel = torch.matmul(got, getattr(self, f"mel{n_fft}"))
            mel = mel + F.l1_loss(torch.log(got_mel + _LOG_FLOOR), torch.log(want_mel + _LOG_FLOOR))
            scale = want.square().sum((1, 2)).clamp(min=1e-4).sqrt()
            # The small constant keeps the root's gradient finite where both are equal.
            error = (got - want).square().sum((1, 2)) + 1e-12
            spectral = spectral + (error.sqrt() / scale).mean()
            if n_fft == 512:
                envelope = self._envelope(got, want)
                loudness = self._loudness(got, want)
        count = len(chosen)
        return {
            "mel": mel / count,
            "spectral": spectral / count,
            "envelope": envelope,
            "loudness": loudness,
        }

    def _loudness(self, got: Tensor, want: Tensor) -> Tensor:
        """Disturbance of specific loudness, after the idea of PESQ (ITU-T P.862, section 10).

        Zwicker's power law in Bark bands, a masking dead zone of a quarter of the softer of the
        two, and a second term that counts sound which was added more than sound that is missing.
        Relative to the loudness of the clip, so that the level does not matter.
        """
        power_got = torch.matmul(got.square(), self.bark)
        power_want = torch.matmul(want.square(), self.bark)
        # Hearing threshold 50 dB below the mean of the clip's bands.
        threshold = 1e-5 * power_want.mean((1, 2), keepdim=True) + 1e-12

        def zwicker(power: Tensor) -> Tensor:
            return (0.5 + 0.5 * power / threshold).pow(0.23) - 0.5**0.23

        loud_got, loud_want = zwicker(power_got), zwicker(power_want)
        masked = 0.25 * torch.minimum(loud_got, loud_want).detach()
        disturbance = F.relu((loud_got - loud_want).abs() - masked)
        with torch.no_grad():
            floor = 50 * threshold
            ratio = ((power_got + floor) / (power_want + floor)).pow(1.2).clamp(max=12)
            asymmetry = torch.where(ratio < 3, 0.0, ratio)
        scale = loud_want.mean((1, 2)).clamp(min=1e-3)
        symmetric = torch.sqrt(disturbance.square().mean(2) + 1e-8).mean(1)
        added = (asymmetry * disturbance).mean((1, 2))
        return ((symmetric + 0.3 * added) / scale).mean()

    def _envelope(self, got: Tensor, want: Tensor) -> Tensor:
        """One minus the mean correlation of band envelopes over spans of 384 ms."""
        span = ENVELOPE_SPAN

        def bands(x: Tensor) -> Tensor:
            e = torch.sqrt(torch.matmul(x.square(), self.bands) + 1e-10)
            e = e.transpose(1, 2).unfold(2, span, span // 2)  # [B, 15, spans, span]
            return e - e.mean(-1, keepdim=True)

        a, b = bands(got), bands(want)
        power = b.square().sum(-1)
        correlation = (a * b).sum(-1) / torch.sqrt(a.square().sum(-1) * power + 1e-12)
        # Silent spans carry no envelope to match.
        weight = (power > 1e-3 * power.amax((1, 2), keepdim=True)).float()
        return 1 - (correlation * weight).sum() / shared_count(weight.sum())
