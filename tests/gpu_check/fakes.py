# SPDX-License-Identifier: Apache-2.0
"""A GPU that is none: ``torch.cuda`` as far as it is used, on CPU tensors and a fake clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from affectcodec.gpu_check.device import CudaDevice


class FakeClock:
    """Seconds go by only when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def tick(self, seconds: float) -> None:
        self.now += seconds

    def __call__(self) -> float:
        return self.now


class FakeCuda:
    """Every name is one of ``torch.cuda``; a test compares. Each recorded event takes a tick."""

    def __init__(self, clock: FakeClock, tick: float = 0.0) -> None:
        self.clock = clock
        self.synchronized = 0
        self.capturing = False
        self.to_replay: Callable[[], object] = lambda: None
        cuda = self

        class Event:
            def __init__(self, enable_timing: bool = False) -> None:
                assert enable_timing
                self.at: float | None = None

            def record(self) -> None:
                cuda.clock.tick(tick)
                self.at = cuda.clock()

            def elapsed_time(self, end: Event) -> float:
                assert cuda.synchronized, "read before the device was done"
                assert self.at is not None and end.at is not None
                return 1e3 * (end.at - self.at)

        class Stream:
            def wait_stream(self, other: Stream) -> None:
                assert isinstance(other, Stream)

        class CUDAGraph:
            def replay(self) -> None:
                cuda.to_replay()

        self.Event, self.Stream, self.CUDAGraph = Event, Stream, CUDAGraph
        self._stream = Stream()

    def synchronize(self) -> None:
        self.synchronized += 1

    def current_stream(self) -> Any:
        return self._stream

    @contextmanager
    def stream(self, stream: Any) -> Iterator[None]:
        yield

    @contextmanager
    def graph(self, graph: Any) -> Iterator[None]:
        self.capturing = True
        yield
        self.capturing = False

    def get_device_properties(self, index: int) -> Any:
        return SimpleNamespace(
            name="Fake 1000", major=9, minor=0, multi_processor_count=100, total_memory=2**34,
            L2_cache_size=1024, clock_rate=2_000_000,
        )  # fmt: skip


class FakeGpu(CudaDevice):
    """The real class for GPUs, on the CPU; replaying a graph is calling what was captured."""

    def capture(self, call: Callable[[], object]) -> Callable[[], None] | None:
        self._cuda.to_replay = call
        return super().capture(call)


def fake_gpu(tick: float = 1e-3) -> FakeGpu:
    return FakeGpu(0, FakeCuda(FakeClock(), tick), where="cpu")
