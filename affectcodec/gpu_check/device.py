# SPDX-License-Identifier: Apache-2.0
"""The seam to the hardware: clocks, caches, graphs. Whatever is timed or captured goes through it.

The rest of the package runs on a CPU as on a GPU, so that tests can go through all of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

CACHE_FACTOR = 4  # bytes written to displace a cache, in sizes of that cache
DEFAULT_CACHE = 64 * 2**20


class Device(Protocol):
    """Hardware that kernels run on.

    Attributes:
        torch: where tensors are made.
        cold: whether each timed call finds its input outside of the caches.
    """

    torch: torch.device
    cold: bool

    def facts(self) -> dict[str, Any]:
        """What the report says of it."""

    def synchronize(self) -> None:
        """Wait until all that was asked for is done."""

    def time(self, call: Callable[[], object], runs: int) -> list[float]:
        """Seconds of each of ``runs`` calls."""

    def capture(self, call: Callable[[], object]) -> Callable[[], None] | None:
        """A graph of the call that can be replayed; None where there is no such thing."""


class CpuDevice:
    """This CPU; the clock of the system."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.torch = torch.device("cpu")
        self.cold = False
        self._clock = clock

    def facts(self) -> dict[str, Any]:
        return {"kind": "cpu", "threads": torch.get_num_threads()}

    def synchronize(self) -> None:
        return None

    def time(self, call: Callable[[], object], runs: int) -> list[float]:
        seconds = []
        for _ in range(runs):
            start = self._clock()
            call()
            seconds.append(self._clock() - start)
        return seconds

    def capture(self, call: Callable[[], object]) -> Callable[[], None] | None:
        return None


class CudaDevice:
    """A GPU of NVIDIA or AMD, as ``torch.cuda`` shows both.

    Calls are timed by events on the stream they run on. Before each call a buffer larger than the
    second-level cache is written, so that the call reads its input from memory.

    Args:
        cuda: ``torch.cuda``, or what stands in for it.
    """

    def __init__(self, index: int = 0, cuda: Any = torch.cuda, where: str = "cuda") -> None:
        self.torch = torch.device(where, index) if where == "cuda" else torch.device(where)
        self.cold = True
        self._cuda = cuda
        self._properties = cuda.get_device_properties(index)
        size = getattr(self._properties, "L2_cache_size", 0) or DEFAULT_CACHE
        self._buffer: Tensor = torch.empty(
            CACHE_FACTOR * size, dtype=torch.uint8, device=self.torch
        )

    def facts(self) -> dict[str, Any]:
        p = self._properties
        return {
            "kind": "hip" if torch.version.hip else "cuda",
            "name": p.name,
            "architecture": self.architecture,
            "multiprocessors": p.multi_processor_count,
            "memory_bytes": p.total_memory,
            "cache_bytes": getattr(p, "L2_cache_size", None),
            "clock_khz": getattr(p, "clock_rate", None),
            "runtime": torch.version.cuda or torch.version.hip,
        }

    @property
    def architecture(self) -> str:
        """As compilers call it: ``sm_90``, ``gfx942``."""
        p = self._properties
        name = str(getattr(p, "gcnArchName", "")) if torch.version.hip else ""
        return name.split(":")[0] or f"sm_{p.major}{p.minor}"

    def synchronize(self) -> None:
        self._cuda.synchronize()

    def time(self, call: Callable[[], object], runs: int) -> list[float]:
        pairs = []
        for _ in range(runs):
            self._buffer.zero_()
            start = self._cuda.Event(enable_timing=True)
            end = self._cuda.Event(enable_timing=True)
            start.record()
            call()
            end.record()
            pairs.append((start, end))
        self._cuda.synchronize()
        return [start.elapsed_time(end) / 1e3 for start, end in pairs]

    def capture(self, call: Callable[[], object]) -> Callable[[], None] | None:
        # Everything is compiled and allocated before: a capture must meet nothing new.
        stream = self._cuda.Stream()
        stream.wait_stream(self._cuda.current_stream())
        with self._cuda.stream(stream):
            for _ in range(3):
                call()
        self._cuda.current_stream().wait_stream(stream)
        graph = self._cuda.CUDAGraph()
        with self._cuda.graph(graph):
            call()

        def replay() -> None:
            graph.replay()

        return replay


def find_device() -> tuple[Device, str]:
    """The GPU and an empty string, or the CPU and the reason why there is no GPU."""
    if torch.cuda.is_available():
        return CudaDevice(torch.cuda.current_device()), ""
    if torch.version.cuda is None and torch.version.hip is None:
        return CpuDevice(), "this torch is a CPU build"
    built = f"CUDA {torch.version.cuda}" if torch.version.cuda else f"HIP {torch.version.hip}"
    return CpuDevice(), f"torch is built for {built} but sees no device; check the driver"
