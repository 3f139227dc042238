# SPDX-License-Identifier: Apache-2.0
"""The gate on compiled kernels, and the table of them.

    python -m affectcodec.kernels.gate                         # every kernel and architecture
    python -m affectcodec.kernels.gate --write docs/gpu.md     # and the tables of that page

Triton kernels are compiled here, CUDA kernels are read out of the built module by ``cuda_aot``.
Refused are spills and stack, matrix instructions that round the factors of a product, accesses
below 16 bytes in the product loops of the aligned path, narrower stores besides them other than
those of tokens and of sums over a tile, product loops that are not those of the model in
``roofline``, and ``encode``, ``forward`` or ``decode`` that move over a tenth more than they must.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter

import click

from affectcodec.config import BDRFSQConfig
from affectcodec.kernels import cuda_aot, objects
from affectcodec.kernels.aot import RATES, TARGETS, Case, Row, rows
from affectcodec.kernels.hardware import GPUS, Gpu
from affectcodec.kernels.page import widths, write_table
from affectcodec.kernels.plan import describe, make_plan
from affectcodec.kernels.roofline import Loop, Prediction, Use, Work, predict, work

# Bytes and multiply-adds of a product loop may differ from the model's by this share: the loop of
# `cross` adds up one row of sums a tile as well.
TOLERANCE = 0.05
MOST_TRAFFIC = 1.1
WIDE = 16  # bytes of an access
# Stores of a thread that may be narrower: its tokens, or two sums over a tile.
FEW_STORES = 2


def use_of(case: Case, config: BDRFSQConfig | None = None) -> Use:
    """What the model needs to know of a use."""
    plan = make_plan(describe(config or BDRFSQConfig()))
    rates = (plan.stages,) if case.op == "decode" else (*RATES, plan.stages)
    return Use(plan, case.dtype.itemsize, case.batch, case.frames, rates)


def model(row: Row) -> Work:
    return work(row.kernel, use_of(row.case), row.tile, row.block)


def _product_loops(row: Row) -> list[objects.Loop]:
    """The loops of the object that hold a product: the others have next to no multiply-adds."""
    return [loop for loop in row.facts.loops if loop.fma * row.facts.threads >= 4096]


def _turns(loop: objects.Loop, expected: Loop, threads: int) -> int:
    """Turns of the model's loop that one turn of the object's does: a compiler may unroll."""
    return max(1, round(loop.moved * threads / (expected.loaded + expected.stored)))


def differences(row: Row) -> list[str]:
    """Where the product loops of the object are not those of the model.

    Warps without a part of their own in a small product of matrix instructions repeat another's.
    """
    found, wanted = _product_loops(row), model(row).loops
    if len(found) != len(wanted):
        return [f"{len(found)} product loops, the model has {len(wanted)}"]
    out = []
    for i, (loop, expected) in enumerate(zip(found, wanted, strict=True)):
        moved, multiplied = loop.moved * row.facts.threads, loop.fma * row.facts.threads
        bytes_a_turn = expected.loaded + expected.stored
        turns = _turns(loop, expected, row.facts.threads)
        if abs(moved - turns * bytes_a_turn) > TOLERANCE * turns * bytes_a_turn:
            out.append(f"product loop {i} moves {moved} bytes, the model says {bytes_a_turn}")
        wanted_fma = turns * expected.fma
        repeats = row.tile.warps if loop.tensor_core else 1
        low, high = (1 - TOLERANCE) * wanted_fma, (1 + TOLERANCE) * wanted_fma * repeats
        if not low <= multiplied <= high:
            out.append(f"product loop {i} multiplies {multiplied}, the model says {wanted_fma}")
    return out


def traffic(row: Row) -> float | None:
    """Bytes a frame that the object moves: its product loops, and what it stores besides them.

    The tables of the recurrence, a few kilobytes that every program reads, are not counted, here
    nor in :func:`floor`. None where it is not counted: small uses, ``backward``, packing.
    """
    if row.case.op not in ("encode", "forward", "decode") or not row.case.aligned:
        return None
    loops, wanted, facts = _product_loops(row), model(row).loops, row.facts
    if len(loops) != len(wanted):
        return None
    moved = 0.0
    for loop, expected in zip(loops, wanted, strict=True):
        turns = expected.turns / _turns(loop, expected, facts.threads)
        moved += turns * loop.moved * facts.threads
    inside = sum(w * n for loop in loops for w, n in loop.stores.items())
    stored = sum(w * n for w, n in facts.stores.items()) - inside
    return (moved + stored * facts.threads) / row.tile.frames


def floor(row: Row) -> float:
    """Fewest bytes a frame: one read of the latent, one write of each output and of what is saved,
    the folded weights of the products once a program."""
    use = use_of(row.case)
    weights = sum(4 * block.columns * block.width for block in use.plan.blocks)
    products = 2 if row.case.op == "forward" else 1
    return model(row).memory / use.count + products * weights / row.tile.frames


def instructions(row: Row) -> float:
    """Instructions that a warp goes through: loops as often as the model says, the rest once."""
    done, loops = model(row), row.facts.loops
    products = _product_loops(row)
    others = [loop for loop in loops if loop not in products]
    turns = [loop.turns for loop in done.loops] if len(products) == len(done.loops) else []
    counted = list(zip(products, turns, strict=False))
    if len(others) == len(done.steps):
        counted += list(zip(others, done.steps, strict=True))
    return row.facts.instructions + sum((n - 1) * loop.instructions for loop, n in counted)


def prediction(row: Row, gpu: Gpu | None = None) -> Prediction:
    """A prediction, not a measurement."""
    gpu = gpu or GPUS[row.architecture]
    warps = row.facts.threads // gpu.limits.warp
    return predict(
        model(row), gpu, programs=row.programs, warps=warps, registers=row.facts.registers,
        shared=row.facts.shared, instructions=instructions(row),
    )  # fmt: skip


def faults(row: Row) -> list[str]:
    """What the gate holds against a compiled kernel; empty where it passes."""
    found = []
    facts = row.facts
    if facts.spills or facts.stack:
        found.append(f"spills {facts.spills} bytes, stack {facts.stack} bytes")
    # Triton 3.7.1 makes tf32 of an ieee product on sm_100 where the tile has 64 frames or more.
    if facts.inexact:
        found.append(
            f"{facts.inexact} matrix instructions that round the factors of an ieee product"
        )
    if not row.case.aligned:
        return found
    for loop in _product_loops(row):
        narrow = {w for w in (*loop.loads, *loop.stores) if w < WIDE}
        if narrow and row.kernel != "cross":
            found.append(f"a product loop has accesses of {sorted(narrow)} bytes")
    short = {w: n for w, n in facts.stores.items() if w < WIDE}
    if sum(short.values()) > FEW_STORES:
        found.append(
            f"{sum(short.values())} stores below {WIDE} bytes, at most {FEW_STORES} may be: "
            f"{widths(short)}"
        )
    found += differences(row)
    counted = traffic(row)
    if counted is not None and counted > MOST_TRAFFIC * floor(row):
        found.append(f"moves {counted:.0f} bytes a frame, {floor(row):.0f} would do")
    if prediction(row).resident == 0:
        found.append("does not fit on a multiprocessor")
    return found


HEAD = (
    "op, kernel", "use", "arch", "registers", "spill", "shared", "loads", "stores", "FMA", "matrix",
    "bytes a frame, of floor", "warps", "predicted us, bound by",
)  # fmt: skip


def table(found: Sequence[Row]) -> str:
    """Markdown table of compiled kernels; its last column is a prediction."""
    lines = ["| " + " | ".join(HEAD) + " |", "|---|---|---" + "|---:" * 3 + "|---" * 7 + "|"]
    for row in found:
        f, expected, counted = row.facts, prediction(row), traffic(row)
        share = "" if counted is None else f"{counted:.0f}, {counted / floor(row):.2f}"
        cells = (
            row.name if row.name == row.case.op else f"{row.case.op}: {row.name}",
            row.case.label, row.architecture, f.registers, f.spills, f.shared, widths(f.loads),
            widths(f.stores), f.fma, f.tensor_core, share,
            f"{expected.warps} of {expected.most_warps}",
            f"{1e6 * expected.seconds:.1f}, {expected.bound}",
        )  # fmt: skip
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def check(
    architectures: Sequence[str], keep: Callable[[Case], bool], jobs: int
) -> tuple[list[Row], int]:
    """Compiles, prints a line for each kernel, and returns them and how many have faults."""
    found, bad = [], 0
    for row in rows(architectures, keep, jobs=jobs):
        found.append(row)
        problems = faults(row)
        bad += bool(problems)
        print(
            f"{row.architecture} {row.case.op}: {row.name}, {row.case.label}: "
            f"{row.facts.registers} registers, {row.seconds:.1f} s"
            + "".join(f"\n  FAULT {problem}" for problem in problems),
            flush=True,
        )
    return found, bad


def check_cuda(architectures: Sequence[str], page: Path | None, *, needed: bool) -> tuple[int, int]:
    """Reads the CUDA kernels for those of the architectures that they are for.

    Args:
        needed: whether it is an error if the module is not there.

    Returns:
        kernels, and those with faults.

    Raises:
        click.ClickException: ``needed``, and the module is not there.
    """
    names = tuple(name for name in architectures if name in cuda_aot.ARCHITECTURES)
    if not names:
        return 0, 0
    try:
        found, bad = cuda_aot.check(names)
    except RuntimeError as error:
        if needed:
            raise click.ClickException(f"CUDA kernels were not judged: {error}") from error
        print(f"CUDA kernels were not judged: {error}")
        return 0, 0
    if page:
        write_table(page, "compiled CUDA kernels", cuda_aot.table(found))
    return len(found), bad


@click.command()
@click.option("--arch", multiple=True, type=click.Choice(tuple(TARGETS)), help="Default: all.")
@click.option("--op", multiple=True, help="encode, forward, backward, decode, ... of Triton alone.")
@click.option(
    "--backend", multiple=True, type=click.Choice(("triton", "cuda")),
    help="Default: both; CUDA only where its module is built, except with --write.",
)  # fmt: skip
@click.option("--jobs", default=os.cpu_count() or 1, show_default=True, help="Processes.")
@click.option("--write", "page", type=click.Path(path_type=Path), help="Page with the tables.")
def main(
    arch: tuple[str, ...],
    op: tuple[str, ...],
    backend: tuple[str, ...],
    jobs: int,
    page: Path | None,
) -> None:
    """Judge every kernel for every architecture by what the compiler made of it.

    Triton kernels are compiled, CUDA kernels read out of the built module. No GPU is needed. The
    exit code is 1 where a kernel does not pass.
    """
    if os.environ.get("TRITON_INTERPRET") == "1":
        raise click.UsageError("unset TRITON_INTERPRET: interpreted kernels cannot be compiled")
    start = perf_counter()
    architectures = arch or tuple(TARGETS)
    kernels = bad = 0
    if "cuda" in backend or not (backend or op):
        needed = "cuda" in backend or page is not None
        kernels, bad = check_cuda(architectures, page, needed=needed)
    if "triton" in backend or not backend:
        found, more = check(architectures, lambda case: not op or case.op in op, jobs)
        kernels, bad = kernels + len(found), bad + more
        if page:
            write_table(page, "compiled kernels", table(found))
    print(f"{kernels} kernels in {perf_counter() - start:.0f} s, {bad} with faults")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
