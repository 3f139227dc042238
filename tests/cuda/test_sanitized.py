# SPDX-License-Identifier: Apache-2.0
"""The suite of the CUDA kernels under sanitizers and with shared memory watched, in three orders of
threads; each in a process of its own, since the sanitizers have to be there from its start."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.cuda import shim

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(shim.COMPILER is None, reason="needs g++ or clang++"),
]

# The larger cases run in the optimised build alone; every kernel and every path of it is here.
LEFT_OUT = (
    "half_precision", "whatever_stands_beside", "fresh_memory", "bitwise_alike",
    "tokens_are_those_of_the_specification", "and default", "and many",
)  # fmt: skip


def run(variant: str, order: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "AFFECTCODEC_SHIM": variant,
        "SIMT_ORDER": order,
        # Python itself leaks; what the kernels allocate belongs to torch.
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }
    if variant == "asan":
        environment["LD_PRELOAD"] = shim.preload()
    return subprocess.run(
        [
            sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider",
            "-o", "timeout=600", "tests/cuda/test_kernels.py", "tests/cuda/test_values.py",
            "-m", "sanitized",
        ],
        cwd=shim.ROOT, env=environment, capture_output=True, text=True, timeout=1100,
    )  # fmt: skip


@pytest.mark.parametrize("order", ["forward", "reverse", "shuffled"])
def test_sanitizers_find_nothing(order: str) -> None:
    if not shim.preload():
        pytest.skip("the compiler has no sanitizers")
    shim.build("asan")
    done = run("asan", order)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def test_no_access_of_shared_memory_is_unordered() -> None:
    shim.build("races")
    done = run("races", "shuffled")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
