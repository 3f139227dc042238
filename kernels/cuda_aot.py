# SPDX-License-Identifier: Apache-2.0
"""Reads the compiled CUDA kernels out of the built module and holds them to the gate.

    python -m affectcodec.kernels.gate --backend cuda

Nothing is compiled: what is read is what is shipped, ``affectcodec._cuda``, for each architecture
it was built for. No GPU is needed. The tools that read it come with the triton package.
"""

from __future__ import annotations

import ctypes
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch  # noqa: F401 - brings the libraries that the module is linked to

from affectcodec import _native
from affectcodec.config import BDRFSQConfig
from affectcodec.kernels import objects
from affectcodec.kernels.page import widths
from affectcodec.ops.bd_rfsq.folding import describe

ARCHITECTURES = ("sm_80", "sm_90", "sm_100", "sm_120")
RATES = (2, 4)  # of forward, besides all stages
UNIT, DEPTH, THREADS = 64, 16, 128  # see csrc/cuda/arguments.h
TYPES = {"f": ("fp32", 4), "8BFloat16": ("bf16", 2), "7Float16": ("fp16", 2),
         "i": ("int32", 4), "l": ("int64", 8)}  # fmt: skip
PRODUCTS = ("encode", "forward", "backward_rows", "backward_weights", "backward_cross")
MATRIX = ("forward", "decode", "backward_rows")  # on tensor cores where the latent has 16 bits
_FUNCTION = re.compile(
    r"_ZN11affectcodec4cuda\d+(\w+?)_kernel(?:I(?:NS0_)?(f|8BFloat16|7Float16|i|l)E)?"
)


@dataclass(frozen=True)
class Row:
    """One compiled kernel."""

    kernel: str
    dtype: str  # empty where there is one form only
    itemsize: int
    architecture: str
    facts: objects.Facts


def library() -> Path:
    """The built module.

    Raises:
        RuntimeError: it is not there; the message says why.
    """
    loaded = _native.load("affectcodec._cuda")
    if loaded.module is None or loaded.module.__file__ is None:
        raise RuntimeError(f"affectcodec._cuda: {loaded.reason}")
    return Path(loaded.module.__file__)


def _run(name: str, *arguments: str, folder: str | None = None) -> str:
    done = subprocess.run(
        [objects.tool(name), *arguments], capture_output=True, text=True, check=True, cwd=folder
    )
    return done.stdout


def _shared(path: Path, kernel: str, itemsize: int) -> int:
    config = describe(BDRFSQConfig())
    ask = ctypes.CDLL(str(path)).affectcodec_cuda_shared
    ask.restype = ctypes.c_int64
    numbers = (ctypes.c_int64 * len(config))(*config)
    return int(ask(numbers, ctypes.c_int64(len(config)), kernel.encode(), itemsize))


def _sections(sass: str) -> Iterator[tuple[str, str]]:
    parts = re.split(r"^//-+ \.text\.(\S+) -+$", sass, flags=re.M)
    yield from zip(parts[1::2], parts[2::2], strict=True)


def rows(architectures: Sequence[str] = ARCHITECTURES, path: Path | None = None) -> list[Row]:
    """Every kernel of the module for each architecture, in the order of their names.

    Raises:
        RuntimeError: the module was not built for one of the architectures.
    """
    path = path or library()
    found = []
    with tempfile.TemporaryDirectory() as folder:
        _run("cuobjdump", "-xelf", "all", str(path), folder=folder)
        for name in architectures:
            cubins = sorted(Path(folder).glob(f"*.{name}.cubin"))
            if not cubins:
                raise RuntimeError(f"{path.name} was not built for {name}")
            for cubin in cubins:
                usage = re.findall(
                    r"Function (\w+):\s+(.*)", _run("cuobjdump", "-res-usage", str(cubin))
                )
                used = {
                    function: {k: int(v) for k, v in re.findall(r"([A-Z]+):(\d+)", text)}
                    for function, text in usage
                }
                for function, sass in _sections(_run("nvdisasm", "-c", str(cubin))):
                    known = _FUNCTION.match(function)
                    if known is None:
                        continue
                    kernel, kind = known.group(1), known.group(2)
                    dtype, size = TYPES[kind] if kind else ("", 4)
                    threads = 256 if kernel in ("pack", "unpack", "reduce") else THREADS
                    facts = objects.facts_of(
                        sass, used[function], shared=_shared(path, kernel, size), threads=threads
                    )
                    found.append(Row(kernel, dtype, size, name, facts))
    order = {name: i for i, name in enumerate(architectures)}
    return sorted(found, key=lambda r: (order[r.architecture], r.kernel, r.itemsize, r.dtype))


