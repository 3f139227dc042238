# SPDX-License-Identifier: Apache-2.0
"""Peak extra memory: allocations of any allocator count, earlier peaks do not."""

from __future__ import annotations

import pytest
import torch

from benchmarks import memory
from benchmarks.workload import Size

pytestmark = pytest.mark.skipif(not memory.available(), reason="needs Linux's /proc")
MIB = 1 << 20


def test_temporaries_and_results_count_and_earlier_peaks_do_not():
    torch.ones(256 * MIB // 4).sum()  # an earlier, higher peak

    def call():
        # Over 32 MiB each: below, glibc may take memory again that an earlier test freed.
        temporary = torch.ones(96 * MIB // 4)
        return temporary[: 40 * MIB // 4] * 2

    assert memory.peak_extra_bytes(call) == pytest.approx(136 * MIB, rel=0.1)
    assert memory.peak_extra_bytes(lambda: None) < 2 * MIB


def test_what_was_there_before_does_not_count():
    kept = bytearray(b"x" * 16 * MIB)
    assert memory.peak_extra_bytes(lambda: len(kept)) < 2 * MIB


def test_measured_in_a_process_of_its_own():
    found = memory.measurement("eager", Size(2, 3), smoke=True)()
    assert found["peak_extra_bytes"] >= 0 and len(found["peaks"]) == 3
