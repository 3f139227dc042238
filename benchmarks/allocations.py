# SPDX-License-Identifier: Apache-2.0
"""Counts calls of the C allocator: malloc, calloc, realloc and the aligned forms, of any library.

A few lines of C stand before glibc's own functions, compiled when they are needed and loaded with
LD_PRELOAD into a process of its own. Small Python objects come from Python's pools and are not
counted; what kernels, NumPy and PyTorch allocate is. Linux with glibc and a C compiler.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

SHIM = "AFFECTCODEC_ALLOCATION_SHIM"

_SOURCE = r"""
#include <errno.h>
#include <stddef.h>
extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);
static unsigned long long calls;
static void note(void) { __atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED); }
unsigned long long allocation_calls(void) { return __atomic_load_n(&calls, __ATOMIC_RELAXED); }
void *malloc(size_t n) { note(); return __libc_malloc(n); }
void *calloc(size_t n, size_t m) { note(); return __libc_calloc(n, m); }
void *realloc(void *p, size_t n) { note(); return __libc_realloc(p, n); }
void *memalign(size_t a, size_t n) { note(); return __libc_memalign(a, n); }
void *aligned_alloc(size_t a, size_t n) { note(); return __libc_memalign(a, n); }
int posix_memalign(void **p, size_t a, size_t n) {
  note();
  *p = __libc_memalign(a, n);
  return *p ? 0 : ENOMEM;
}
"""


class Counter:
    """Calls so far, in a process that :func:`run_counted` started."""

    def __init__(self) -> None:
        self._calls = ctypes.CDLL(os.environ[SHIM]).allocation_calls
        self._calls.restype = ctypes.c_ulonglong

    def __call__(self) -> int:
        return int(self._calls())


def counter() -> Counter | None:
    """The counter of this process, or None where nothing counts."""
    return Counter() if SHIM in os.environ else None


def available() -> bool:
    """Whether calls can be counted here."""
    return sys.platform == "linux" and shutil.which("cc") is not None


def run_counted(arguments: Sequence[str], timeout: float) -> str:
    """Standard output of ``python ARGUMENTS`` with a counted allocator.

    Raises:
        RuntimeError: if there is no compiler, or the command fails.
    """
    if not available():
        raise RuntimeError("counting allocations needs Linux and a C compiler named cc")
    with tempfile.TemporaryDirectory() as place:
        source, shim = Path(place) / "shim.c", Path(place) / "shim.so"
        source.write_text(_SOURCE, encoding="ascii")
        command = ["cc", "-O2", "-shared", "-fPIC", "-o", str(shim), str(source)]
        built = subprocess.run(command, capture_output=True, text=True, timeout=60)
        if built.returncode:
            raise RuntimeError(f"the shim was not built: {built.stderr[-500:]}")
        found = subprocess.run(
            [sys.executable, *arguments],
            cwd=Path(__file__).resolve().parents[1],
            env=os.environ | {"LD_PRELOAD": str(shim), SHIM: str(shim)},
            capture_output=True,
            text=True,
            timeout=timeout,
        )
    if found.returncode:
        raise RuntimeError(f"{list(arguments)} failed: {found.stderr[-2000:]}")
    return found.stdout
