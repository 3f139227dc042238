# SPDX-License-Identifier: Apache-2.0
"""What each kernel moves and computes, counted from shapes, and a prediction from it.

A kernel's program is described by its product loops, in the order of its code: turns, bytes and
multiply-adds of a turn. ``gate`` compares them with the loops of the compiled object. A prediction
is the largest of three times, none of which anybody has measured: bytes that must cross the memory
at its published bandwidth, multiply-adds at the published rate, instructions at one a cycle and
scheduler. Latency, caches and launches are left out, so it is a bound from below.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from affectcodec.kernels.configs import Tile, slabs_for
from affectcodec.kernels.hardware import Gpu
from affectcodec.kernels.plan import BlockPlan, Plan, group_columns


@dataclass(frozen=True)
class Use:
    """One use of an operator.

    Attributes:
        itemsize: bytes of an element of the latent.
        rates: stage counts of the latents that ``forward`` makes, all stages last.
    """

    plan: Plan
    itemsize: int
    batch: int
    frames: int
    rates: tuple[int, ...]

    @property
    def count(self) -> int:
        """Frames in all."""
        return self.batch * self.frames

    @property
    def token_size(self) -> int:
        return 8 if self.plan.wide else 4


@dataclass(frozen=True)
class Loop:
    """One product loop of one program: what a turn loads, stores (bytes) and multiplies."""

    turns: float
    loaded: int
    stored: int
    fma: int


@dataclass(frozen=True)
class Work:
    """One launch.

    Attributes:
        loops: the product loops of a program, in the order of its code.
        steps: turns of each of its other loops, likewise: those of the recurrence, and none of the
            one that looks for a NaN.
        stored: bytes that a program stores outside of its product loops.
        memory: bytes of the launch that must cross the memory: inputs and outputs, each once. The
            weights, a megabyte that every program reads, stay in the second-level cache.
    """

    loops: tuple[Loop, ...]
    steps: tuple[int, ...]
    stored: int
    memory: int


def _groups(block: BlockPlan, use: Use) -> int:
    """Columns of all groups of stages, padded as the products take them."""
    return sum(group_columns(use.rates, block.padded_dims, use.plan.padded_stages))


def _projection(block: BlockPlan, use: Use, tile: Tile) -> Loop:
    step, columns = tile.channels, block.columns
    loaded = tile.frames * step * use.itemsize + 4 * step * columns
    return Loop(-(-block.width // step), loaded, 0, tile.frames * step * columns)


def _output(block: BlockPlan, use: Use, tile: Tile) -> Loop:
    step, columns = tile.outputs, _groups(block, use)
    stored = len(use.rates) * tile.frames * step * use.itemsize
    return Loop(-(-block.width // step), 4 * step * columns, stored, tile.frames * step * columns)


def _recurrence(block: BlockPlan, use: Use) -> int:
    return (use.plan.stages - 1) * block.dims


def _encode(use: Use, tile: Tile, _: BlockPlan | None) -> Work:
    blocks = use.plan.blocks
    tokens = use.token_size * use.plan.stages
    return Work(
        tuple(_projection(block, use, tile) for block in blocks),
        (*(_recurrence(block, use) for block in blocks), 0),
        stored=tile.frames * tokens,
        memory=use.count * (use.plan.width * use.itemsize + tokens),
    )


def _forward(use: Use, tile: Tile, _: BlockPlan | None) -> Work:
    blocks = use.plan.blocks
    tokens = use.token_size * use.plan.stages
    latents = (1 + len(use.rates)) * use.plan.width * use.itemsize
    return Work(
        tuple(
            loop
            for block in blocks
            for loop in (_projection(block, use, tile), _output(block, use, tile))
        ),
        (*(_recurrence(block, use) for block in blocks), 0),
        # The columns of the saved values are stored under a mask, so the padding counts as issued.
        stored=tile.frames * (tokens + 4 * use.plan.columns),
        memory=use.count * (latents + tokens + 4 * use.plan.rows),
    )


def _decode(use: Use, tile: Tile, _: BlockPlan | None) -> Work:
    whole = Use(use.plan, use.itemsize, use.batch, use.frames, (use.plan.stages,))
    tokens = use.token_size * use.plan.stages
    return Work(
        tuple(_output(block, whole, tile) for block in use.plan.blocks),
        (),
        stored=0,
        memory=use.count * (use.plan.width * use.itemsize + tokens),
    )


def _rows(use: Use, tile: Tile, block: BlockPlan | None) -> Work:
    assert block is not None
    step, groups, columns = tile.channels, _groups(block, use), block.columns
    turns = -(-block.width // step)
    received = len(use.rates) * tile.frames * step * use.itemsize
    scratch = 4 * (2 * columns)
    return Work(
        (
            Loop(turns, received + 4 * step * groups, 0, tile.frames * step * groups),
            Loop(
                turns, 4 * step * columns, tile.frames * step * use.itemsize,
                tile.frames * step * columns,
            ),
        ),
        (_recurrence(block, use),),
        stored=tile.frames * scratch + 8 * columns,
        memory=use.count
        * ((len(use.rates) + 1) * block.width * use.itemsize + 4 * use.plan.rows + scratch),
    )  # fmt: skip


def _tiles_a_slab(use: Use, tile: Tile) -> tuple[float, int]:
    tiles = use.batch * -(-use.frames // tile.frames)
    return tiles / slabs_for(tiles), slabs_for(tiles)


def _weights(use: Use, tile: Tile, block: BlockPlan | None) -> Work:
    assert block is not None
    step, groups, columns = tile.channels, _groups(block, use), block.columns
    turns, slabs = _tiles_a_slab(use, tile)
    latents = (1 + len(use.rates)) * use.itemsize
    loaded = tile.frames * (step * latents + 4 * (columns + groups))
    partial = 4 * (columns + groups)
    return Work(
        (Loop(turns, loaded, 0, tile.frames * step * (columns + groups)),),
        (),
        stored=step * partial,
        memory=use.count * (block.width * latents + 8 * columns) + slabs * block.ld * partial,
    )


def _cross(use: Use, tile: Tile, block: BlockPlan | None) -> Work:
    assert block is not None
    columns = block.columns
    turns, slabs = _tiles_a_slab(use, tile)
    partial = 4 * columns * (columns + 2)
    loop = Loop(turns, 4 * columns * (2 * tile.frames + 2), 0, tile.frames * columns * columns)
    return Work((loop,), (), partial, use.count * 8 * columns + slabs * partial)


def _reduce(use: Use, tile: Tile, _: BlockPlan | None) -> Work:
    _, slabs = _tiles_a_slab(use, tile)
    numbers = sum(b.columns * (2 * b.ld + b.columns + 2) for b in use.plan.blocks)
    return Work((), (slabs,), 4 * tile.channels, 4 * numbers * (slabs + 1))


def _pack(use: Use, tile: Tile, _: BlockPlan | None) -> Work:
    codes = use.count * use.plan.stages
    bits = (use.plan.codebook - 1).bit_length()
    return Work((), (), 4 * tile.frames, codes * 4 + (codes * bits + 7) // 8)


_KERNELS = {
    "encode": _encode, "forward": _forward, "decode": _decode, "rows": _rows, "weights": _weights,
    "cross": _cross, "reduce": _reduce, "pack": _pack, "unpack": _pack,
}  # fmt: skip


def work(kernel: str, use: Use, tile: Tile, block: int | None = None) -> Work:
    """Work of a launch of ``kernel``, for one block where it serves one.

    Args:
        tile: of the launch; for ``reduce`` the frames of a tile of ``rows`` count.
    """
    return _KERNELS[kernel](use, tile, None if block is None else use.plan.blocks[block])


def least(op: str, use: Use) -> tuple[int, int]:
    """Bytes that an operator cannot but move, and multiply-adds that its products take unpadded.

    ``op`` is ``encode``, ``forward``, ``backward`` or ``decode``. The backward reads what forward
    saved and the gradients, and the latent once; what it keeps between its kernels is not counted.
    """
    plan = use.plan
    latent = plan.width * use.itemsize
    tokens = use.token_size * plan.stages
    rows = sum(plan.stages * block.dims * block.width for block in plan.blocks)
    rates = len(use.rates)
    table = {
        "encode": (latent + tokens, rows),
        "decode": (latent + tokens, rows),
        "forward": ((1 + rates) * latent + tokens + 4 * plan.rows, 2 * rows),
        "backward": ((2 + rates) * latent + 4 * plan.rows, 4 * rows),
    }
    moved, multiplied = table[op]
    return use.count * moved, use.count * multiplied


@dataclass(frozen=True)
class Prediction:
    """A prediction, not a measurement: seconds that a launch takes at least, and what bounds it.

    Attributes:
        resident: programs that fit on a multiprocessor at once.
        warps: warps of those, of ``most_warps``.
    """

    memory: float
    multiply: float
    issue: float
    resident: int
    warps: int
    most_warps: int

    @property
    def seconds(self) -> float:
        return max(self.memory, self.multiply, self.issue)

    @property
    def bound(self) -> str:
        times = {"memory": self.memory, "multiply": self.multiply, "issue": self.issue}
        return max(times, key=lambda name: times[name])


def predict(
    done: Work,
    gpu: Gpu,
    *,
    programs: int,
    warps: int,
    registers: int,
    shared: int,
    instructions: float,
) -> Prediction:
    """Prediction of a launch.

    Args:
        programs: of the launch; ``warps``, ``registers`` of a thread and ``shared`` bytes of each.
        instructions: that a warp goes through.
    """
    resident = gpu.limits.resident(warps, registers, shared)
    # The multiprocessor with the most programs is the last to finish.
    used = -(-programs // gpu.multiprocessors) * gpu.multiprocessors
    multiplied = sum(loop.turns * loop.fma for loop in done.loops)
    return Prediction(
        memory=done.memory / gpu.bandwidth,
        multiply=used * multiplied / gpu.fma_rate,
        issue=used * warps * instructions / gpu.issue_rate,
        resident=resident,
        warps=resident * warps,
        most_warps=gpu.limits.warps,
    )


def total(parts: Sequence[Prediction]) -> float:
    """Seconds of launches one after another."""
    return sum(part.seconds for part in parts)
