# SPDX-License-Identifier: Apache-2.0
"""Freed memory goes back to the system."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from affectcodec.corpus import memory

# Small blocks between which a large one was freed: the allocator keeps the hole.
HOLE = """
import ctypes, sys
from pathlib import Path
from affectcodec.corpus.memory import Trimmer

def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))

trim = Trimmer(0.0)
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
blocks = [libc.malloc(100_000) for _ in range(1000)]
for block in blocks:
    ctypes.memset(block, 1, 100_000)
for block in blocks[:-1]:
    libc.free(block)
before = anonymous()
assert trim()
print(before - anonymous())
"""


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or not hasattr(ctypes.CDLL(None), "malloc_trim"),
    reason="malloc_trim is glibc's",
)
def test_holes_in_the_heap_are_handed_back() -> None:
    done = subprocess.run([sys.executable, "-c", HOLE], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 80_000  # kB, of 97,600


def test_not_more_often_than_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    now = [100.0]
    monkeypatch.setattr(memory, "_trim", lambda: calls.append)
    monkeypatch.setattr(memory.time, "monotonic", lambda: now[0])
    trim = memory.Trimmer(10.0)
    outcomes = []
    for now[0] in (105.0, 110.0, 119.0, 120.0):
        outcomes.append(trim())
    assert outcomes == [False, True, False, True]
    assert calls == [0, 0]


def test_another_allocator_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_trim", lambda: None)
    assert not memory.Trimmer(0.0)()
