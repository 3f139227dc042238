# SPDX-License-Identifier: Apache-2.0
"""Compiles every kernel in its production configurations ahead of time and reads what came out.

    python -m affectcodec.kernels.aot                   # table of every kernel and architecture
    python -m affectcodec.kernels.aot --write docs/gpu.md

No GPU is needed, nor asked: the ops run on ``meta`` tensors, their launches are recorded, and each
is compiled for each architecture just as its first launch would be. Registers, spills, shared
memory, access widths and instructions are read from the compiled object.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, make_backend
from triton.compiler import compile as compile_kernel
from triton.runtime.jit import create_function_from_signature

from affectcodec.config import BDRFSQConfig
from affectcodec.kernels import launch, objects
from affectcodec.kernels.backward import backward
from affectcodec.kernels.bits import pack_bits, unpack_bits
from affectcodec.kernels.configs import Tile
from affectcodec.kernels.decode import decode
from affectcodec.kernels.encode import encode
from affectcodec.kernels.forward import forward
from affectcodec.kernels.plan import describe, make_plan

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "sm_120": GPUTarget("cuda", 120, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
BATCH, FRAMES = 16, 1024  # large and aligned; and one short clip of a stream
RATES = (2, 4)


@dataclass(frozen=True)
class Case:
    """One production use of one op."""

    op: str
    dtype: torch.dtype
    channels_last: bool
    frames: int

    @property
    def label(self) -> str:
        layout = "[B, T, D]" if self.channels_last else "[B, D, T]"
        if self.op in ("pack_bits", "unpack_bits"):
            return "15 bits"
        size = "" if self.frames == FRAMES else f", T = {self.frames}"
        return f"{objects.short(self.dtype)} {layout}{size}"


def cases() -> Iterator[Case]:
    """What is compiled: every op in every layout, and every type where types differ."""
    for op in ("encode", "forward", "backward", "decode"):
        for channels_last in (False, True):
            yield Case(op, torch.float32, channels_last, FRAMES)
            yield Case(op, torch.bfloat16, channels_last, FRAMES)
        if op != "backward":  # what holds for one 16-bit type there holds for the other
            yield Case(op, torch.float16, True, FRAMES)
        yield Case(op, torch.float32, True, 1)
    yield Case("pack_bits", torch.int32, False, FRAMES)
    yield Case("unpack_bits", torch.int32, False, FRAMES)


def _meta(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def _params(config: BDRFSQConfig) -> list[Tensor]:
    out = []
    for block in config.blocks:
        K, d, D = config.num_stages, block.code_dim, block.width
        for shape in ((K, d, D), (K, d), (K, D, d), (K, D), (K, d), (K, d)):
            out.append(_meta(*shape))
    return out


def launches(case: Case, architecture: str, config: BDRFSQConfig) -> list[launch.Call]:
    """The launches that an op makes on an architecture."""
    description = describe(config)
    plan = make_plan(description)
    batch = BATCH if case.frames > 1 else 1
    shape = (batch, case.frames, plan.width) if case.channels_last else (
        batch, plan.width, case.frames
    )  # fmt: skip
    weights = _meta(plan.floats)
    with launch.recording(architecture) as calls:
        if case.op == "pack_bits":
            pack_bits(_meta(batch * plan.stages * case.frames, dtype=torch.int32), 15)
        elif case.op == "unpack_bits":
            count = batch * plan.stages * case.frames
            unpack_bits(_meta((count * 15 + 7) // 8, dtype=torch.uint8), 15, count, torch.int32)
        elif case.op == "decode":
            tokens = _meta(batch, plan.stages, case.frames, dtype=torch.int32)
            decode(tokens, weights, description, None, case.channels_last, case.dtype)
        else:
            z = _meta(*shape, dtype=case.dtype)
            if case.op == "encode":
                encode(z, weights, description, case.channels_last)
            else:
                us, _, saved = forward(z, weights, description, None, RATES, case.channels_last)
                if case.op == "backward":
                    calls.clear()
                    backward(
                        [torch.empty_like(u) for u in us], range(len(us)), z, saved, weights,
                        _params(config), description, None, RATES, case.channels_last,
                    )  # fmt: skip
    return calls


def compile_call(call: launch.Call, target: GPUTarget) -> Any:
    """Compiles a recorded launch for a target, specialized as the launch itself would be."""
    backend = make_backend(target)
    kernel = call.kernel
    binder = create_function_from_signature(kernel.signature, kernel.params, backend)
    keywords = {**call.constants, **call.tile.options(), "debug": False}
    bound, specialization, _ = binder(*call.args, **keywords)
    # What JITFunction.run does between binding and compiling; it would ask a driver first.
    options, signature, constants, attributes = kernel._pack_args(
        backend, keywords, bound, specialization, {}
    )
    source = ASTSource(kernel, signature, constants, attributes)
    return compile_kernel(source, target=target, options=options.__dict__)


@dataclass(frozen=True)
class Row:
    """One compiled kernel: what it is for, its launch, and what the compiler made of it."""

    case: Case
    architecture: str
    kernel: str
    tile: Tile
    programs: int
    facts: objects.Facts
    seconds: float


def compile_case(
    task: tuple[str, Case], config: BDRFSQConfig | None = None, known: dict[str, Any] | None = None
) -> list[Row]:
    """Compiles and reads the kernels of one use on one architecture."""
    architecture, case = task
    config = config or BDRFSQConfig()
    known = {} if known is None else known
    found = []
    for call in launches(case, architecture, config):
        start = time.perf_counter()
        compiled = compile_call(call, TARGETS[architecture])
        if compiled.hash not in known:  # disassembling takes as long as compiling
            known[compiled.hash] = objects.read(compiled, architecture)
        name = call.kernel.fn.__name__.removesuffix("_kernel")
        if "g" in call.constants:
            name += f" {config.blocks[call.constants['g']].name}"
        seconds = time.perf_counter() - start
        facts = known[compiled.hash]
        found.append(Row(case, architecture, name, call.tile, call.programs, facts, seconds))
    return found


def rows(
    architectures: Sequence[str] = tuple(TARGETS),
    keep: Callable[[Case], bool] = lambda case: True,
    config: BDRFSQConfig | None = None,
    jobs: int = 1,
) -> Iterator[Row]:
    """Compiles and reads in ``jobs`` processes; the order does not depend on them."""
    tasks = [(name, case) for name in architectures for case in cases() if keep(case)]
    if jobs == 1:
        known: dict[str, Any] = {}
        for task in tasks:
            yield from compile_case(task, config, known)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for found in pool.map(partial(compile_case, config=config), tasks):
            yield from found


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
    if row.case.frames > 1:  # the aligned path
        for loop in facts.loops:
            narrow = {w for w in (*loop.loads, *loop.stores) if w < 16}
            # `cross` adds up one row of sums a tile as well.
            if loop.fma and narrow and row.kernel != "cross":
                found.append(f"an inner loop has accesses of {sorted(narrow)} bytes")
    counted = traffic(row)
    if counted is not None and not floor(row) <= counted <= 1.1 * floor(row):
        found.append(f"moves {counted:.0f} bytes a frame, {floor(row):.0f} would do")
    return found


def _counted(row: Row) -> bool:
    """Whether traffic is counted: in the large form, and where SASS can be read."""
    large = row.case.frames > 1 and row.case.op in ("encode", "forward", "decode")
    return large and not row.architecture.startswith("gfx")


def floor(row: Row) -> float:
    """Fewest bytes a frame: the latent read once, each output written once, weights a program.

    Tokens and what is saved for backward come on top, here and in :func:`traffic`.
    """
    plan = make_plan(describe(BDRFSQConfig()))
    size = row.case.dtype.itemsize
    reads = row.case.op != "decode"
    writes = {"encode": 0, "decode": 1}.get(row.case.op, len(RATES) + 1)
    weights = sum(4 * block.columns * block.width for block in plan.blocks)
    products = reads + (writes > 0)
    return size * plan.width * (reads + writes) + products * weights / row.tile.frames


def traffic(row: Row) -> float | None:
    """Bytes a frame that the product loops move, counted from the object; None if not counted.

    Raises:
        RuntimeError: the loops are not those that the op should have.
    """
    if not _counted(row):
        return None
    plan, tile = make_plan(describe(BDRFSQConfig())), row.tile
    steps = {
        "encode": (tile.channels,),
        "decode": (tile.outputs,),
        "forward": (tile.channels, tile.outputs),
    }[row.case.op]
    turns = [block.width // channels for block in plan.blocks for channels in steps]
    loops = [loop for loop in row.facts.loops if loop.fma]
    if len(loops) != len(turns):
        raise RuntimeError(f"{row.case}: {len(loops)} product loops, wanted {len(turns)}")
    total = 0
    for count, loop in zip(turns, loops, strict=True):
        accesses = (*loop.loads.items(), *loop.stores.items())
        total += count * row.facts.threads * sum(width * n for width, n in accesses)
    return total / tile.frames


def _widths(counts: dict[int, int]) -> str:
    return " ".join(f"{n}x{width}" for width, n in sorted(counts.items(), reverse=True)) or "-"


def table(found: Sequence[Row]) -> str:
    """Markdown table of compiled kernels."""
    lines = [
        "| op, kernel | use | arch | registers | spill | shared | loads | stores | FMA | matrix "
        "| bytes a frame, of floor |",
        "|---|---|---|---:|---:|---:|---|---|---:|---:|---|",
    ]
    for row in found:
        f = row.facts
        counted = traffic(row)
        share = "" if counted is None else f"{counted:.0f}, {counted / floor(row):.2f}"
        name = row.kernel if row.kernel == row.case.op else f"{row.case.op}: {row.kernel}"
        lines.append(
            f"| {name} | {row.case.label} | {row.architecture} | {f.registers} | {f.spills} | "
            f"{f.shared} | {_widths(f.loads)} | {_widths(f.stores)} | {f.fma} | "
            f"{f.tensor_core} | {share} |"
        )
    return "\n".join(lines) + "\n"


BEGIN, END = "<!-- compiled kernels: begin -->\n", "<!-- compiled kernels: end -->\n"


def write(path: Path, text: str) -> None:
    """Replaces what stands between the markers of a Markdown file."""
    old = path.read_text(encoding="utf-8")
    head, _, rest = old.partition(BEGIN)
    _, marker, tail = rest.partition(END)
    if not marker:
        raise ValueError(f"{path}: the markers {BEGIN.strip()!r} and {END.strip()!r} are missing")
    path.write_text(head + BEGIN + text + END + tail, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m affectcodec.kernels.aot", description=__doc__)
    parser.add_argument("--arch", action="append", choices=tuple(TARGETS), help="default: all")
    parser.add_argument("--op", action="append", help="default: all")
    parser.add_argument("--jobs", type=int, default=1, help="processes; default: 1")
    parser.add_argument("--write", type=Path, help="Markdown file whose table is replaced")
    arguments = parser.parse_args()
    if os.environ.get("TRITON_INTERPRET") == "1":
        sys.exit("unset TRITON_INTERPRET: interpreted kernels cannot be compiled")
    architectures = tuple(arguments.arch or TARGETS)
    found, bad, start = [], 0, time.perf_counter()
    wanted = rows(
        architectures, lambda c: not arguments.op or c.op in arguments.op, jobs=arguments.jobs
    )
    for row in wanted:
        found.append(row)
        problems = faults(row)
        bad += bool(problems)
        print(
            f"{row.architecture} {row.case.op}: {row.kernel}, {row.case.label}: "
            f"{row.facts.registers} registers, {row.seconds:.1f} s"
            + "".join(f"\n  FAULT {problem}" for problem in problems),
            flush=True,
        )
    if arguments.write:
        write(arguments.write, table(found))
    print(f"{len(found)} kernels in {time.perf_counter() - start:.0f} s, {bad} with faults")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
