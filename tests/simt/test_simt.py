# SPDX-License-Identifier: Apache-2.0
"""The host shim for CUDA kernels: sound kernels give their results, seeded faults are found."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.cuda import shim

HERE = Path(__file__).parent
ORDERS = ("forward", "reverse", "shuffled")
pytestmark = pytest.mark.skipif(shim.COMPILER is None, reason="needs g++ or clang++")


def _program(folder: Path, variant: str, *definitions: str) -> Path:
    of_kernels, of_shim = shim.variant_flags(variant)
    objects = []
    sources = [HERE / "faults.cpp", *sorted((shim.ROOT / "csrc" / "simt").glob("*.cpp"))]
    for source in sources:
        target = folder / f"{source.stem}.o"
        flags = of_kernels if source.parent == HERE else of_shim
        shim._compile(source, [*flags, *definitions], target)
        objects.append(str(target))
    binary = folder / "faults"
    link = shim.SANITIZERS if variant == "asan" else []
    subprocess.run([str(shim.COMPILER), *link, *objects, "-o", str(binary)], check=True)
    return binary


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    variants = ("plain", "asan", "races") if shim.preload() else ("plain", "races")
    return {v: _program(tmp_path_factory.mktemp(v), v) for v in variants}


def run(program: Path, case: str, order: str = "forward") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(program), case], env={**os.environ, "SIMT_ORDER": order}, capture_output=True,
        text=True, timeout=60,
    )  # fmt: skip


def result_of_sound() -> str:
    values = [i * i % 17 for i in range(192)]
    out = [sum(values[:96]) + 1000, sum(values[96:]) + 1000] + [0] * 94
    total = 0
    for value in out:
        total = (total * 31 + value) % 2**64
    return str(total)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("variant", ["plain", "asan", "races"])
def test_barriers_shuffles_votes_and_broadcasts(programs, variant: str, order: str) -> None:
    if variant not in programs:
        pytest.skip("the compiler has no sanitizers")
    done = run(programs[variant], "sound", order)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == result_of_sound()


def test_fibers_without_assembly(tmp_path: Path) -> None:
    done = run(_program(tmp_path, "plain", "-DSIMT_UCONTEXT"), "sound")
    assert done.stdout.strip() == result_of_sound(), done.stderr


UNWRITTEN = "which nothing has written before it"
UNORDERED = "with no barrier between"
# A race is seen as one or the other, by who comes first.
RACES = {
    "missing_barrier": (UNORDERED, UNWRITTEN),
    "missing_barrier_in_loop": (UNORDERED,),
    "missing_warp_barrier": (UNORDERED, UNWRITTEN),
    "warp_barrier_for_two_warps": (UNORDERED, UNWRITTEN),
    "unwritten_dynamic": ("reads byte 28 of dynamic shared memory, " + UNWRITTEN,),
    "unwritten_static": ("of static shared memory, " + UNWRITTEN,),
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("case", list(RACES))
def test_faults_of_shared_memory(programs, case: str, order: str) -> None:
    done = run(programs["races"], case, order)
    assert done.returncode != 0, done.stdout
    assert done.stderr.startswith(f"simt: {case}, block (")
    assert any(text in done.stderr for text in RACES[case])


DIVERGENT = {
    "divergent_barrier": "waits at __syncthreads in",
    "barrier_in_both_branches": "waits at __syncthreads in",
    "divergent_shuffle": "waits at __shfl_xor_sync in",
    "shuffle_from_outside": "which is not in the mask 0xffff",
    "too_many_threads": "nothing: 1025 threads a block, wanted 1..1024",
    "empty_grid": "a grid of 0 x 1 x 1 cannot be launched",
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("case", list(DIVERGENT))
def test_divergence_and_bad_launches(programs, case: str, order: str) -> None:
    for program in programs.values():
        done = run(program, case, order)
        assert done.returncode != 0, done.stdout
        assert DIVERGENT[case] in done.stderr


def test_a_divergent_barrier_names_both_threads(programs) -> None:
    text = run(programs["plain"], "divergent_barrier").stderr
    assert "divergent barrier: thread 0 waits at __syncthreads in" in text
    assert "thread 40 has left the kernel" in text
    text = run(programs["plain"], "barrier_in_both_branches").stderr
    assert text.count("waits at __syncthreads") == 2


OUTSIDE = {
    "shared_past_the_end": "heap-buffer-overflow",
    "global_past_the_end": "heap-buffer-overflow",
    "misaligned": "misaligned address",
}


@pytest.mark.parametrize("case", list(OUTSIDE))
def test_access_outside_of_memory(programs, case: str) -> None:
    if "asan" not in programs:
        pytest.skip("the compiler has no sanitizers")
    done = run(programs["asan"], case)
    assert done.returncode != 0, done.stdout
    assert OUTSIDE[case] in done.stderr
    assert "faults.cpp:" in done.stderr  # the line of the kernel


def test_an_unknown_order_is_refused(programs) -> None:
    done = run(programs["plain"], "sound", "random")
    assert "SIMT_ORDER=random: wanted forward, reverse or shuffled" in done.stderr
