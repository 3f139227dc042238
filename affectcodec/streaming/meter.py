# SPDX-License-Identifier: Apache-2.0
"""What a live stream costs: bit rate, frame times and delay, for a line on a terminal."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

WINDOW = 3000  # frame times kept: a minute


class Meter:
    """Counts bytes and frames, and keeps the last frame times and delays.

    Args:
        frame_seconds: audio of a frame.
    """

    def __init__(self, frame_seconds: float) -> None:
        self.frame_seconds = frame_seconds
        self.frames = 0
        self.bytes = 0
        self.lost = 0
        self._times: deque[float] = deque(maxlen=WINDOW)
        self._delays: deque[float] = deque(maxlen=WINDOW)

    @contextmanager
    def step(self, frames: int = 1) -> Iterator[None]:
        """Time the coding of ``frames`` frames."""
        start = time.perf_counter()
        yield
        self._times.append((time.perf_counter() - start) / max(1, frames))
        self.frames += frames

    def packet(self, size: int) -> None:
        """A packet of so many bytes."""
        self.bytes += size

    def delay(self, seconds: float) -> None:
        """Time from the capture of a frame until it is played."""
        self._delays.append(seconds)

    @property
    def kbps(self) -> float:
        """Bit rate of the packets that were counted."""
        return 8 * self.bytes / 1000 / max(self.frames * self.frame_seconds, 1e-9)

    def percentile(self, share: float) -> float:
        """Milliseconds a frame took, at ``share`` percent of the last frames."""
        return 1000 * float(np.percentile(self._times, share)) if self._times else 0.0

    def line(self) -> str:
        """All of it on one line."""
        times = "/".join(f"{self.percentile(p):.2f}" for p in (50, 99, 99.9))
        text = f"{self.frames * self.frame_seconds:7.1f} s  "
        text += f"{self.kbps:5.2f} kbit/s  " if self.bytes else ""
        text += f"frame p50/p99/p99.9 {times} ms"
        if self._delays:
            text += f"  delay {1000 * float(np.median(self._delays)):.0f} ms"
        return text + (f"  lost {self.lost}" if self.lost else "")
