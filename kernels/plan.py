# SPDX-License-Identifier: Apache-2.0
"""Shape of a quantizer as the kernels see it, and the layout of its folded weights.

A quantizer is described by integers, ``(bound, stages, blocks, then for each block: width, code
dims, the level of each code dim)`` with bound 0 for tanh and 1 for clamp. The folded weights are
one flat float32 tensor; this file is the only place that knows where what lies in it.

The ``d`` code dims of a stage are padded to a power of two above ``d``, and the stages to a power
of two, so that the ``K d`` numbers of a frame are one power-of-two row that Triton can cut into
stages. The first padding place of a stage is used: it carries the stage's 0/1 mask, whose weight
is the output bias, so biases need no code of their own in any product, forward or backward.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache

from affectcodec.config import BDRFSQConfig

# Registers hold a tile of frames times the columns of one block; past this they would spill.
MAX_COLUMNS = 256
ALIGN = 16  # floats: every array starts on a 64-byte line


def _pow2(n: int) -> int:
    return 1 << (n - 1).bit_length()


def _padded(n: int) -> int:
    return -(-n // ALIGN) * ALIGN


@dataclass(frozen=True)
class BlockPlan:
    """One block; ``columns`` = padded stages * padded dims, arrays as offsets in floats.

    ``inward [width, columns]`` holds W transposed, ``outward [columns, ld]`` O transposed with the
    biases in their mask places, ``cross [columns, columns]`` ``G = W O`` with the later stage in
    the row, ``cross_t`` its transpose, ``offset [stages + 1, columns]`` the constant of a column
    where so many stages are active, ``threshold [most - 1, columns]`` filled up with NaN,
    ``value [most, columns]`` and ``grid [most, columns]`` the values v and q of a digit, and
    ``scale [columns]`` s.
    """

    channel: int
    width: int
    dims: int
    padded_dims: int
    most: int
    columns: int
    row: int
    column: int
    ld: int
    inward: int
    outward: int
    cross: int
    cross_t: int
    offset: int
    threshold: int
    value: int
    grid: int
    scale: int
    levels: tuple[int, ...]
    bases: tuple[int, ...]

    def as_tuple(self) -> tuple[object, ...]:
        return tuple(getattr(self, f.name) for f in fields(self))


# Position of each field inside the tuples that kernels take as a compile-time constant.
FIELD = {f.name: i for i, f in enumerate(fields(BlockPlan))}


@dataclass(frozen=True)
class Plan:
    """A whole quantizer; ``rows`` = stages * code dims over all blocks."""

    bound: int
    stages: int
    padded_stages: int
    width: int
    rows: int
    columns: int
    codebook: int
    floats: int
    blocks: tuple[BlockPlan, ...]

    @property
    def wide(self) -> bool:
        """Whether tokens need 64 bits."""
        return self.codebook > 2**31

    def constant(self) -> tuple[tuple[object, ...], ...]:
        """The blocks as a nested tuple, a compile-time constant of the kernels."""
        return tuple(block.as_tuple() for block in self.blocks)


def edge(rates: Sequence[int], r: int) -> int:
    """First stage of group ``r``: the stages that rate ``r`` has and rate ``r - 1`` has not."""
    return 0 if r == 0 else rates[r - 1]


def group_stages(rates: Sequence[int], r: int, padded_dims: int, padded_stages: int) -> int:
    """Stages that group ``r`` takes, once padded to a power of two of at least 16 columns."""
    if len(rates) == 1:
        return padded_stages
    padded = 1
    while padded < rates[r] - (0 if r == 0 else rates[r - 1]) or padded * padded_dims < 16:
        padded *= 2
    return padded


def group_columns(rates: Sequence[int], padded_dims: int, padded_stages: int) -> tuple[int, ...]:
    """Columns of each group of stages in the products that take one rate after another."""
    return tuple(
        group_stages(rates, r, padded_dims, padded_stages) * padded_dims for r in range(len(rates))
    )


def describe(config: BDRFSQConfig) -> tuple[int, ...]:
    """The integers that describe a quantizer; see the head of this file."""
    out = [0 if config.bound == "tanh" else 1, config.num_stages, len(config.blocks)]
    for block in config.blocks:
        out += [block.width, block.code_dim, *block.levels]
    return tuple(out)


def unsupported(config: Sequence[int]) -> str:
    """Why the kernels cannot serve a quantizer; empty where they can."""
    stages, at = config[1], 3
    for g in range(config[2]):
        dims = config[at + 1]
        columns = _pow2(stages) * _pow2(dims + 1)
        if columns > MAX_COLUMNS:
            return (
                f"block {g} has {stages} stages of {dims} code dims, {columns} columns once "
                f"padded; the Triton kernels hold at most {MAX_COLUMNS}"
            )
        at += 2 + dims
    return ""


@lru_cache(maxsize=64)
def _make_plan(config: tuple[int, ...]) -> Plan:
    reason = unsupported(config)
    if reason:
        raise NotImplementedError(f"config: {reason}; use another backend")
    bound, stages, count = config[:3]
    at, channel, row, column, codebook, floats = 3, 0, 0, 0, 1, 0
    padded_stages = _pow2(stages)
    blocks = []
    for _ in range(count):
        width, dims = config[at], config[at + 1]
        levels = tuple(config[at + 2 : at + 2 + dims])
        at += 2 + dims
        padded_dims = _pow2(dims + 1)
        # A product needs 16 columns to be one that the hardware has an instruction for.
        while padded_stages * padded_dims < 16:
            padded_dims *= 2
        columns, most, ld = padded_stages * padded_dims, max(levels), _padded(width)
        sizes = {
            "inward": width * columns,
            "outward": columns * ld,
            "cross": columns * columns,
            "cross_t": columns * columns,
            "offset": (stages + 1) * columns,
            "threshold": (most - 1) * columns,
            "value": most * columns,
            "grid": most * columns,
            "scale": columns,
        }
        offsets = {}
        for name, size in sizes.items():
            offsets[name] = floats
            floats += _padded(size)
        bases = tuple(codebook * math.prod(levels[:i]) for i in range(dims))
        blocks.append(
            BlockPlan(
                channel=channel, width=width, dims=dims, padded_dims=padded_dims, most=most,
                columns=columns, row=row, column=column, ld=ld, levels=levels, bases=bases,
                **offsets,
            )
        )  # fmt: skip
        codebook *= math.prod(levels)
        channel += width
        row += stages * dims
        column += columns
    if at != len(config):
        raise ValueError(f"config: {len(config)} integers, but its blocks take {at}")
    if floats >= 2**31:
        raise NotImplementedError("config: the folded weights exceed 2**31 numbers")
    return Plan(bound, stages, padded_stages, channel, row, column, codebook, floats, tuple(blocks))


def make_plan(config: Sequence[int]) -> Plan:
    """The plan of a description; see :func:`describe`.

    Raises:
        NotImplementedError: the kernels cannot serve it; the message says why.
        ValueError: the description is not well-formed.
    """
    return _make_plan(tuple(int(x) for x in config))
