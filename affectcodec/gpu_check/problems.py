# SPDX-License-Identifier: Apache-2.0
"""What is run: quantizers with random weights, and latents of every layout, type and shape."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from affectcodec.config import BDRFSQConfig, Block
from affectcodec.nn import BDRFSQ

DTYPES = (torch.float32, torch.bfloat16, torch.float16)

CONFIGS = {
    "default": BDRFSQConfig(),
    "odd": BDRFSQConfig(
        blocks=(Block("a", 37, (3, 2)), Block("b", 5, (7,)), Block("c", 129, (4, 5, 2, 3, 2))),
        num_stages=3,
        bound="clamp",
    ),
    "wide": BDRFSQConfig(
        blocks=(Block("a", 33, (2,) * 20), Block("b", 20, (4,) * 10)), num_stages=2
    ),
}


def short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


@dataclass(frozen=True)
class Shape:
    """Size, layout and type of a latent.

    Attributes:
        layout: ``dense``, or ``sliced`` (every other channel and sample of a larger tensor).
    """

    batch: int
    frames: int
    dtype: torch.dtype = torch.float32
    channels_last: bool = False
    layout: str = "dense"

    @property
    def label(self) -> str:
        order = "[B, T, D]" if self.channels_last else "[B, D, T]"
        strided = "" if self.layout == "dense" else f" {self.layout}"
        return f"{self.batch} x {self.frames} {short(self.dtype)} {order}{strided}"


def quantizer(config: BDRFSQConfig, device: torch.device, seed: int = 0) -> BDRFSQ:
    """A quantizer none of whose parameters is at its neutral start; made on the CPU, so that it is
    the same for every device."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        module = BDRFSQ(config)
        for name, parameter in module.named_parameters():
            size = float(parameter.shape[-1]) ** -0.5 if name.endswith((".W", ".O")) else 0.1
            parameter.add_(0.5 * size * torch.randn(parameter.shape))
    return module.to(device)


def latent(config: BDRFSQConfig, shape: Shape, device: torch.device, seed: int = 0) -> Tensor:
    """Latent ``[B, D, T]`` or ``[B, T, D]``; the same numbers on every device, in every layout."""
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randn(shape.batch, shape.frames, config.width, generator=generator)
    z = (frames if shape.channels_last else frames.mT.contiguous()).to(shape.dtype).to(device)
    if shape.layout == "sliced":
        memory = z.new_empty((2 * z.shape[0], 2 * z.shape[1], z.shape[2] + 3))
        view = memory[::2, ::2, 3:]
        view.copy_(z)
        return view
    return z


def checked_shapes(quick: bool) -> Iterator[Shape]:
    """Shapes of the correctness checks; a few programs are enough for the interpreter."""
    sizes = [(2, 33)] if quick else [(1, 1), (3, 65), (2, 1000), (16, 256)]
    for batch, frames in sizes:
        for dtype in DTYPES:
            for channels_last in (False, True):
                yield Shape(batch, frames, dtype, channels_last)
    yield Shape(2, 21, torch.float32, False, "sliced")
    yield Shape(2, 21, torch.float16, True, "sliced")
    yield Shape(0, 5)
    yield Shape(2, 0, torch.bfloat16, True)


def timed_shapes(quick: bool) -> Iterator[Shape]:
    """A frame and a second of a stream, a batch of training, and a large one."""
    if quick:
        yield Shape(1, 1)
        yield Shape(1, 50, torch.float32, True)
        return
    yield Shape(1, 1)
    yield Shape(1, 50)
    for dtype in (torch.float32, torch.bfloat16):
        for channels_last in (False, True):
            yield Shape(16, 1024, dtype, channels_last)
    yield Shape(64, 4096, torch.bfloat16, True)
