# SPDX-License-Identifier: Apache-2.0
"""Interpreted launches that show where a kernel strayed, and what depends on the order of programs.

Around every tensor of a launch lies a guard, and so do the holes of a strided view: an access
outside reads NaN, or is found by its mark.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import triton.runtime.interpreter as interpreter
from torch import Tensor

from affectcodec.kernels import launch

GUARD = 64
ORDERS = ("forward", "reverse", "shuffled")


def _bits(memory: Tensor) -> Tensor:
    return memory.view(torch.uint8)


class Guarded:
    """A copy of a tensor, same shape and strides, alone in memory that is poisoned all around."""

    def __init__(self, tensor: Tensor) -> None:
        self.original = tensor
        extent = sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True)) + 1
        extent = extent if tensor.numel() else 0
        self._memory = torch.empty(extent + 2 * GUARD, dtype=tensor.dtype)
        _bits(self._memory).fill_(0xFF)  # NaN in every float type, -1 in every integer
        self.copy = self._memory.as_strided(tensor.shape, tensor.stride(), GUARD)
        self._inside = torch.zeros(len(self._memory), dtype=torch.bool)
        self._inside.as_strided(tensor.shape, tensor.stride(), GUARD).fill_(True)
        if tensor.numel():
            self._memory[self._inside] = tensor.as_strided((extent,), (1,))[
                self._inside[GUARD : GUARD + extent]
            ]

    def check(self) -> None:
        outside = _bits(self._memory[~self._inside])
        assert bool((outside == 0xFF).all()), "a kernel wrote outside of its buffer"

    def put_back(self) -> None:
        if self.original.numel():
            extent = len(self._memory) - 2 * GUARD
            inside = self._inside[GUARD : GUARD + extent]
            self.original.as_strided((extent,), (1,))[inside] = self._memory[self._inside]


def _key(tensor: Tensor) -> tuple[Any, ...]:
    return (tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())


def _guarded_run(run: Callable[..., None]) -> Callable[..., None]:
    def guarded(kernel: Any, programs: int, *args: Any, **keywords: Any) -> None:
        copies: dict[tuple[Any, ...], Guarded] = {}

        def swap(value: Any) -> Any:
            if isinstance(value, tuple):
                return tuple(swap(v) for v in value)
            if not isinstance(value, Tensor):
                return value
            if _key(value) not in copies:  # one tensor may stand in for another argument
                copies[_key(value)] = Guarded(value)
            return copies[_key(value)].copy

        run(kernel, programs, *(swap(a) for a in args), **keywords)
        for entry in copies.values():
            entry.check()
            entry.put_back()

    return guarded


@contextmanager
def program_order(order: str) -> Iterator[None]:
    """Programs of a launch run forward, in reverse, or shuffled."""
    builder = interpreter.interpreter_builder
    original = builder.set_grid_idx
    permutations: dict[int, list[int]] = {}

    def permuted(x: int, y: int, z: int) -> None:
        count = int(builder.grid_dim[0])
        if count not in permutations:
            generator = torch.Generator().manual_seed(count)
            permutations[count] = (
                list(range(count))[::-1] if order == "reverse"
                else torch.randperm(count, generator=generator).tolist()
            )  # fmt: skip
        original(permutations[count][x], y, z)

    if order != "forward":
        builder.set_grid_idx = permuted
    try:
        yield
    finally:
        builder.set_grid_idx = original


@contextmanager
def guarded_launches(order: str = "forward") -> Iterator[None]:
    """Every launch has guards around its tensors, and its programs run in this order."""
    original = launch.run
    launch.run = _guarded_run(original)
    try:
        with program_order(order):
            yield
    finally:
        launch.run = original
