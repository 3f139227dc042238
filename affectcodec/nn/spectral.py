# SPDX-License-Identifier: Apache-2.0
"""Short-time Fourier analysis and synthesis as plain products.

Both are written with fixed real bases, not with ``torch.stft``: the same code streams, exports and
keeps explicit state. Frame ``t`` of the codec sees samples ``< (t + 1) * hop_length`` only.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from affectcodec.config import PITCH_BINS
from affectcodec.nn.causal import History, StreamState

POWER_FLOOR = 1e-8  # power of 16-bit rounding noise in a 480-sample Hann window


def dft_basis(size: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Real DFT of a windowed frame as ``[size, 2 * bins]``: Hann window, cosines, then sines."""
    n = torch.arange(size, dtype=torch.float64)
    k = torch.arange(size // 2 + 1, dtype=torch.float64)
    phase = 2 * math.pi * torch.outer(n, k) / size
    window = torch.hann_window(size, dtype=torch.float64)[:, None]
    return torch.cat([window * torch.cos(phase), -window * torch.sin(phase)], 1).to(dtype)


def inverse_dft_basis(size: int) -> Tensor:
    """Inverse real DFT times a Hann window as ``[2 * bins, size]``."""
    n = torch.arange(size, dtype=torch.float64)
    k = torch.arange(size // 2 + 1, dtype=torch.float64)
    phase = 2 * math.pi * torch.outer(k, n) / size
    weight = torch.full((size // 2 + 1, 1), 2.0, dtype=torch.float64)
    weight[0] = 1.0
    if size % 2 == 0:
        weight[-1] = 1.0
    window = torch.hann_window(size, dtype=torch.float64)[None, :]
    basis = torch.cat([weight * torch.cos(phase), -weight * torch.sin(phase)], 0) * window / size
    return basis.float()


class WindowedDFT(nn.Module):
    """Hann-windowed real DFT of frames, ``[..., size] -> [..., 2 * bins]``: real, imaginary parts.

    In float64, which it gives. Logarithms follow: in float32 the error of a loud bin is all there
    is in a quiet one beside it, and the latent moved by 2e-4 with the order of summation; in
    float64 by 7e-6. A fast transform in float64 takes a quarter of the time of a product in
    float32.

    ``by_fft`` computes it in the precision of the frames: the same up to float rounding, for
    training, where nothing streams or is exported.
    """

    window: Tensor
    by_fft: bool = False

    def __init__(self, size: int) -> None:
        super().__init__()
        window = torch.hann_window(size, dtype=torch.float64)
        self.register_buffer("window", window, persistent=False)

    def forward(self, frames: Tensor) -> Tensor:
        precision = frames.dtype if self.by_fft else torch.float64
        spectrum = torch.fft.rfft(frames.to(precision) * self.window.to(precision))
        return torch.cat([spectrum.real, spectrum.imag], -1)


class ShortTimeAnalysis(nn.Module):
    """Complex spectra of the windows that belong to each frame.

    Frame ``t`` owns ``hop_length / hop`` windows that start at ``(t - 1) * hop_length`` and every
    ``hop`` samples after it; none reaches beyond ``(t + 1) * hop_length``.
    """

    def __init__(self, hop_length: int, window: int, hop: int) -> None:
        super().__init__()
        self.hop_length, self.window, self.hop = hop_length, window, hop
        self.bins = window // 2 + 1
        self.per_frame = hop_length // hop
        self.history = History(hop_length)
        self.dft = WindowedDFT(window)

    def forward(self, wav: Tensor, state: StreamState | None = None) -> Tensor:
        """``[B, T * hop_length] -> [B, T * per_frame, 2 * bins]`` (real parts, then imaginary).

        In the precision of :class:`WindowedDFT`.
        """
        num = wav.shape[1] // self.hop
        x = self.history(wav, state)
        frames = x[:, : (num - 1) * self.hop + self.window].unfold(1, self.window, self.hop)
        return self.dft(frames)


class BufferAnalysis(nn.Module):
    """Spectra of the windows of each frame, from one buffer of two hops a frame.

    What :class:`ShortTimeAnalysis` does where neighbouring frames do not share samples.
    """

    def __init__(self, hop_length: int, window: int, hop: int) -> None:
        super().__init__()
        self.window, self.hop, self.per_frame = window, hop, hop_length // hop
        self.dft = WindowedDFT(window)

    def forward(self, buffers: Tensor) -> Tensor:
        """``[B, T, 2 * hop_length] -> [B, T * per_frame, 2 * bins]``."""
        frames = buffers.unfold(2, self.window, self.hop)[:, :, : self.per_frame]
        return self.dft(frames.flatten(1, 2)).to(buffers.dtype)


class OverlapAddSynthesis(nn.Module):
    """Inverse of :class:`ShortTimeAnalysis`, one hop of delay.

    ``by_fft`` as of :class:`WindowedDFT`.
    """

    basis: Tensor
    by_fft: bool = False

    def __init__(self, hop_length: int, window: int, hop: int) -> None:
        super().__init__()
        if window % hop or window // hop < 3:
            raise ValueError(
                f"OverlapAddSynthesis: window must be a multiple of hop, at least 3 hops long, "
                f"got window {window}, hop {hop}"
            )
        self.hop_length, self.window, self.hop = hop_length, window, hop
        # Hann analysis and Hann synthesis: the squared windows add up to 3/8 of window / hop.
        self.gain = 3 / 8 * window / hop
        basis = inverse_dft_basis(window) / self.gain
        self.register_buffer("basis", basis, persistent=False)
        self.tail = _OverlapTail(window - hop)

    def forward(self, spectrum: Tensor, state: StreamState | None = None) -> Tensor:
        """``[B, T * per_frame, 2 * bins] -> [B, T * hop_length]``.

        The output of frame ``t`` is the span ``[(t - 1) * hop_length, t * hop_length)``.
        """
        windows = self._fast(spectrum) if self.by_fft else torch.matmul(spectrum, self.basis)
        spans = self.window // self.hop
        parts = windows.unflatten(2, (spans, self.hop))
        shifted = [F.pad(parts[:, :, i], (0, 0, i, spans - 1 - i)) for i in range(spans)]
        return self.tail(torch.stack(shifted).sum(0).flatten(1), state)

    def _fast(self, spectrum: Tensor) -> Tensor:
        window = torch.hann_window(self.window, dtype=spectrum.dtype, device=spectrum.device)
        windows = torch.fft.irfft(torch.complex(*spectrum.chunk(2, -1)), self.window)
        return windows * (window / self.gain)


class _OverlapTail(History):
    """Adds the tail that the previous call left and keeps the tail of this one."""

    def forward(self, wav: Tensor, state: StreamState | None = None) -> Tensor:
        total = wav.shape[1] - self.length
        if state is not None:
            tail = self.past(state, (wav.shape[0], self.length), wav)
            wav = torch.cat([wav[:, : self.length] + tail, wav[:, self.length :]], 1)
            self.keep(state, wav[:, total:])
        return wav[:, :total]


def log_magnitude(spectrum: Tensor) -> Tensor:
    """Natural log magnitude ``[..., bins]`` of a spectrum ``[..., 2 * bins]``."""
    real, imag = spectrum.chunk(2, -1)
    return 0.5 * torch.log(real.square() + imag.square() + POWER_FLOOR)


class PitchFeatures(nn.Module):
    """Normalised autocorrelation, low log spectrum and level of a long causal window.

    The autocorrelation makes periodicity explicit: F0 and harmonicity are what the emotion block
    must carry, and they are hard to learn from a magnitude spectrum alone.
    """

    LOW_BINS = PITCH_BINS
    correlation: Tensor

    def __init__(
        self, hop_length: int, sample_rate: int, window: int, f0_min: float, f0_max: float
    ) -> None:
        super().__init__()
        self.hop_length, self.window = hop_length, window
        self.history = History(window - hop_length)
        self.dft = WindowedDFT(window)
        self.lags = list(range(int(sample_rate / f0_max), int(sample_rate / f0_min) + 2))
        lags = torch.tensor([0, *self.lags], dtype=torch.float64)
        k = torch.arange(window // 2 + 1, dtype=torch.float64)
        weight = torch.full_like(k, 2.0)
        weight[0] = weight[-1] = 1.0
        correlation = weight[:, None] * torch.cos(2 * math.pi * torch.outer(k, lags) / window)
        hann = torch.hann_window(window, dtype=torch.float64)
        taper = torch.fft.irfft(torch.fft.rfft(hann, 2 * window).abs().square())[lags.long()]
        correlation = correlation / (taper / taper[0])  # undo the decay that the window causes
        self.register_buffer("correlation", correlation, persistent=False)
        self.channels = len(self.lags) + self.LOW_BINS + 1

    def forward(self, wav: Tensor, state: StreamState | None = None) -> Tensor:
        """``[B, T * hop_length] -> [B, T, channels]``, in the precision of :class:`WindowedDFT`."""
        x = self.history(wav, state)
        spectrum = self.dft(x.unfold(1, self.window, self.hop_length))
        real, imag = spectrum.chunk(2, -1)
        power = real.square() + imag.square() + POWER_FLOOR
        raw = torch.matmul(power, self.correlation.to(power.dtype))
        autocorrelation = raw[..., 1:] / raw[..., :1]
        log = 0.5 * torch.log(power[..., : self.LOW_BINS])
        level = 0.5 * torch.log(power.mean(-1, keepdim=True))
        return torch.cat([2 * autocorrelation, 0.5 * (log - level), 0.3 * (level + 2)], -1)
