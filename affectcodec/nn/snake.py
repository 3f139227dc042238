# SPDX-License-Identifier: Apache-2.0
"""Causal Snake convolutions with explicit state. Tensors are ``[B, C, N]``.

The layers of the Descript audio codec (arXiv 2306.06546): weight-normalised convolutions, dilated
residual units, the Snake activation (arXiv 2006.08195). There they are centred; here they look back
only, so that chunks and live streams give what a whole clip gives.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.utils.parametrizations import weight_norm
from torch.utils.checkpoint import checkpoint

from affectcodec.nn.causal import Stateful, StreamState

_ALPHA_FLOOR = 1e-9


class _SnakeFunction(torch.autograd.Function):
    """``x + sin^2(a x) / a``, which saves its input alone; autograd would save three tensors."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: Tensor) -> Tensor:
        ctx.save_for_backward(x, alpha)
        return x + torch.sin(alpha * x).square_() / (alpha + _ALPHA_FLOOR)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, alpha = ctx.saved_tensors
        inverse = 1 / (alpha + _ALPHA_FLOOR)
        double = torch.sin(2 * alpha * x)
        dx = dalpha = None
        if ctx.needs_input_grad[0]:
            dx = grad * (1 + alpha * inverse * double)
        if ctx.needs_input_grad[1]:
            slope = inverse * (x * double - inverse * torch.sin(alpha * x).square_())
            dalpha = (grad * slope).sum((0, 2), keepdim=True).to(alpha.dtype)
        return dx, dalpha


class Snake(nn.Module):
    """Periodic activation ``x + sin^2(alpha x) / alpha`` with a learned ``alpha`` a channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = _SnakeFunction.apply(x, self.alpha.to(x.dtype))
        return out


class SampleHistory(Stateful):
    """Prepends the last ``length`` samples of the previous call along the last axis."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length = length

    def forward(self, x: Tensor, state: StreamState | None = None) -> Tensor:
        if not self.length:
            return x
        if state is None:
            return F.pad(x, (self.length, 0))
        past = self.past(state, (x.shape[0], x.shape[1], self.length), x)
        joined = torch.cat([past.to(x.dtype), x], -1)
        self.keep(state, joined[..., joined.shape[-1] - self.length :])
        return joined


class SnakeConv(nn.Module):
    """Weight-normalised causal convolution, ``[B, C, N] -> [B, C', N / stride]``."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        dilation: int = 1,
    ) -> None:
        super().__init__()
        self.history = SampleHistory((kernel_size - 1) * dilation - (stride - 1))
        self.conv = weight_norm(
            nn.Conv1d(in_channels, out_channels, kernel_size, stride, dilation=dilation)
        )

    def forward(self, x: Tensor, state: StreamState | None = None) -> Tensor:
        out: Tensor = self.conv(self.history(x, state))
        return out


class SnakeUpsample(nn.Module):
    """Weight-normalised causal transposed convolution, ``[B, C, N] -> [B, C', N * stride]``."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.history = SampleHistory(1)  # a kernel of two strides reaches one input sample back
        self.conv = weight_norm(nn.ConvTranspose1d(in_channels, out_channels, 2 * stride, stride))

    def forward(self, x: Tensor, state: StreamState | None = None) -> Tensor:
        samples = x.shape[-1] * self.stride
        out: Tensor = self.conv(self.history(x, state))
        return out[..., self.stride : self.stride + samples]


class SnakeUnit(nn.Module):
    """Residual unit: Snake, dilated convolution, Snake, pointwise convolution."""

    def __init__(self, channels: int, kernel_size: int, dilation: int) -> None:
        super().__init__()
        self.first = Snake(channels)
        self.dilated = SnakeConv(channels, channels, kernel_size, dilation=dilation)
        self.second = Snake(channels)
        self.pointwise = SnakeConv(channels, channels, 1)

    def forward(self, x: Tensor, state: StreamState | None = None) -> Tensor:
        out: Tensor = self.pointwise(self.second(self.dilated(self.first(x), state)), state)
        return x + out


class SnakeStack(nn.Module):
    """A list of layers that take a state.

    ``low_precision`` runs them in bfloat16 (training). ``recompute`` keeps the inputs of the layers
    only and computes them again in the backward pass.
    """

    low_precision: bool = False
    recompute: bool = False

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, state: StreamState | None = None) -> Tensor:
        if not self.low_precision:
            return self._run(x, state)
        with torch.autocast(x.device.type, torch.bfloat16):
            return self._run(x, state).float()

    def _run(self, x: Tensor, state: StreamState | None) -> Tensor:
        again = self.recompute and torch.is_grad_enabled() and state is None
        for layer in self.layers:
            if isinstance(layer, Snake):
                x = layer(x)
            elif again:
                x = checkpoint(layer, x, use_reentrant=False)
            else:
                x = layer(x, state)
        return x


class SnakeDown(nn.Module):
    """Residual units, then a strided convolution that doubles the channels."""

    def __init__(
        self, channels: int, stride: int, kernel_size: int, dilations: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.units = nn.ModuleList(SnakeUnit(channels, kernel_size, d) for d in dilations)
        self.activation = Snake(channels)
        self.down = SnakeConv(channels, 2 * channels, 2 * stride, stride=stride)

    def forward(self, x: Tensor, state: StreamState | None = None) -> Tensor:
        for unit in self.units:
            x = unit(x, state)
        out: Tensor = self.down(self.activation(x), state)
        return out


class SnakeUp(nn.Module):
    """A transposed convolution that halves the channels, then residual units."""

    def __init__(
        self, channels: int, stride: int, kernel_size: int, dilations: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.activation = Snake(channels)
        self.up = SnakeUpsample(channels, channels // 2, stride)
        self.units = nn.ModuleList(SnakeUnit(channels // 2, kernel_size, d) for d in dilations)

    def forward(self, x: Tensor, state: StreamState | None = None) -> Tensor:
        x = self.up(self.activation(x), state)
        for unit in self.units:
            x = unit(x, state)
        return x
