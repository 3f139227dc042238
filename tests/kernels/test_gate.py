# SPDX-License-Identifier: Apache-2.0
"""What the gate refuses, on made-up objects; the real ones are for ``test_aot``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click
import pytest
import torch

from affectcodec.kernels import cuda_aot, gate
from affectcodec.kernels.aot import Case, Row
from affectcodec.kernels.configs import tile_for
from affectcodec.kernels.objects import Facts, Loop
from affectcodec.kernels.page import write_table

THREADS = 256


def decode_row(*, unrolled: int = 1, repeated: int = 1) -> Row:
    """A ``decode`` on gfx942 whose object does what the model says, 16 bytes at a time."""
    case = Case("decode", torch.float32, True)
    tile = tile_for("decode", case.batch * case.frames, "gfx942")
    empty = Facts(0, 0, 0, 0, THREADS, {}, {}, 0, 0, 0, 0)
    row = Row(case, "gfx942", "decode", None, "decode", tile, 256, empty, 0.0)
    loops = tuple(
        Loop(
            {16: unrolled * expected.loaded // THREADS // 16},
            {16: unrolled * expected.stored // THREADS // 16},
            instructions=100,
            fma=unrolled * repeated * expected.fma // THREADS,
            tensor_core=16,
        )
        for expected in gate.model(row).loops
    )
    stores = {16: sum(loop.stores[16] for loop in loops)}
    facts = Facts(
        registers=100, spills=0, stack=0, shared=16384, threads=THREADS, loads={16: 4},
        stores=stores, tensor_core=32, inexact=0, fma=0, instructions=1000, loops=loops,
    )  # fmt: skip
    return replace(row, facts=facts)


def test_what_does_as_the_model_says_passes() -> None:
    row = decode_row()
    assert gate.faults(row) == []
    counted = gate.traffic(row)
    assert counted is not None and counted / gate.floor(row) == pytest.approx(1, abs=0.01)


def test_turns_that_a_compiler_joined_move_no_more() -> None:
    row = decode_row(unrolled=2)
    assert gate.faults(row) == []
    assert gate.traffic(row) == gate.traffic(decode_row())


@pytest.mark.parametrize(("repeated", "passes"), [(1, True), (2, True), (4, True), (5, False)])
def test_a_product_is_repeated_at_most_in_every_warp(repeated: int, passes: bool) -> None:
    row = decode_row(repeated=repeated)
    assert row.tile.warps == 4
    assert (gate.faults(row) == []) == passes


def test_fewer_multiply_adds_than_the_model_says_are_refused() -> None:
    row = decode_row()
    loops = tuple(replace(loop, fma=loop.fma * 3 // 4) for loop in row.facts.loops)
    (first, second) = gate.faults(replace(row, facts=replace(row.facts, loops=loops)))
    assert "multiplies" in first and "multiplies" in second


@pytest.mark.parametrize("loads", [False, True])
def test_narrow_accesses_of_a_product_loop_are_refused(loads: bool) -> None:
    row = decode_row()
    loop = row.facts.loops[0]
    narrow = (
        replace(loop, loads={4: 4 * loop.loads[16]}) if loads
        else replace(loop, stores={4: 4 * loop.stores[16]})
    )  # fmt: skip
    facts = replace(row.facts, loops=(narrow, row.facts.loops[1]))
    assert gate.faults(replace(row, facts=facts)) == ["a product loop has accesses of [4] bytes"]


@pytest.mark.parametrize(("count", "passes"), [(2, True), (3, False)])
def test_narrow_stores_outside_of_the_loops_are_few(count: int, passes: bool) -> None:
    row = decode_row()
    facts = replace(row.facts, stores={**row.facts.stores, 4: count})
    found = gate.faults(replace(row, facts=facts))
    assert found == ([] if passes else ["3 stores below 16 bytes, at most 2 may be: 3x4"])


def test_without_the_module_the_cuda_kernels_are_left_out_unless_needed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(architectures: object) -> None:
        raise RuntimeError("built without nvcc")

    monkeypatch.setattr(cuda_aot, "check", missing)
    assert gate.check_cuda(("sm_80", "gfx942"), None, needed=False) == (0, 0)
    assert "not judged: built without nvcc" in capsys.readouterr().out
    with pytest.raises(click.ClickException, match="not judged: built without nvcc"):
        gate.check_cuda(("sm_80",), None, needed=True)
    assert gate.check_cuda(("gfx942",), None, needed=True) == (0, 0)


def test_a_page_without_markers_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- a: begin -->\n")
    with pytest.raises(ValueError, match="markers"):
        write_table(page, "a", "text\n")
    assert page.read_text() == "<!-- a: begin -->\n"
