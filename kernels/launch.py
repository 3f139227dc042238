# SPDX-License-Identifier: Apache-2.0
"""What every op does before it launches a kernel: frames, strides, tile configuration.

All of it is arithmetic on Python integers: no device is asked anything, nothing synchronizes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from affectcodec.kernels.plan import Plan

FLOATS = (torch.float32, torch.bfloat16, torch.float16)
# A tile spans at most this many frames and channels; see `spans_wide`.
MOST_FRAMES = 256
MOST_CHANNELS = 256


@dataclass(frozen=True)
class Frames:
    """How the frames of a ``[B, D, T]`` problem are cut into programs of ``block`` frames."""

    batch: int
    length: int
    block: int

    @property
    def tiles(self) -> int:
        """Programs a sample."""
        return -(-self.length // self.block)

    @property
    def programs(self) -> int:
        return self.batch * self.tiles


def check_latent(name: str, z: Tensor, width: int) -> None:
    if z.ndim != 3 or z.shape[1] != width:
        raise ValueError(f"{name}: wanted [B, {width}, T], got {list(z.shape)}")
    if z.dtype not in FLOATS:
        raise ValueError(f"{name}: wanted float32, bfloat16 or float16, got {z.dtype}")


def check_weights(weights: Tensor, floats: int) -> None:
    if weights.dtype != torch.float32 or weights.shape != (floats,) or not weights.is_contiguous():
        raise ValueError(
            f"weights: wanted contiguous float32 [{floats}] from fold(), got {weights.dtype} "
            f"{list(weights.shape)}"
        )


def strides(tensor: Tensor) -> tuple[int, int, int]:
    """Strides of the sample, the channel and the frame of a ``[B, D, T]`` tensor.

    A dim of one element may report any stride; 1 keeps such tensors on the code of dense ones.
    """
    b, d, t = tensor.stride()
    return b, d if tensor.shape[1] > 1 else 1, t if tensor.shape[2] > 1 else 1


def spans_wide(*tensors: Tensor | None) -> bool:
    """Whether an offset inside one tile can exceed 31 bits; tiles start at 64-bit offsets anyway.

    Tested with strides alone, so that it stays the same for every batch of a layout.
    """
    return any(
        max(tensor.stride()[1:], default=0) * (MOST_FRAMES + MOST_CHANNELS) >= 2**31
        for tensor in tensors
        if tensor is not None and tensor.ndim == 3
    )


def latent(like: Tensor, dtype: torch.dtype, shape: Sequence[int], channels_last: bool) -> Tensor:
    """Uninitialised latent of ``shape [B, D, T]``, dense as ``[B, T, D]`` with channels_last."""
    batch, width, length = shape
    if channels_last:
        memory = torch.empty(batch, length, width, dtype=dtype, device=like.device)
        return memory.transpose(1, 2)
    return torch.empty(batch, width, length, dtype=dtype, device=like.device)


def tokens_for(plan: Plan, z: Tensor, out: Tensor | None = None) -> Tensor:
    """Uninitialised tokens ``[B, K, T]`` of a latent ``[B, D, T]``, or ``out`` once checked."""
    dtype = torch.int64 if plan.wide else torch.int32
    shape = (z.shape[0], plan.stages, z.shape[2])
    if out is None:
        return torch.empty(shape, dtype=dtype, device=z.device)
    if tuple(out.shape) != shape or out.dtype != dtype:
        raise ValueError(f"out: wanted {dtype} {list(shape)}, got {out.dtype} {list(out.shape)}")
    return out


def count_strides(counts: Tensor | None, batch: int, blocks: int) -> tuple[int, int, int]:
    """Strides of the sample, the block and the frame of stage counts ``[B, G]`` or ``[B, G, T]``.

    Raises:
        ValueError: on another shape or dtype.
    """
    if counts is None:
        return 0, 0, 0
    if counts.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"counts: wanted int32 or int64, got {counts.dtype}")
    if counts.ndim not in (2, 3) or tuple(counts.shape[:2]) != (batch, blocks):
        raise ValueError(
            f"counts: wanted [B, G] = [{batch}, {blocks}] or [B, G, T], got {list(counts.shape)}"
        )
    b, g = counts.stride()[:2]
    return b, g, counts.stride(2) if counts.ndim == 3 else 0


def check_rates(rates: Sequence[int], stages: int) -> tuple[int, ...]:
    """Rates and all stages as one ascending tuple."""
    out = (*(int(r) for r in rates), stages)
    if list(out) != sorted(set(out)) or out[0] < 1:
        raise ValueError(f"rates: wanted ascending rates in 1..{stages - 1}, got {tuple(rates)}")
    return out


@dataclass(frozen=True)
class Call:
    """One launch that was recorded instead of made."""

    kernel: Any
    programs: int
    args: tuple[Any, ...]
    constants: dict[str, Any]
    tile: Any


@dataclass(frozen=True)
class Recording:
    """Launches for an architecture that need not be there; see :func:`recording`."""

    architecture: str
    calls: list[Call] = field(default_factory=list)


_RECORDING: ContextVar[Recording | None] = ContextVar("affectcodec_recording", default=None)


@contextmanager
def recording(architecture: str) -> Iterator[list[Call]]:
    """Inside, ops make no launch but note it; with tensors on ``meta`` they need no device.

    This is how the production launches are compiled ahead of time, exactly as they would be made.
    """
    entry = Recording(architecture)
    token = _RECORDING.set(entry)
    try:
        yield entry.calls
    finally:
        _RECORDING.reset(token)


def run(kernel: Any, programs: int, *args: Any, tile: Any, **constants: Any) -> None:
    """Launches ``programs`` programs on the current stream of the arguments' device."""
    entry = _RECORDING.get()
    if entry is not None:
        entry.calls.append(Call(kernel, programs, args, constants, tile))
        return
    if programs >= 2**31:
        raise ValueError(f"{programs} programs exceed a grid; split the batch")
    device = next(a.device for a in args if isinstance(a, Tensor))
    if device.type == "cpu":
        kernel[(programs,)](*args, **constants, **tile.options())
        return
    with torch.cuda.device(device):
        kernel[(programs,)](*args, **constants, **tile.options())


def architecture(device: torch.device) -> str:
    """Name as in ``configs``: ``sm_90``, ``gfx942``; ``interpreter`` on the CPU."""
    entry = _RECORDING.get()
    if entry is not None:
        return entry.architecture
    if device.type == "cpu":
        return "interpreter"
    properties = torch.cuda.get_device_properties(device)  # cached by torch
    if torch.version.hip:
        return str(properties.gcnArchName).split(":")[0]
    return f"sm_{properties.major}{properties.minor}"
