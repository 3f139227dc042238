# SPDX-License-Identifier: Apache-2.0
"""Where the time of a step goes: data, encoder, quantizer, decoder, losses, and so on."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

PARTS = (
    "data",
    "encoder",
    "quantizer",
    "decoder",
    "losses",
    "discriminators",
    "optimizer",
    "rest",
)


class StepTimer:
    """Adds the time since the last mark to the part that the mark names.

    Forward and backward count together: the backward of a part ends where the gradient of its input
    is there, which hooks on the tensors between the parts tell.

    Args:
        device: marks wait for it if it is a GPU, which costs speed: measure some steps, not all.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self.cuda = device is not None and device.type == "cuda"
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self.steps = 0
        self.on = False
        self._last = 0.0

    def start(self, on: bool = True) -> None:
        """A step begins; with ``on`` false nothing is measured in it."""
        self.on = on
        if on:
            self._last = self._now()

    def mark(self, part: str) -> None:
        """What was done since the last mark was ``part``."""
        if self.on:
            now = self._now()
            self.seconds[part] += now - self._last
            self._last = now

    def end(self) -> None:
        """The step is over."""
        if self.on:
            self.mark("rest")
            self.steps += 1
            self.on = False

    def shares(self) -> dict[str, float]:
        """Share of each part in the time measured; all 0 if nothing was."""
        total = sum(self.seconds.values())
        return {part: value / total if total else 0.0 for part, value in self.seconds.items()}

    def take(self) -> dict[str, float]:
        """Seconds a step of each part since the last call."""
        steps = max(1, self.steps)
        found = {part: value / steps for part, value in self.seconds.items()}
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self.steps = 0
        return found

    def _now(self) -> float:
        if self.cuda:
            torch.cuda.synchronize()
        return time.perf_counter()

    def watch(self, codec: nn.Module) -> None:
        """Mark the encoder, the quantizer and the decoder of a codec, forward and backward."""
        self._watch(codec.get_submodule("encoder"), "encoder", "quantizer", lambda out: out)
        self._watch(
            codec.get_submodule("quantizer"), "quantizer", "decoder", lambda out: out.latent
        )
        self._watch(codec.get_submodule("decoder"), "decoder", "losses", lambda out: out.wav)

    def _watch(
        self, module: nn.Module, part: str, after: str, tensor_of: Callable[[Any], Tensor]
    ) -> None:
        def begin(_: nn.Module, inputs: Any) -> None:
            self.mark("rest")

        def done(_: nn.Module, inputs: Any, out: Any) -> None:
            self.mark(part)
            tensor = tensor_of(out)
            if self.on and tensor.requires_grad:
                tensor.register_hook(lambda grad: self.mark(after))

        module.register_forward_pre_hook(begin)
        module.register_forward_hook(done)
