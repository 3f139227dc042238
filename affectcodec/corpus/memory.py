# SPDX-License-Identifier: Apache-2.0
"""Memory of a worker that lives for days."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from typing import Any


def _trim() -> Callable[[int], Any] | None:
    """``malloc_trim`` of glibc, None where the allocator is another one."""
    try:
        return getattr(ctypes.CDLL(None), "malloc_trim", None)
    except (OSError, TypeError):
        return None


class Trimmer:
    """Hands freed memory back to the system, at most once in so many seconds.

    Batches of ever different shapes leave holes between what stays, and the heap of glibc grows by
    a third over some hundred batches although nothing is kept. What is handed back must be mapped
    again, some 0.05 s for 200 MB: little, as long as it is rare.

    Args:
        seconds: least time between two calls that do something.
    """

    def __init__(self, seconds: float = 10.0) -> None:
        self._seconds = seconds
        self._last = time.monotonic()
        self._function = _trim()

    def __call__(self) -> bool:
        """Whether the allocator was asked."""
        now = time.monotonic()
        if self._function is None or now - self._last < self._seconds:
            return False
        self._last = now
        self._function(0)
        return True
