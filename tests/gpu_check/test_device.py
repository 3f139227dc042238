# SPDX-License-Identifier: Apache-2.0
"""The seam: clocks, graphs, and that the stand-in has nothing which torch.cuda has not."""

from __future__ import annotations

import inspect

import pytest
import torch

from affectcodec.gpu_check.device import CpuDevice, CudaDevice, find_device
from tests.gpu_check.fakes import FakeClock, FakeCuda, fake_gpu


def test_the_fake_has_only_what_torch_has() -> None:
    fake = FakeCuda(FakeClock())
    names = [n for n in dir(fake) if not n.startswith("_")]
    own = {"clock", "synchronized", "capturing", "to_replay"}
    for name in set(names) - own:
        assert hasattr(torch.cuda, name), name
    for kind in ("Event", "Stream", "CUDAGraph"):
        for method in vars(getattr(fake, kind)):
            if not method.startswith("_"):
                assert hasattr(getattr(torch.cuda, kind), method), (kind, method)
    assert "enable_timing" in str(inspect.signature(torch.cuda.Event.__new__))


def test_calls_are_timed_by_the_clock() -> None:
    clock = FakeClock()
    device = CpuDevice(clock)
    assert device.time(lambda: clock.tick(0.25), 3) == [0.25] * 3
    assert device.capture(lambda: None) is None
    assert device.facts()["kind"] == "cpu"


def test_a_gpu_times_by_events_and_empties_its_cache_before() -> None:
    clock = FakeClock()
    cuda = FakeCuda(clock, tick=0.0)
    device = CudaDevice(0, cuda, where="cpu")
    seen = []

    def call() -> None:
        seen.append(int(device._buffer.sum()))
        device._buffer.fill_(1)
        clock.tick(0.5)

    assert device.time(call, 2) == pytest.approx([0.5, 0.5])
    assert seen == [0, 0]
    assert len(device._buffer) == 4 * 1024
    facts = device.facts()
    assert facts["architecture"] == "sm_90" and facts["clock_khz"] == 2_000_000


def test_a_capture_warms_up_and_gives_the_graph_back() -> None:
    device = fake_gpu()
    calls: list[bool] = []
    cuda = device._cuda
    replay = device.capture(lambda: calls.append(cuda.capturing))
    assert calls == [False, False, False, True]
    assert replay is not None
    replay()
    assert len(calls) == 5


def test_without_a_gpu_the_reason_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    device, why = find_device()
    assert isinstance(device, CpuDevice)
    assert why == "this torch is a CPU build" or "sees no device" in why
