# SPDX-License-Identifier: Apache-2.0
"""Voice quality and energy of each frame, differentiable by the wave.

One computation serves twice: on true audio it makes the targets of the emotion head, on decoded
audio it makes the same figures with a gradient, so that what was encoded must come back.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from affectcodec.training.batches import frame_log_energy
from affectcodec.training.spectrogram import magnitude

_LOW_HZ, _HIGH_HZ = 100.0, 7000.0
_POWER_FLOOR = 1e-7  # of a frame, about -60 dBFS broadband: below it tilt is that of the floor


class Descriptors(NamedTuple):
    """Each ``[B, T]`` but ``salience [B, T, lags]``.

    ``log_energy`` natural log RMS; ``tilt`` slope of the log amplitude spectrum in nepers an
    octave; ``harmonicity`` log odds of the periodic share of the power, at the given F0;
    ``salience`` normalised autocorrelation over all lags of the pitch range.
    """

    log_energy: Tensor
    tilt: Tensor
    harmonicity: Tensor
    salience: Tensor


class FrameDescriptors(nn.Module):
    """Descriptors of windows of three longest periods, centred on the frames.

    Autocorrelation is that of a tapered window over that of the taper (Boersma 1993), which is one
    at the period of a periodic sound whatever the lag.
    """

    window: Tensor
    taper: Tensor
    bands: Tensor
    slope: Tensor

    def __init__(self, sample_rate: int, hop: int, f0_min: float, f0_max: float) -> None:
        super().__init__()
        self.sample_rate, self.hop = sample_rate, hop
        size = hop * max(2, math.ceil(3 * sample_rate / f0_min / hop))
        hann = torch.hann_window(size, dtype=torch.float64)
        # Zeros on both sides, so that the circular correlation is the linear one.
        self.register_buffer("window", F.pad(hann, (size // 2, size // 2)).float(), False)
        self.first_lag = int(sample_rate / f0_max)
        lags = torch.arange(self.first_lag, int(sample_rate / f0_min) + 2)
        taper = torch.fft.irfft(torch.fft.rfft(hann, 2 * size).abs().square())
        self.register_buffer("taper", (taper[lags] / taper[0]).float(), False)
        self.energy = float(hann.square().sum())
        high = min(_HIGH_HZ, 0.45 * sample_rate)
        count = max(4, round(3 * math.log2(high / _LOW_HZ)))
        centres = _LOW_HZ * 2 ** (torch.arange(count, dtype=torch.float64) / 3)
        hz = torch.linspace(0, sample_rate / 2, size + 1, dtype=torch.float64)[:, None]
        inside = (hz >= centres * 2 ** (-1 / 6)) & (hz < centres * 2 ** (1 / 6))
        bands = inside.double() / inside.sum(0).clamp(min=1)
        self.register_buffer("bands", bands.float(), False)
        octave = torch.log2(centres) - torch.log2(centres).mean()
        self.register_buffer("slope", (octave / octave.square().sum()).float(), False)

    def forward(self, wav: Tensor, log_f0: Tensor) -> Descriptors:
        """``wav [B, (T - 1) * hop]``, ``log_f0 [B, T]`` (natural log of Hz)."""
        power = magnitude(wav, self.window, self.hop).square() / self.energy
        log_bands = 0.5 * torch.log(torch.matmul(power, self.bands) + _POWER_FLOOR)
        tilt = torch.matmul(log_bands, self.slope)
        correlation = torch.fft.irfft(
            power.to(torch.complex64 if power.dtype == torch.float32 else torch.complex128)
        )
        span = slice(self.first_lag, self.first_lag + len(self.taper))
        # Noise at the floor makes silence aperiodic instead of undefined.
        total = correlation[..., :1] + _POWER_FLOOR
        salience = correlation[..., span] / total / self.taper
        lag = self.sample_rate * torch.exp(-log_f0) - self.first_lag
        lag = lag.clamp(0, len(self.taper) - 1.001)
        low = lag.floor().long()
        share = (lag - low)[..., None]
        near = salience.gather(2, torch.stack([low, low + 1], -1))
        peak = near[..., :1] * (1 - share) + near[..., 1:] * share
        peak = peak[..., 0].clamp(0.02, 0.98)
        return Descriptors(
            frame_log_energy(wav, self.hop), tilt, torch.log(peak / (1 - peak)), salience
        )
