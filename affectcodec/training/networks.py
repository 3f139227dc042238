# SPDX-License-Identifier: Apache-2.0
"""Networks in the form that trains fast."""

from __future__ import annotations

from torch import nn

from affectcodec.nn.causal import CausalConvNeXt
from affectcodec.nn.snake import SnakeStack
from affectcodec.nn.spectral import OverlapAddSynthesis, WindowedDFT


def for_training(network: nn.Module, *, low_precision: bool, recompute: bool = False) -> None:
    """Set, in place, products in bfloat16, activations that are recomputed in the backward pass,
    and Fourier transforms in the precision of their input.

    Inference has none of it: there the same numbers for any chunk count for more than speed.
    """
    for module in network.modules():
        if isinstance(module, CausalConvNeXt | SnakeStack):
            module.low_precision = low_precision
            module.recompute = recompute
        if isinstance(module, WindowedDFT | OverlapAddSynthesis):
            module.by_fft = True
