# SPDX-License-Identifier: Apache-2.0
"""The prior's network in training form: the same integers as `prior`, with gradients.

A recurrent cell sees the frames before; a masked layer sees, beside the cell's state, the digits of
the frame that come earlier in the order (as in MADE, Germain et al. 2015). Gates are piecewise
linear and every value is rounded to a fixed grid, so that `prior` can compute the same in integers.
Rounding passes gradients through.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from affectcodec.entropy.layout import DigitLayout

WEIGHT_STEPS = 32  # of a weight of 1
STATE_STEPS = 128  # of a state or feature of 1
GATE_STEPS = 256
LOGIT_STEPS = 16  # of a factor of two in probability
MAX_WEIGHT = 127
MAX_FEATURE = 255
MAX_BIAS = 2**19


def _through(x: Tensor, rounded: Tensor) -> Tensor:
    return x + (rounded - x).detach()


def _grid(x: Tensor, steps: int) -> Tensor:
    """Rounded down to the grid, as an integer shift does."""
    return _through(x, torch.floor(x * steps) / steps)


def weight_grid(x: Tensor) -> Tensor:
    """Weights on the grid of 8-bit integers."""
    return _through(
        x, torch.clamp(torch.round(x * WEIGHT_STEPS), -MAX_WEIGHT, MAX_WEIGHT) / WEIGHT_STEPS
    )


def bias_grid(x: Tensor) -> Tensor:
    """Biases on the grid of sums."""
    steps = WEIGHT_STEPS * STATE_STEPS
    return _through(x, torch.clamp(torch.round(x * steps), -MAX_BIAS, MAX_BIAS) / steps)


class PriorNetwork(nn.Module):
    """Distribution of every digit, given the frames before and the digits before.

    Args:
        layout: the digits.
        width: of the recurrent state.
        units: features a digit.
    """

    mask: Tensor
    none: Tensor

    def __init__(self, layout: DigitLayout, width: int = 192, units: int = 24) -> None:
        super().__init__()
        self.layout, self.width, self.units = layout, width, units
        seen, digits = layout.num_indicators, layout.num_digits
        most = int(layout.digit_levels.max())
        self.input = nn.Parameter(torch.randn(3 * width, seen) / 8)
        self.hidden = nn.Parameter(torch.randn(3 * width, width) / width**0.5)
        self.gate_bias = nn.Parameter(torch.zeros(3 * width))
        self.state = nn.Parameter(torch.randn(digits * units, width) / width**0.5)
        self.before = nn.Parameter(torch.randn(digits * units, seen) / 8)
        self.count = nn.Parameter(torch.zeros(digits * units, layout.num_counts))
        self.feature_bias = nn.Parameter(torch.full((digits * units,), 0.1))
        self.logit = nn.Parameter(torch.randn(digits, most, units) / units**0.5)
        self.logit_bias = nn.Parameter(torch.zeros(digits, most))
        offsets = torch.as_tensor(layout.offsets)
        mask = torch.arange(seen)[None] < offsets[:, None]
        self.register_buffer("mask", mask.repeat_interleave(units, 0).float(), persistent=False)
        levels = torch.as_tensor(layout.digit_levels)
        none = torch.arange(most)[None] >= levels[:, None]
        self.register_buffer("none", none, persistent=False)

    def features(self, shown: Tensor) -> Tensor:
        """States ``[B, T, H]`` before each frame, of indicators ``[B, T, E]``."""
        batch, frames, _ = shown.shape
        hidden = weight_grid(self.hidden).t()
        before = F.pad(shown, (0, 0, 1, 0))[:, :-1]
        given = F.linear(before, weight_grid(self.input), bias_grid(self.gate_bias))
        h = shown.new_zeros(batch, self.width)
        states = []
        for frame in range(frames):
            if frame:  # the first frame starts from nothing, not from a step on no input
                reset, update, new = given[:, frame].chunk(3, 1)
                r, u, n = (h @ hidden).chunk(3, 1)
                reset = _gate(reset + r)
                update = _gate(update + u)
                sums = WEIGHT_STEPS * STATE_STEPS
                new = torch.clamp(_grid(new + _grid(reset * n, sums), STATE_STEPS), -1, 1)
                h = _grid(update * h + (1 - update) * new, STATE_STEPS)
            states.append(h)
        return torch.stack(states, 1)

    def forward(self, shown: Tensor, counts: Tensor) -> Tensor:
        """Logits, base 2, ``[B, T, D, levels]``, of indicators ``[B, T, E]`` and ``[B, T, C]``."""
        weight = torch.cat(
            [
                weight_grid(self.state),
                weight_grid(self.before) * self.mask,
                weight_grid(self.count),
            ],
            1,
        )
        x = torch.cat([self.features(shown), shown, counts], 2)
        sums = F.linear(x, weight, bias_grid(self.feature_bias))
        feature = torch.clamp(_grid(sums, STATE_STEPS), 0, MAX_FEATURE / STATE_STEPS)
        feature = feature.unflatten(2, (self.layout.num_digits, self.units))
        logits = torch.einsum("btdu,dlu->btdl", feature, weight_grid(self.logit))
        logits = _grid(logits + bias_grid(self.logit_bias), LOGIT_STEPS)
        return logits.masked_fill(self.none, -1e4)


def _gate(x: Tensor) -> Tensor:
    """Hard sigmoid, zero at -2 and one at 2, on the grid of gates."""
    return torch.clamp(_grid(x / 4, GATE_STEPS) + 0.5, 0, 1)


def bits(logits: Tensor, digits: Tensor, present: Tensor) -> Tensor:
    """Bits of each digit ``[B, T, D]``; 0 where absent."""
    nats = F.cross_entropy(
        (logits * np.log(2)).flatten(0, 2), digits.flatten().long(), reduction="none"
    )
    return nats.view(digits.shape) / np.log(2) * present


def arrays(network: PriorNetwork) -> dict[str, npt.NDArray[Any]]:
    """The network's integers: int8 weights and int32 biases by name."""
    found: dict[str, npt.NDArray[Any]] = {}
    for name, value in network.named_parameters():
        exact = value.detach().double()
        if name.endswith("bias"):
            steps = WEIGHT_STEPS * STATE_STEPS
            found[name] = np.rint(bias_grid(exact).cpu().numpy() * steps).astype(np.int32)
            continue
        exact = weight_grid(exact)
        if name == "before":
            exact = exact * network.mask
        found[name] = np.rint(exact.cpu().numpy() * WEIGHT_STEPS).astype(np.int8)
    return found
