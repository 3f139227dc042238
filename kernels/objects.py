# SPDX-License-Identifier: Apache-2.0
"""Facts read from a compiled kernel: the object for NVIDIA, the assembly for AMD.

The disassembler and ``cuobjdump`` come with the triton package.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import triton


@dataclass(frozen=True)
class Facts:
    """What one compiled kernel takes and does.

    Attributes:
        registers: a thread; vector registers on AMD.
        spills: bytes of registers that do not fit, spilled to memory.
        stack: bytes of stack or scratch a thread.
        shared: bytes of shared memory a program.
        threads: a program.
        loads, stores: static number of global accesses by bytes a thread, copies to shared
            memory counted as loads.
        tensor_core: static number of matrix instructions.
        inexact: those of them whose factors are narrower than float32.
        fma: static number of float multiply-adds of a thread; matrix instructions are counted by
            what they multiply, shared among the threads of a warp.
        instructions: static number of instructions.
        loops: the innermost loops, each with what one turn of it does.
    """

    registers: int
    spills: int
    stack: int
    shared: int
    threads: int
    loads: dict[int, int]
    stores: dict[int, int]
    tensor_core: int
    inexact: int
    fma: int
    instructions: int
    loops: tuple[Loop, ...] = ()


@dataclass(frozen=True)
class Loop:
    """One turn of an innermost loop: global accesses by bytes a thread, and instructions."""

    loads: dict[int, int] = field(default_factory=dict)
    stores: dict[int, int] = field(default_factory=dict)
    instructions: int = 0
    fma: int = 0
    tensor_core: int = 0

    @property
    def moved(self) -> int:
        """Bytes of a thread."""
        return sum(width * n for counts in (self.loads, self.stores) for width, n in counts.items())


def short(dtype: torch.dtype) -> str:
    names = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
    return names.get(dtype, str(dtype).removeprefix("torch."))


def tool(name: str) -> str:
    """Path of one of NVIDIA's binary utilities in the triton package."""
    return str(Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name)


def read(compiled: Any, architecture: str) -> Facts:
    """Facts of a kernel that triton compiled."""
    if architecture.startswith("gfx"):
        return _read_amd(compiled)
    return _read_nvidia(compiled)


_INSTRUCTION = re.compile(r"^\s+/\*([0-9a-f]+)\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)(.*)$")
_MATRIX = re.compile(r"(HMMA|\w*GMMA|UTC\w*MMA)")
_LABEL = re.compile(r"^(\.L_x?_?\w+):")
_WIDTH = re.compile(r"\.(U?S?8|U?S?16|32|64|128|256)\b")


def _width(opcode: str) -> int:
    found = _WIDTH.search(opcode)
    return int(found.group(1).lstrip("US")) // 8 if found else 4


def disassemble(cubin: bytes) -> str:
    """SASS of a CUDA object."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        done = subprocess.run(
            [tool("nvdisasm"), "-c", file.name], capture_output=True, text=True, check=True
        )
    return done.stdout


def resources(cubin: bytes) -> dict[str, int]:
    """REG, STACK, LOCAL ... of a CUDA object."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        done = subprocess.run(
            [tool("cuobjdump"), "-res-usage", file.name], capture_output=True, text=True, check=True
        )
    return {key: int(value) for key, value in re.findall(r"([A-Z]+):(\d+)", done.stdout)}


@dataclass(frozen=True)
class Instruction:
    opcode: str
    operands: str
    label: str | None = None


def instructions(sass: str) -> Iterator[tuple[int, str, str]]:
    """Position, opcode and operands of each instruction; labels come as opcode ``LABEL``."""
    position = 0
    for line in sass.splitlines():
        label = _LABEL.match(line)
        if label:
            yield position, "LABEL", label.group(1)
            continue
        found = _INSTRUCTION.match(line)
        if found:
            yield position, found.group(2), found.group(3)
            position += 1


