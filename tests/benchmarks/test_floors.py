# SPDX-License-Identifier: Apache-2.0
"""Floors: rates from the best round, and the larger of both times."""

from __future__ import annotations

import time

import pytest
import torch

from benchmarks.floors import Floor, measure


def test_floor_is_the_larger_of_both_times():
    floor = Floor(1, 100.0, 50.0, (1, 1, 1), {})
    assert floor.seconds(200, 50) == 2.0
    assert floor.seconds(100, 500) == 10.0


def test_measure_takes_the_fastest_shape_and_puts_threads_back():
    shapes = ((64, 64, 64), (2, 2, 2))
    floor = measure(2, time.perf_counter, copy_bytes=1 << 20, mm_shapes=shapes, repeats=3)
    assert torch.get_num_threads() == 1
    assert floor.threads == 2
    assert floor.copy_bytes_per_second > 0
    assert floor.mm_flops_per_second == max(floor.mm_rates.values())
    assert floor.mm_shape in shapes
    assert list(floor.mm_rates) == ["64 x 64 x 64", "2 x 2 x 2"]


def test_rates_on_a_fake_clock():
    ticks = iter(range(1000))
    floor = measure(1, lambda: next(ticks), copy_bytes=4096, mm_shapes=((2, 3, 5),), repeats=2)
    assert floor.copy_bytes_per_second == pytest.approx(2 * 4096)
    assert floor.mm_flops_per_second == pytest.approx(2 * 2 * 3 * 5)
