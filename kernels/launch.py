# SPDX-License-Identifier: Apache-2.0
"""What every op does before it launches a kernel: frames, strides, tile configuration.

All of it is arithmetic on Python integers: no device is asked anything, nothing synchronizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
from torch import Tensor

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


def like_latent(z: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Uninitialised ``[B, D, T]`` in the memory order of ``z``, dense."""
    batch, width, length = z.shape
    dtype = dtype or z.dtype
    if channels_together(z):
        return torch.empty(batch, length, width, dtype=dtype, device=z.device).transpose(1, 2)
    return torch.empty(batch, width, length, dtype=dtype, device=z.device)


def channels_together(z: Tensor) -> bool:
    """Whether the channels of a frame lie side by side (``[B, T, D]`` in memory)."""
    return strides(z)[1] <= strides(z)[2] and z.shape[1] > 1


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
    """Rates as a tuple; ascending, the last one is all stages."""
    out = tuple(int(r) for r in rates)
    if not out or list(out) != sorted(set(out)) or out[0] < 1 or out[-1] != stages:
        raise ValueError(f"rates: wanted ascending rates that end with {stages}, got {out}")
    return out


def compute_capability(device: torch.device) -> str:
    """Architecture name as in ``configs``: ``sm_90``, ``gfx942``; ``interpreter`` on the CPU."""
    if device.type == "cpu":
        return "interpreter"
    properties = torch.cuda.get_device_properties(device)  # cached by torch
    if torch.version.hip:
        return str(properties.gcnArchName).split(":")[0]
    return f"sm_{properties.major}{properties.minor}"


def next_power_of_2(n: int) -> int:
    return int(triton.next_power_of_2(n))
