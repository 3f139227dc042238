# SPDX-License-Identifier: Apache-2.0
"""Compiles every kernel in its production configurations ahead of time and reads what came out.

No GPU is needed, nor asked: the ops run on ``meta`` tensors, their launches are recorded, and each
is compiled for each architecture just as its first launch would be. Registers, spills, shared
memory, access widths and instructions are read from the compiled object; ``gate`` judges them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
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
BATCH, FRAMES = 16, 1024  # large and aligned; the other size is a single frame of a stream
RATES = (2, 4)  # and all stages


@dataclass(frozen=True)
class Case:
    """One production use of one op."""

    op: str
    dtype: torch.dtype
    channels_last: bool
    batch: int = BATCH
    frames: int = FRAMES
    masked: bool = False

    @property
    def aligned(self) -> bool:
        return self.frames % 16 == 0

    @property
    def label(self) -> str:
        layout = "[B, T, D]" if self.channels_last else "[B, D, T]"
        if self.op in ("pack_bits", "unpack_bits"):
            return "15 bits"
        size = "" if self.frames == FRAMES else f", T = {self.frames}"
        return f"{objects.short(self.dtype)} {layout}{size}{', counts' * self.masked}"


def cases() -> Iterator[Case]:
    """What is compiled: every op in every layout, and every type where types differ."""
    for op in ("encode", "forward", "backward", "decode"):
        for channels_last in (False, True):
            yield Case(op, torch.float32, channels_last)
            yield Case(op, torch.bfloat16, channels_last)
        if op != "backward":  # what holds for one 16-bit type there holds for the other
            yield Case(op, torch.float16, True)
        yield Case(op, torch.float32, True, 1, 1)
        if op != "encode":  # stage counts of each sample, as in training
            yield Case(op, torch.float32, True, masked=True)
    yield Case("pack_bits", torch.int32, False)
    yield Case("unpack_bits", torch.int32, False)


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
    batch, frames, last = case.batch, case.frames, case.channels_last
    shape = (batch, frames, plan.width) if last else (batch, plan.width, frames)
    weights = _meta(plan.floats)
    counts = _meta(batch, len(plan.blocks), dtype=torch.int64) if case.masked else None
    with launch.recording(architecture) as calls:
        if case.op == "pack_bits":
            pack_bits(_meta(batch * plan.stages * frames, dtype=torch.int32), 15)
        elif case.op == "unpack_bits":
            count = batch * plan.stages * frames
            unpack_bits(_meta((count * 15 + 7) // 8, dtype=torch.uint8), 15, count, torch.int32)
        elif case.op == "decode":
            tokens = _meta(batch, plan.stages, frames, dtype=torch.int32)
            decode(tokens, weights, description, counts, last, case.dtype)
        else:
            z = _meta(*shape, dtype=case.dtype)
            if case.op == "encode":
                encode(z, weights, description, last)
            else:
                us, _, saved = forward(z, weights, description, counts, RATES, last)
                if case.op == "backward":
                    calls.clear()
                    backward(
                        [torch.empty_like(u) for u in us], range(len(us)), z, saved, weights,
                        _params(config), description, counts, RATES, last,
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
    """One compiled kernel: what it is for, its launch, and what the compiler made of it.

    Attributes:
        block: which block of the quantizer it serves, None for all.
        seconds: compiling and reading took.
    """

    case: Case
    architecture: str
    kernel: str
    block: int | None
    name: str
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
    block: int | None = None
    for call in launches(case, architecture, config):
        start = time.perf_counter()
        compiled = compile_call(call, TARGETS[architecture])
        if compiled.hash not in known:  # disassembling takes as long as compiling
            known[compiled.hash] = objects.read(compiled, architecture)
        kernel = call.kernel.fn.__name__.removesuffix("_kernel")
        if kernel in ("rows", "weights"):
            block = call.constants["g"]
        elif kernel != "cross":  # it follows the `weights` of its block
            block = None
        name = kernel if block is None else f"{kernel} {config.blocks[block].name}"
        seconds = time.perf_counter() - start
        found.append(
            Row(
                case, architecture, kernel, block, name, call.tile, call.programs,
                known[compiled.hash], seconds,
            )
        )  # fmt: skip
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
