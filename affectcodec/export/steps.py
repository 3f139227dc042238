# SPDX-License-Identifier: Apache-2.0
"""One frame of the encoder and of the decoder as functions of tensors alone.

State goes in and comes out as tensors in a fixed order, zero at the start of a stream. The graphs
end and begin at the latent: its quantizer is integer arithmetic at thresholds, which CPU kernels
(or the plain form) compute outside, so that tokens are those of the codec.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from affectcodec.codec import AffectCodec
from affectcodec.nn import causal
from affectcodec.nn.causal import StreamState
from affectcodec.nn.spectral import WindowedDFT, dft_basis


def state_template(step: nn.Module, example: Tensor) -> StreamState:
    """Names, shapes and dtypes of the state of one stream."""
    found: StreamState = {}
    with torch.no_grad():
        step(example, found)
    return {name: torch.zeros_like(value) for name, value in sorted(found.items())}


class _Step(nn.Module):
    """A module of ``(input, state)`` as one of ``(input, *tensors)``."""

    template: StreamState

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self.names = names

    def run(self, x: Tensor, state: StreamState) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        state = dict(zip(self.names, tensors, strict=True))
        out = self.run(x, state)
        return (out, *(state[name] for name in self.names))


class EncoderStep(_Step):
    """``pcm [B, hop]`` to ``latent [B, D]``."""

    def __init__(self, codec: AffectCodec) -> None:
        hop = codec.config.hop_length
        template = state_template(codec.encoder, torch.zeros(1, hop))
        super().__init__(list(template))
        self.template = template
        self.codec = codec

    def run(self, x: Tensor, state: StreamState) -> Tensor:
        return self.codec.encoder(x, state)[:, 0]


class DecoderStep(_Step):
    """``latent [B, D]`` to ``pcm [B, hop]``, one hop late."""

    def __init__(self, codec: AffectCodec) -> None:
        width = codec.config.quantizer.width
        template = state_template(codec.decoder, torch.zeros(1, 1, width))
        super().__init__(list(template))
        self.template = template
        self.codec = codec

    def run(self, x: Tensor, state: StreamState) -> Tensor:
        return self.codec.decoder(x[:, None], state).wav


def _exact_gelu(x: Tensor) -> Tensor:
    """GELU with an erf of plain operators where ONNX Runtime has none: it has no float64 Erf.

    A rational function of x^2, to 3e-11, the one of ``csrc/runtime/math.h``.
    """
    if x.dtype != torch.float64:
        return _gelu(x)
    z = (x * 0.70710678118654752).clamp(-5.0, 5.0)
    s = z * z
    top, bottom = (_horner(c, s) for c in (_ERF_TOP, _ERF_BOTTOM))
    return 0.5 * x * (1 + z * top / bottom)


_gelu = F.gelu
_ERF_TOP = (
    1.1283791667927587, 0.15782759319378514, 0.050852466525240232, 0.0028289777153755816,
    0.00034011504957961916, 3.9797172268697408e-06, 2.7270751943204754e-08,
    -1.6665150149436364e-08, 4.6935340790372914e-10, 2.220884750839716e-12,
)  # fmt: skip
_ERF_BOTTOM = (
    1.0, 0.47320439082051835, 0.10280165113776904, 0.013263342005605963, 0.0010796225203430214,
    5.1432250400546291e-05, 7.8812782246346058e-07, -7.7437546807527121e-08,
    2.9863664220723788e-10, 5.6467832329937152e-11,
)  # fmt: skip


def _horner(coefficients: tuple[float, ...], s: Tensor) -> Tensor:
    value = s * coefficients[-1] + coefficients[-2]
    for c in coefficients[-3::-1]:
        value = value * s + c
    return value


def _dft_by_product(self: WindowedDFT, frames: Tensor) -> Tensor:
    """The transform as a product: a graph of plain operators, in the same float64."""
    return torch.matmul(frames.double(), self.get_buffer(_BASIS))


def _exact_norm(layer: nn.LayerNorm, x: Tensor) -> Tensor:
    """LayerNorm of float64 in its own precision: the operator of ONNX computes in float32."""
    if x.dtype != torch.float64:
        return _norm(layer, x)
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred / torch.sqrt(centred.square().mean(-1, keepdim=True) + layer.eps)
    return scaled * layer.weight.double() + layer.bias.double()


_BASIS = "wide_basis"
_norm = causal.layer_norm


@contextmanager
def exportable(codec: AffectCodec) -> Iterator[None]:
    """Operators in a form that ONNX and ONNX Runtime have, while a graph is traced."""
    transforms = [m for m in codec.modules() if isinstance(m, WindowedDFT)]
    forward = WindowedDFT.forward
    # mypy knows no way to replace a function but this one.
    places: list[tuple[Any, str, Any, Any]] = [
        (WindowedDFT, "forward", _dft_by_product, forward),
        (F, "gelu", _exact_gelu, _gelu),
        (causal, "layer_norm", _exact_norm, _norm),
    ]
    try:
        for module in transforms:
            # A constant: made inside the graph, its window would be float32.
            basis = dft_basis(len(module.window), torch.float64)
            module.register_buffer(_BASIS, basis, persistent=False)
        for place, name, new, _ in places:
            setattr(place, name, new)
        yield
    finally:
        for place, name, _, old in places:
            setattr(place, name, old)
        for module in transforms:
            delattr(module, _BASIS)
