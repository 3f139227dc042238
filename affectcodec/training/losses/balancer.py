# SPDX-License-Identifier: Apache-2.0
"""Gradient balancer: weights become shares of the gradient at the decoded wave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from affectcodec.training.distributed import shared_norm


class GradientBalancer(nn.Module):
    """Rescales the gradients of several losses by one tensor (after EnCodec, arXiv 2210.13438).

    Each gradient is divided by its own running norm and multiplied by its share of all weights, so
    that a weight says how much a loss matters, whatever its scale. EnCodec gives the result a
    constant norm; here it keeps the running norm that the plain sum would have, so that losses
    which do not pass through the tensor keep their weight against these.

    Args:
        names: of the losses; others are refused.
        decay: of the running norms.
    """

    norms: Tensor

    def __init__(self, names: Sequence[str], decay: float = 0.99) -> None:
        super().__init__()
        self.names, self.decay = tuple(names), decay
        # One norm a loss, and that of the plain sum.
        self.register_buffer("norms", torch.zeros(len(self.names) + 1))

    def forward(
        self, losses: Mapping[str, Tensor], weights: Mapping[str, float], at: Tensor
    ) -> Tensor:
        """Balanced gradient by ``at``.

        Args:
            losses: each already multiplied by its weight.
            weights: of the losses.

        Raises:
            ValueError: on other names than those of the balancer.
        """
        if set(losses) != set(self.names):
            raise ValueError(
                f"losses: wanted {sorted(self.names)}, got {sorted(losses)}; a balancer keeps one "
                "running norm for each of its losses"
            )
        gradients = []
        for i, name in enumerate(self.names):
            (gradient,) = torch.autograd.grad(
                losses[name], at, retain_graph=i + 1 < len(self.names), allow_unused=True
            )
            gradients.append(torch.zeros_like(at) if gradient is None else gradient)
        stacked = torch.stack(gradients)
        plain = stacked.sum(0)
        now = shared_norm(torch.cat([stacked.flatten(1).norm(dim=1), plain.norm()[None]]))
        seen = self.norms > 0
        self.norms.copy_(torch.where(seen, torch.lerp(now, self.norms, self.decay), now))
        total = sum(weights[name] for name in self.names) or 1.0
        shares = stacked.new_tensor([weights[name] / total for name in self.names])
        scale = shares * self.norms[-1] / self.norms[:-1].clamp(min=1e-12)
        return (stacked * scale[:, None, None]).sum(0)
