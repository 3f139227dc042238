# SPDX-License-Identifier: Apache-2.0
"""Short-time spectra for losses and discriminators, with a backward of their own.

``torch.stft`` differentiates a real transform through a complex one of full length and scatters the
frames back one element at a time. Here the adjoint is a real inverse transform and a sum of shifted
frames; forward and backward together take a third of the time on a CPU.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def _frames(wav: Tensor, size: int, hop: int) -> Tensor:
    """Centred frames ``[B, 1 + N // hop, size]``, zeros beyond both ends."""
    return F.pad(wav, (size // 2, size // 2)).unfold(1, size, hop)


def _adjoint(gradient: Tensor, window: Tensor, hop: int, length: int) -> Tensor:
    """Adjoint of framing, windowing and the real transform: ``[B, T, bins] -> [B, length]``."""
    size = len(window)
    # irfft counts inner bins twice and divides by the size; the adjoint does neither.
    scale = torch.full((size // 2 + 1,), size / 2, dtype=window.dtype, device=window.device)
    scale[0] = scale[-1] = size
    pieces = torch.fft.irfft(gradient * scale, size) * window
    batch, count, _ = pieces.shape
    spans = size // hop
    parts = pieces.reshape(batch, count, spans, hop)
    out = pieces.new_zeros(batch, count + spans - 1, hop)
    for i in range(spans):
        out[:, i : i + count] += parts[:, :, i]
    flat = out.reshape(batch, -1)[:, size // 2 :]
    return F.pad(flat, (0, max(0, length - flat.shape[1])))[:, :length]


class _Spectrum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, wav: Tensor, window: Tensor, hop: int) -> Tensor:
        ctx.save_for_backward(window)
        ctx.hop, ctx.length = hop, wav.shape[1]
        return torch.fft.rfft(_frames(wav, len(window), hop) * window)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (window,) = ctx.saved_tensors
        return _adjoint(gradients[0], window, ctx.hop, ctx.length), None, None


class _Magnitude(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, wav: Tensor, window: Tensor, hop: int, floor: float) -> Tensor:
        spectrum = torch.fft.rfft(_frames(wav, len(window), hop) * window)
        # The floor is added to the power under the root in quadrature: sqrt(|X|^2 + floor).
        magnitude = torch.sqrt(torch.addcmul(spectrum.imag.square(), *[spectrum.real] * 2) + floor)
        ctx.save_for_backward(spectrum, magnitude, window)
        ctx.hop, ctx.length = hop, wav.shape[1]
        return magnitude

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        spectrum, magnitude, window = ctx.saved_tensors
        gradient = spectrum * (gradients[0] / magnitude)
        return _adjoint(gradient, window, ctx.hop, ctx.length), None, None, None


def _check(wav: Tensor, window: Tensor, hop: int) -> None:
    if wav.ndim != 2 or not wav.dtype.is_floating_point:
        raise ValueError(f"wav: wanted float [B, N], got {wav.dtype} {tuple(wav.shape)}")
    size = len(window)
    if hop < 1 or size % 2 or size % hop:
        raise ValueError(f"hop: wanted a divisor of the even window size {size}, got {hop}")


def spectrum(wav: Tensor, window: Tensor, hop: int) -> Tensor:
    """Complex spectra of centred frames, as ``torch.stft`` with constant padding.

    Args:
        wav: float32 or float64 ``[B, N]``.
        window: ``[n_fft]``, of even length, a multiple of ``hop``.

    Returns:
        ``[B, 1 + N // hop, n_fft / 2 + 1]``, once differentiable.

    Raises:
        ValueError: on a wave of another shape, or a hop that does not divide the window.
    """
    _check(wav, window, hop)
    return _Spectrum.apply(wav, window, hop)


def magnitude(wav: Tensor, window: Tensor, hop: int, floor: float = 1e-12) -> Tensor:
    """``sqrt(|X|^2 + floor)`` of :func:`spectrum`, real and once differentiable."""
    _check(wav, window, hop)
    return _Magnitude.apply(wav, window, hop, floor)