def product_loops(row: Row) -> list[tuple[int, objects.Loop]]:
    """Loops that multiply a latent, each with the rows that a thread makes in it."""
    if row.kernel not in PRODUCTS:
        return []
    each = DEPTH * 4  # multiply-adds for one row: 16 terms of four columns
    return [
        (loop.fma // each, loop)
        for loop in row.facts.loops
        if loop.fma // each in (3, 6, 8) and loop.fma % each == 0
    ]


def faults(row: Row) -> list[str]:
    """What the gate holds against a compiled kernel; empty where it passes."""
    facts, found = row.facts, []
    if facts.spills or facts.stack:
        found.append(f"spills {facts.spills} bytes, stack {facts.stack} bytes")
    meant = row.kernel in MATRIX and row.itemsize == 2
    if bool(facts.tensor_core) != meant:
        wanted = "some" if meant else "none: it rounds the factors of a product"
        found.append(f"{facts.tensor_core} matrix instructions, wanted {wanted}")
    if row.kernel not in PRODUCTS:
        return found
    loops = product_loops(row)
    if {rows for rows, _ in loops} != {3, 6, 8}:
        found.append(f"product loops for {sorted(r for r, _ in loops)} rows, wanted 3, 6 and 8")
    for rows_each, loop in loops:
        narrow = {width: n for width, n in loop.loads.items() if width < 16}
        # Counts of active stages, one a frame, found once a unit of frames.
        if row.kernel in ("backward_weights", "backward_cross"):
            narrow[8] = narrow.get(8, 0) - 1
        # The way for memory that is not aligned takes the 8 elements of a thread one by one; the
        # two aligned ways, along frames and along channels, have nothing but 16 bytes.
        if row.kernel != "backward_cross":
            narrow[row.itemsize] = narrow.get(row.itemsize, 0) - 8
        if any(narrow.values()):
            found.append(f"accesses below 16 bytes on the aligned path, {rows_each} rows: {narrow}")
        if loop.loads.get(16, 0) != _panels(rows_each) + _ways(row) * _vectors(row):
            found.append(f"{loop.loads} in the loop of {rows_each} rows")
    return found


def _panels(rows_each: int) -> int:
    """Accesses of 16 bytes by which a thread fetches its part of the weights of a step."""
    return -(-DEPTH * 8 * rows_each // 4 // THREADS)


def _vectors(row: Row) -> int:
    """Accesses of 16 bytes by which a thread fetches its part of a tile of a latent."""
    return DEPTH * UNIT * row.itemsize // 16 // THREADS


def _ways(row: Row) -> int:
    return 1 if row.kernel == "backward_cross" else 2


def traffic(row: Row) -> tuple[float, float] | None:
    """Bytes a frame that the product loops move on the aligned path, and the fewest that would do.

    Counted for ``encode`` and ``forward`` of the default quantizer. The fewest: the latent read
    once, each output written once, the weights once a block of threads. Tokens and what is saved
    for the backward come on top of both.
    """
    if row.kernel not in ("encode", "forward"):
        return None
    config = BDRFSQConfig()
    loops = dict(product_loops(row))
    moved = fewest = 0.0
    outputs = len(RATES) + 1 if row.kernel == "forward" else 0
    for block in config.blocks:
        columns = config.num_stages * block.code_dim
        loop = loops[columns // 8]
        # Of the lanes that fetch weights those past the panel do nothing.
        weights = DEPTH * columns * 4
        tile = (loop.loads[16] - _panels(columns // 8)) / _ways(row) * THREADS * 16
        moved += block.width / DEPTH * (weights + tile)
        fewest += block.width * (UNIT * row.itemsize + columns * 4)
        if outputs:
            out = columns * 4 + (config.num_stages + 1) * 4 + outputs * UNIT * row.itemsize
            moved += block.width * out
            fewest += block.width * (columns * 4 + outputs * UNIT * row.itemsize)
    return moved / UNIT, fewest / UNIT


def table(found: Sequence[Row]) -> str:
    """Markdown table of compiled kernels."""
    lines = [
        "| kernel | type | arch | registers | spill | shared | loads | stores | FMA | matrix "
        "| bytes a frame, of floor |",
        "|---|---|---|---:|---:|---:|---|---|---:|---:|---|",
    ]
    for row in found:
        f, counted = row.facts, traffic(row)
        share = "" if counted is None else f"{counted[0]:.0f}, {counted[0] / counted[1]:.2f}"
        lines.append(
            f"| {row.kernel} | {row.dtype} | {row.architecture} | {f.registers} | {f.spills} | "
            f"{f.shared} | {widths(f.loads)} | {widths(f.stores)} | {f.fma} | "
            f"{f.tensor_core} | {share} |"
        )
    return "\n".join(lines) + "\n"


def check(architectures: Sequence[str] = ARCHITECTURES) -> tuple[list[Row], int]:
    """Reads every kernel and prints a line for each; returns them and how many have faults.

    Raises:
        RuntimeError: the module is not there, not built for one of the architectures, or has not
            the same kernels for each.
    """
    found, bad = rows(architectures), 0
    for row in found:
        problems = faults(row)
        counted = traffic(row)
        if counted is not None and not counted[1] <= counted[0] <= 1.1 * counted[1]:
            problems.append(f"moves {counted[0]:.0f} bytes a frame, {counted[1]:.0f} would do")
        bad += bool(problems)
        print(
            f"{row.architecture} CUDA {row.kernel} {row.dtype}: {row.facts.registers} registers"
            + "".join(f"\n  FAULT {problem}" for problem in problems),
            flush=True,
        )
    expected = Counter(r.architecture for r in found)
    if len(set(expected.values())) != 1:
        raise RuntimeError(f"kernels differ between architectures: {dict(expected)}")
    return found, bad