def innermost(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans that hold no other one, in order."""
    return sorted(
        s for s in spans if not any(o != s and s[0] <= o[0] and o[1] <= s[1] for o in spans)
    )


def _is_load(opcode: str) -> bool:
    return opcode.startswith(("LDG", "LDGSTS")) and not opcode.startswith("LDGDEPBAR")


def _is_store(opcode: str) -> bool:
    return opcode.startswith("STG")


def _fma(opcode: str) -> int:
    return 2 if opcode.startswith("FFMA2") else int(opcode.startswith("FFMA"))


def _read_nvidia(compiled: Any) -> Facts:
    cubin = compiled.asm["cubin"]
    return facts_of(
        disassemble(cubin),
        resources(cubin),
        shared=compiled.metadata.shared,
        threads=32 * compiled.metadata.num_warps,
    )


def facts_of(sass: str, used: dict[str, int], *, shared: int, threads: int) -> Facts:
    """Facts of one kernel from its SASS and what ``cuobjdump -res-usage`` says of it."""
    loads: Counter[int] = Counter()
    stores: Counter[int] = Counter()
    opcodes: Counter[str] = Counter()
    labels: dict[str, int] = {}
    listing = list(instructions(sass))
    spans = []
    for position, opcode, operands in listing:
        if opcode == "LABEL":
            labels[operands] = position
            continue
        opcodes[opcode.split(".")[0]] += 1
        if _is_load(opcode):
            loads[_width(opcode)] += 1
        elif _is_store(opcode):
            stores[_width(opcode)] += 1
        elif opcode.startswith("BRA"):
            target = re.search(r"\.L\w+", operands)
            if target and target.group(0) in labels:
                spans.append((labels[target.group(0)], position))
    loops = []
    for low, high in innermost(spans):
        body = [op for p, op, _ in listing if low <= p < high + 1 and op != "LABEL"]
        loops.append(
            Loop(
                dict(Counter(_width(op) for op in body if _is_load(op))),
                dict(Counter(_width(op) for op in body if _is_store(op))),
                len(body),
                sum(_fma(op) for op in body),
                sum(bool(_MATRIX.match(op)) for op in body),
            )
        )
    matrix = sum(n for op, n in opcodes.items() if _MATRIX.match(op))
    local = opcodes["LDL"] + opcodes["STL"]
    return Facts(
        registers=used["REG"],
        spills=max(used.get("LOCAL", 0), 4 * local),
        stack=used.get("STACK", 0),
        shared=shared,
        threads=threads,
        loads=dict(loads),
        stores=dict(stores),
        tensor_core=matrix,
        inexact=matrix,  # NVIDIA has no matrix instruction with float32 factors
        fma=opcodes["FFMA"] + 2 * opcodes["FFMA2"],
        instructions=sum(opcodes.values()),
        loops=tuple(loops),
    )


_EXACT = re.compile(r"v_mfma_f32_\d+x\d+x\d+(_\d+b)?_?f32|v_mfma_f64")
_AMD_WIDTH = {"dwordx4": 16, "dwordx3": 12, "dwordx2": 8, "dword": 4, "short": 2, "ushort": 2,
              "sshort": 2, "ubyte": 1, "sbyte": 1, "byte": 1}  # fmt: skip


def _amd_width(opcode: str) -> int:
    for part in reversed(opcode.split("_")):
        if part in _AMD_WIDTH:
            return _AMD_WIDTH[part]
    return 4


_AMD_LINE = re.compile(r"^(?:(\.LBB\w+):(.*)|\s+([a-z]\w+)\s*(\S*))", re.M)
_AMD_LOAD = re.compile(r"(global|buffer|flat)_load")
_AMD_STORE = re.compile(r"(global|buffer|flat)_store")
_MFMA = re.compile(r"v_mfma_\w+?_(\d+)x(\d+)x(\d+)(?:_(\d+)b)?")


def _amd_fma(opcode: str) -> float:
    matrix = _MFMA.match(opcode)
    if matrix:
        m, n, k, blocks = (int(size or 1) for size in matrix.groups())
        return m * n * k * blocks / 64
    return int(bool(re.match(r"v_(fma|fmac)_f32", opcode))) + 2 * opcode.startswith("v_pk_fma_f32")


def _amd_loop(body: list[str]) -> Loop:
    return Loop(
        dict(Counter(_amd_width(op) for op in body if _AMD_LOAD.match(op))),
        dict(Counter(_amd_width(op) for op in body if _AMD_STORE.match(op))),
        len(body),
        int(sum(_amd_fma(op) for op in body)),
        sum(op.startswith("v_mfma") for op in body),
    )


def _read_amd(compiled: Any) -> Facts:
    text = compiled.asm["amdgcn"]
    used = {key: int(value) for key, value in re.findall(r"\.(\w+(?:_count|_size)):\s*(\d+)", text)}
    listing: list[str] = []
    labels: dict[str, int] = {}
    spans = []
    for label, comment, opcode, operand in _AMD_LINE.findall(text[: text.find(".rodata")]):
        if label:
            # What a loop goes on with may stand before it: a branch up to there closes no loop.
            if "Loop" in comment:
                labels[label] = len(listing)
            continue
        if opcode.startswith(("s_cbranch", "s_branch")) and operand in labels:
            spans.append((labels[operand], len(listing)))
        listing.append(opcode)
    whole = _amd_loop(listing)
    return Facts(
        registers=used.get("vgpr_count", 0),
        # Scalar registers spill to lanes of vector registers, not to memory; `stack` would show it.
        spills=4 * used.get("vgpr_spill_count", 0),
        stack=used.get("private_segment_fixed_size", 0),
        shared=compiled.metadata.shared,
        threads=64 * compiled.metadata.num_warps,
        loads=whole.loads,
        stores=whole.stores,
        tensor_core=whole.tensor_core,
        inexact=sum(op.startswith("v_mfma") and not _EXACT.match(op) for op in listing),
        fma=whole.fma,
        instructions=len(listing),
        loops=tuple(_amd_loop(listing[low : high + 1]) for low, high in innermost(spans)),
    )
