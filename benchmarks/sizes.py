# SPDX-License-Identifier: Apache-2.0
"""Sizes and contenders that the benchmarks of the quantizer run, as test parameters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from benchmarks import contenders
from benchmarks.contest import Contender, Group, Settings
from benchmarks.workload import Size, workload

# A frame of a live stream, a second of one clip, a training batch of 16 clips of 10 seconds.
SINGLE, SECOND, BATCH = Size(1, 1), Size(1, 50), Size(16, 500)
SECOND_LAST, BATCH_LAST = Size(1, 50, channels_last=True), Size(16, 500, channels_last=True)
TINY = {16 * 500: (2, 7), 50: (1, 5), 1: (1, 1)}


def cases(table: Iterable[tuple[Size, Iterable[str]]]) -> list[Any]:
    """Parameters (size, name), one size after the other so that inputs are made once."""
    return [
        pytest.param(size, name, id=f"{size.total}-{'BTD' if size.channels_last else 'BDT'}-{name}")
        for size, names in table
        for name in names
    ]


def entry(op: str, size: Size, name: str, settings: Settings) -> tuple[Group, Contender]:
    """Group and contender of one test; skips where the contender cannot take part."""
    reason = contenders.why_missing(name, settings)
    if reason:
        pytest.skip(reason)
    if settings.smoke:
        size = Size(*TINY[size.total], size.channels_last)
    work = workload(size, settings.smoke)
    made = contenders.contender(op, name, work, settings)
    return contenders.group(op, work, settings), made
