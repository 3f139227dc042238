# SPDX-License-Identifier: Apache-2.0
"""The model of each kernel, occupancy, and predictions, by hand."""

from __future__ import annotations

import pytest

from affectcodec.config import BDRFSQConfig, Block
from affectcodec.kernels.configs import Tile
from affectcodec.kernels.hardware import GPUS, MULTIPROCESSORS
from affectcodec.kernels.plan import describe, group_columns, make_plan
from affectcodec.kernels.roofline import Use, least, predict, work

PLAN = make_plan(describe(BDRFSQConfig()))
USE = Use(PLAN, itemsize=2, batch=4, frames=256, rates=(2, 4, 8))
TILE = Tile(64, 32, 8, outputs=32)


@pytest.mark.parametrize(
    ("architecture", "warps", "registers", "shared", "programs"),
    [
        ("sm_80", 8, 32, 0, 8),  # all warps
        ("sm_80", 8, 128, 0, 2),  # 65536 / (128 * 32) = 16 warps
        ("sm_80", 4, 129, 0, 3),  # 136 registers once rounded: 3 warps a partition
        ("sm_90", 4, 32, 100 * 1024, 2),  # 228 KB, a kilobyte of each program reserved
        ("sm_120", 1, 16, 0, 24),  # programs
        ("sm_120", 8, 16, 0, 6),  # 48 warps
        ("sm_90", 4, 32, 230 * 1024, 0),
        ("gfx942", 4, 128, 16384, 4),  # 4 waves a SIMD, and 64 KB of shared memory
        ("gfx942", 8, 257, 0, 0),  # one wave a SIMD
        ("gfx942", 4, 257, 0, 1),
    ],
)
def test_programs_that_fit(
    architecture: str, warps: int, registers: int, shared: int, programs: int
) -> None:
    assert MULTIPROCESSORS[architecture].resident(warps, registers, shared) == programs


def test_groups_of_stages_fill_sixteen_columns() -> None:
    assert group_columns((8,), 8, 8) == (64,)
    assert group_columns((2, 4, 8), 8, 8) == (16, 16, 32)
    assert group_columns((2, 4, 8), 4, 8) == (16, 16, 16)
    assert group_columns((1, 7), 4, 8) == (16, 32)


def test_encode_reads_the_latent_once_and_the_weights_once_a_program() -> None:
    done = work("encode", USE, TILE)
    emotion, acoustic = done.loops
    assert (emotion.turns, acoustic.turns) == (256 / 32, 768 / 32)
    assert emotion.loaded == 64 * 32 * 2 + 32 * 32 * 4
    assert acoustic.loaded == 64 * 32 * 2 + 32 * 64 * 4
    assert acoustic.fma == 64 * 32 * 64 and acoustic.stored == 0
    assert done.stored == 64 * 8 * 4
    assert done.memory == 4 * 256 * (1024 * 2 + 8 * 4)
    assert done.steps == (7 * 3, 7 * 6, 0)


def test_forward_writes_every_rate_once() -> None:
    done = work("forward", USE, TILE)
    written = sum(loop.turns * loop.stored for loop in done.loops)
    assert written == 3 * 64 * 1024 * 2
    assert done.loops[1].loaded == 32 * 48 * 4
    assert done.memory == 4 * 256 * (4 * 1024 * 2 + 8 * 4 + 72 * 4)


def test_backward_reads_gradients_twice_and_writes_that_of_the_latent_once() -> None:
    rows = [work("rows", USE, TILE, g) for g in (0, 1)]
    assert sum(loop.turns * loop.stored for r in rows for loop in r.loops) == 64 * 1024 * 2
    weights = work("weights", USE, TILE, 1)
    assert weights.loops[0].turns == 16 / 16  # 16 tiles in as many slabs
    assert weights.loops[0].loaded == 64 * 32 * 2 * 4 + 64 * 4 * (64 + 64)
    assert work("cross", USE, TILE, 1).loops[0].fma == 64 * 64 * 64
    assert work("reduce", USE, TILE).steps == (16,)


def test_codes_are_read_whole_and_written_packed() -> None:
    assert work("pack", USE, TILE).memory == 4 * 256 * 8 * 4 + 4 * 256 * 8 * 15 // 8


def test_least_of_an_operator_has_no_padding() -> None:
    assert least("encode", USE) == (1024 * (2048 + 32), 1024 * 8 * (3 * 256 + 6 * 768))
    assert least("backward", USE)[0] == 1024 * (5 * 2048 + 288)


def test_wide_tokens_take_eight_bytes() -> None:
    plan = make_plan(describe(BDRFSQConfig(blocks=(Block("x", 64, (64,) * 7),), num_stages=2)))
    use = Use(plan, 4, 1, 10, (2,))
    assert work("encode", use, Tile(16, 64, 4)).memory == 10 * (64 * 4 + 2 * 8)


def test_the_slowest_of_three_is_the_prediction() -> None:
    gpu = GPUS["sm_90"]
    done = work("encode", USE, TILE)
    found = predict(
        done, gpu, programs=16, warps=8, registers=80, shared=20480, instructions=10_000
    )
    assert found.memory == done.memory / 3.35e12
    # 16 programs on 132 multiprocessors take as long as one.
    a_program = sum(loop.turns * loop.fma for loop in done.loops)
    assert found.multiply == pytest.approx(a_program / (128 * 1.98e9))
    assert found.issue == pytest.approx(8 * 10_000 / (4 * 1.98e9))
    assert found.seconds == max(found.memory, found.multiply, found.issue)
    assert (found.resident, found.warps, found.most_warps) == (3, 24, 64)
    more = predict(
        done, gpu, programs=133, warps=8, registers=80, shared=20480, instructions=10_000
    )
    assert more.issue == pytest.approx(2 * found.issue)
    assert more.bound in ("memory", "multiply", "issue")
