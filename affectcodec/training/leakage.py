# SPDX-License-Identifier: Apache-2.0
"""Leakage probe: how much of the spectrum a linear map finds in the emotion codes.

The emotion block is reserved for affect. If the reconstruction loss fills it with spectral detail,
a linear regression from its digits to the log-mel spectrum explains more variance.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from affectcodec.config import BDRFSQConfig
from affectcodec.ops import fsq
from affectcodec.training.losses.spectral import mel_filters
from affectcodec.training.spectrogram import magnitude

_MEL_BANDS = 80


class LogMel(nn.Module):
    """Natural log of 80 mel magnitudes, one row a codec frame: what the probe predicts."""

    window: Tensor
    filters: Tensor

    def __init__(self, sample_rate: int, hop: int) -> None:
        super().__init__()
        self.hop = hop
        size = 4 * hop
        self.register_buffer("window", torch.hann_window(size), persistent=False)
        filters = mel_filters(sample_rate, size, _MEL_BANDS)
        self.register_buffer("filters", filters / filters.sum(0).clamp(min=1e-3), persistent=False)

    def forward(self, wav: Tensor) -> Tensor:
        """``wav [B, (T - 1) * hop]`` to ``[B, T, 80]``."""
        amplitude = magnitude(wav, self.window, self.hop) / self.hop
        return torch.log(torch.matmul(amplitude, self.filters) + 2e-5)


def block_values(tokens: Tensor, config: BDRFSQConfig) -> dict[str, Tensor]:
    """Values in [-1, 1] of all digits of each block, ``[B, T, K * code_dim]`` of tokens
    ``[B, K, T]``."""
    out = {}
    for block in config.blocks:
        code = tokens // config.token_bases()[block.name] % block.codebook_size
        levels = torch.tensor(block.levels, dtype=torch.float32, device=tokens.device)[:, None]
        values = fsq.grid_values(fsq.unpack_digits(code, block.levels), levels)
        out[block.name] = values.flatten(1, 2).transpose(1, 2)
    return out


def linear_r2(inputs: Tensor, targets: Tensor, ridge: float = 1e-2) -> float:
    """Variance of ``targets [N, M]`` that ridge regression on ``inputs [N, D]`` explains.

    The first half of the rows fits, the second half judges; the mean over targets, in float64,
    never below 0. Targets without variance do not count.

    Raises:
        ValueError: if the two have different rows, or fewer than 4.
    """
    if inputs.ndim != 2 or targets.ndim != 2 or len(inputs) != len(targets) or len(inputs) < 4:
        raise ValueError(
            f"linear_r2: wanted [N, D] and [N, M] with N of at least 4, got {tuple(inputs.shape)} "
            f"and {tuple(targets.shape)}"
        )
    x, y = inputs.double(), targets.double()
    half = len(x) // 2
    x = torch.cat([x, torch.ones_like(x[:, :1])], 1)
    fit_x, fit_y, test_x, test_y = x[:half], y[:half], x[half:], y[half:]
    gram = fit_x.T @ fit_x + ridge * half * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    solution = torch.linalg.solve(gram, fit_x.T @ fit_y)
    error = (test_y - test_x @ solution).square().mean(0)
    variance = (test_y - test_y.mean(0)).square().mean(0)
    live = variance > 1e-12
    if not bool(live.any()):
        return 0.0
    return max(0.0, float((1 - error[live] / variance[live]).mean()))
