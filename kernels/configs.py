# SPDX-License-Identifier: Apache-2.0
"""Tile sizes by op, shape and architecture: a table in plain Python, no autotuning.

Autotuning would launch, time and synchronize inside the first call, which breaks CUDA graphs and
makes the first call of a service its slowest; and tokens would hang on what it measured. The rows
were chosen from compiled code (no spills, wide accesses, occupancy), not by timing.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tile:
    """Frames and channels a program works on at a time, and how it is compiled.

    ``channels`` are those of one step of a product over the channels, ``outputs`` those written at
    a time by a product that makes them. ``registers``, where not 0, is what ptxas may take a
    thread: left alone it sometimes spills two or three registers to fit one more program.
    ``turned`` stores results transposed, from ``[channels, frames]`` to the same memory: Triton for
    AMD stores a product as it lies in the matrix registers, 4 bytes a lane where frames are next to
    each other, but not one that was transposed since; that one is first put in order in shared
    memory, for 16 bytes a lane side by side in both layouts.
    """

    frames: int
    channels: int
    warps: int
    pipeline: int = 2
    outputs: int = 64
    registers: int = 0
    turned: bool = False

    def options(self) -> dict[str, object]:
        """Compiler options; fusion is off so that the recurrence rounds as on every backend."""
        options: dict[str, object] = {
            "num_warps": self.warps,
            "num_stages": self.pipeline,
            "enable_fp_fusion": False,
        }
        if self.registers:
            options["maxnreg"] = self.registers
        return options


# The interpreter takes the same time for a program of any size: few large programs.
_INTERPRETER = {
    "reduce": Tile(frames=1, channels=4096, warps=4),
    "pack": Tile(frames=2048, channels=1, warps=4),
}
_INTERPRETER_ANY = Tile(frames=64, channels=128, warps=4, outputs=128)

# op -> (frames in all up to which the row holds, tile); `_half` is for latents of 16 bits. Few
# frames take small tiles, so that more programs share them. The large ones keep 16 bytes a thread
# in every access of the inner loops and at least 16 warps a multiprocessor where registers allow.
_FEW, _ANY = 2048, 2**63
_DEFAULT: dict[str, tuple[tuple[int, Tile], ...]] = {
    "encode": ((_FEW, Tile(16, 64, 4)), (_ANY, Tile(64, 32, 8))),
    # 64 frames took 255 registers in float32 for three rates, which leaves one program a processor.
    "forward": ((_FEW, Tile(16, 64, 4)), (_ANY, Tile(32, 32, 4, outputs=32))),
    "forward_half": ((_FEW, Tile(16, 64, 4)), (_ANY, Tile(32, 32, 4, outputs=32))),
    "decode": ((_FEW, Tile(16, 64, 4)), (_ANY, Tile(64, 32, 8))),
    "backward_rows": ((_ANY, Tile(32, 32, 4, outputs=32)),),
    "backward_weights": ((_ANY, Tile(32, 32, 4)),),
    "backward_cross": ((_ANY, Tile(32, 32, 4)),),
    "reduce": ((_ANY, Tile(1, 512, 4)),),
    "pack": ((_ANY, Tile(512, 1, 4)),),  # words of 32 bits in the place of frames
}
# On sm_100 a tile of 64 frames or more is one that its matrix unit takes, and Triton 3.7.1 then
# makes a tf32 product of one that was asked for as ieee: tokens would be wrong. Tiles stay below.
_BY_ARCHITECTURE: dict[str, dict[str, tuple[tuple[int, Tile], ...]]] = {
    "sm_100": {
        "encode": ((_FEW, Tile(16, 64, 4)), (_ANY, Tile(32, 32, 4))),
        "decode": ((_FEW, Tile(16, 64, 4)), (_ANY, Tile(32, 32, 4, outputs=32))),
    },
    "sm_120": {
        "encode": ((_FEW, Tile(16, 64, 4)), (_ANY, Tile(32, 32, 4))),
        # Four warps spill here with stage counts, however many registers they may take. Eight spill
        # in float32 if they are told how many, in 16 bits if they are not.
        "forward": ((_FEW, Tile(16, 64, 4)), (_ANY, Tile(32, 64, 8))),
        "forward_half": ((_FEW, Tile(16, 64, 4)), (_ANY, Tile(32, 64, 8, registers=128))),
    },
    # 64 threads a warp: half the warps keep 16 bytes a thread. Buffers of a pipeline would leave
    # half as many programs, or fewer, on a multiprocessor of 64 KB.
    "gfx942": {
        "encode": ((_FEW, Tile(16, 64, 4)), (_ANY, Tile(64, 32, 4))),
        "forward": (
            (_FEW, Tile(16, 64, 2, turned=True)),
            (_ANY, Tile(32, 32, 2, 1, outputs=32, turned=True)),
        ),
        "forward_half": (
            (_FEW, Tile(16, 64, 2, turned=True)),
            (_ANY, Tile(32, 32, 2, 1, outputs=32, turned=True)),
        ),
        "decode": (
            (_FEW, Tile(16, 64, 2, turned=True)),
            (_ANY, Tile(64, 32, 4, outputs=32, turned=True)),
        ),
        "backward_rows": ((_ANY, Tile(32, 32, 2, 1, outputs=32, turned=True)),),
        "backward_weights": ((_ANY, Tile(32, 32, 2, 1, turned=True)),),
        "backward_cross": ((_ANY, Tile(32, 32, 2, 1)),),
        "reduce": ((_ANY, Tile(1, 512, 2)),),
        "pack": ((_ANY, Tile(512, 1, 2)),),
    },
    "sm_90": {
        "backward_rows": ((_ANY, Tile(32, 32, 4, 3, outputs=32)),),
        "backward_weights": ((_ANY, Tile(32, 32, 4, registers=168)),),
    },
}


def _family(architecture: str) -> str:
    """The architecture whose rows hold: all with the matrix unit of sm_100 must take its tiles."""
    if not architecture.startswith("sm_"):
        return architecture
    number = int(architecture.removeprefix("sm_"))
    if 100 <= number < 120:
        return "sm_100"
    return "sm_120" if number >= 120 else architecture


def tile_for(op: str, frames: int, architecture: str) -> Tile:
    """Tile of an op for ``frames`` frames in all on an architecture such as ``sm_90``."""
    if architecture == "interpreter":
        return _INTERPRETER.get(op, _INTERPRETER_ANY)
    rows = _BY_ARCHITECTURE.get(_family(architecture), {}).get(op, _DEFAULT[op])
    return next(tile for most, tile in rows if frames <= most)


def slabs_for(tiles: int) -> int:
    """Pieces of the frames whose weight gradients are summed apart, then in order.

    A function of the problem alone: gradients are the same bits on every device of one kind.
    """
    return max(1, min(tiles, 32))
