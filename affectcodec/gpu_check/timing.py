# SPDX-License-Identifier: Apache-2.0
"""Times of calls and the bandwidth of the memory, through the device seam."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from affectcodec.gpu_check.device import Device

WARM_UPS = 5
MIN_RUNS, MAX_RUNS = 5, 200
COPY_BYTES = {"cpu": 64 * 2**20}
COPY_BYTES_GPU = 2**30


@dataclass(frozen=True)
class Timing:
    """Seconds of one call: median, and the tenth and ninetieth percentile, over ``runs`` calls."""

    median: float
    low: float
    high: float
    runs: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def measure(device: Device, call: Callable[[], object], budget_seconds: float = 0.2) -> Timing:
    """Time a call, after warm-up, as often as ``budget_seconds`` allow.

    Raises:
        ValueError: on a clock that does not run forward.
    """
    for _ in range(WARM_UPS):
        call()
    device.synchronize()
    once = statistics.median(device.time(call, 3))
    runs = MAX_RUNS if once <= 0 else int(budget_seconds / once)
    seconds = sorted(device.time(call, max(MIN_RUNS, min(MAX_RUNS, runs))))
    if seconds[0] < 0:
        raise ValueError(f"a call took {seconds[0]} s: the clock of the device is broken")
    last = len(seconds) - 1
    return Timing(
        statistics.median(seconds), seconds[last // 10], seconds[-1 - last // 10], len(seconds)
    )


def bandwidth(device: Device) -> float:
    """Bytes a second of a copy, read and written counted."""
    size = COPY_BYTES.get(device.torch.type, COPY_BYTES_GPU)
    source = torch.ones(size // 4, dtype=torch.float32, device=device.torch)
    target = torch.empty_like(source)
    timing = measure(device, lambda: target.copy_(source))
    return 2 * size / timing.median if timing.median > 0 else 0.0
