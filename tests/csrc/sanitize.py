# SPDX-License-Identifier: Apache-2.0
"""Builds the CPU kernels with sanitizers and runs what can find a fault in them: ``make sanitize``.

AddressSanitizer, UndefinedBehaviorSanitizer   kernel_check values on every instruction set, and
                                               the tests of the operators on an instrumented
                                               affectcodec._cpu
ThreadSanitizer                                kernel_check threads
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "sanitize"
OPTIONS = {
    "ASAN_OPTIONS": "detect_leaks=0:halt_on_error=1:detect_stack_use_after_return=1",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
    "TSAN_OPTIONS": "halt_on_error=1",
}
# What starts processes of its own loads the installed build there; compilers are not to be
# instrumented either, and the suite names other backends, too.
SUITE = [
    "tests/ops/test_kernel_values.py", "tests/ops/test_kernel_gradients.py",
    "tests/ops/test_cpu_properties.py", "tests/ops/test_folding.py",
    "tests/ops/test_registry.py", "tests/ops/test_bits.py",
]  # fmt: skip
LEFT_OUT = "instruction or installed_library or compiled or environment or native_parts or triton"


def say(text: str) -> None:
    print(f"-- {text}", flush=True)


def call(*command: str, **environment: str) -> None:
    started = time.monotonic()
    log = BUILD / "log.txt"
    with log.open("w") as out:
        done = subprocess.run(
            command, cwd=ROOT, env={**os.environ, **environment}, stdout=out, stderr=out
        )
    text = log.read_text(errors="replace").strip()
    if done.returncode:
        sys.exit(f"{text[-8000:]}\nfailed: {' '.join(command)}")
    last = text.splitlines()[-1] if text else ""
    say(f"{time.monotonic() - started:.0f} s: {last}")


def tool(name: str) -> str:
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.is_file() else shutil.which(name)
    return found or sys.exit(f"{name} is missing; `pip install {name}`")


def build(folder: Path, sanitizers: str, targets: list[str], *options: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    say(f"building {', '.join(targets)} with {sanitizers}")
    call(
        tool("cmake"), "-S", str(ROOT), "-B", str(folder), "-GNinja",
        f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}", "-DCMAKE_BUILD_TYPE=None",
        f"-DAFFECTCODEC_SANITIZE={sanitizers}", "-DAFFECTCODEC_BUILD_CHECKS=ON",
        "-DAFFECTCODEC_BUILD_PYTHON=OFF", *options,
    )  # fmt: skip
    jobs = os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL") or str(os.cpu_count() or 1)
    call(tool("cmake"), "--build", str(folder), "--parallel", jobs, "--target", *targets)


def runtime(name: str) -> str | None:
    """Path of a shared library of the compiler, None where it does not have it."""
    compiler = os.environ.get("CXX", "c++").split()[0]
    path = subprocess.run(
        [compiler, f"-print-file-name={name}"], capture_output=True, text=True
    ).stdout.strip()
    return path if Path(path).is_absolute() and Path(path).is_file() else None


def run_suite(folder: Path) -> None:
    preload = [runtime("libasan.so"), runtime("libstdc++.so.6")]
    (binary,) = folder.glob("_cpu.*")
    if None in preload:
        sys.exit("the compiler has no shared libasan (GCC does); set CXX=g++")
    say("tests of the operators on the instrumented kernels")
    call(
        sys.executable, "-m", "pytest", "-q", "-x", "-p", "tests.csrc.instrumented",
        "-p", "no:cacheprovider", "-m", "not slow", "-k", f"not ({LEFT_OUT})", *SUITE,
        LD_PRELOAD=" ".join(path for path in preload if path),
        AFFECTCODEC_TEST_CPU=str(binary), **OPTIONS,
    )  # fmt: skip


def main() -> None:
    BUILD.mkdir(parents=True, exist_ok=True)
    torch = importlib.util.find_spec("torch")
    if torch is None or torch.origin is None:
        sys.exit("torch is not installed in this environment")
    folder = BUILD / "address"
    build(
        folder, "address,undefined", ["kernel_check", "_cpu"], "-DAFFECTCODEC_BUILD_CPU=ON",
        f"-DAFFECTCODEC_TORCH_PATH={Path(torch.origin).parent}",
        f"-DPython_EXECUTABLE={sys.executable}",
    )  # fmt: skip
    call(str(folder / "kernel_check"), "values", "60", **OPTIONS)
    run_suite(folder)
    folder = BUILD / "thread"
    # One instruction set will do: what threads share is the same for all of them.
    build(folder, "thread", ["kernel_check"], "-DAFFECTCODEC_WIDE=OFF")
    call(str(folder / "kernel_check"), "threads", "40", **OPTIONS)


if __name__ == "__main__":
    main()
