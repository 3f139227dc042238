# SPDX-License-Identifier: Apache-2.0
"""Times on a clock that is known."""

from __future__ import annotations

import pytest

from affectcodec.gpu_check.device import CpuDevice
from affectcodec.gpu_check.timing import MAX_RUNS, MIN_RUNS, WARM_UPS, Timing, bandwidth, measure
from tests.gpu_check.fakes import FakeClock, fake_gpu


@pytest.mark.parametrize(("seconds", "runs"), [(0.01, 20), (1.0, MIN_RUNS), (1e-6, MAX_RUNS)])
def test_runs_fill_the_budget(seconds: float, runs: int) -> None:
    clock = FakeClock()
    calls = []

    def call() -> None:
        calls.append(1)
        clock.tick(seconds)

    timed = measure(CpuDevice(clock), call, budget_seconds=0.2 + seconds / 2)
    assert timed.runs == runs
    assert timed.median == pytest.approx(seconds)
    assert len(calls) == WARM_UPS + 3 + runs


def test_median_and_percentiles() -> None:
    clock = FakeClock()
    durations = iter([1.0] * (WARM_UPS + 3) + [5.0, 1.0, 3.0, 2.0, 4.0] + [9.0] * 6)
    timed = measure(CpuDevice(clock), lambda: clock.tick(next(durations)), budget_seconds=11)
    assert timed == Timing(median=9.0, low=2.0, high=9.0, runs=11)


def test_a_clock_that_stands_still_ends() -> None:
    assert measure(CpuDevice(FakeClock()), lambda: None).median == 0.0


def test_a_clock_that_runs_backward_is_an_error() -> None:
    clock = FakeClock()
    with pytest.raises(ValueError, match="clock"):
        measure(CpuDevice(clock), lambda: clock.tick(-1.0))


def test_bandwidth_counts_reading_and_writing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("affectcodec.gpu_check.timing.COPY_BYTES", {"cpu": 2**20})
    # Two events a call, one tick each: the time between them is one.
    assert bandwidth(fake_gpu(tick=1e-3)) == pytest.approx(2 * 2**20 / 1e-3)
