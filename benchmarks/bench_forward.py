# SPDX-License-Identifier: Apache-2.0
"""Quantizing a training batch: forward alone, and forward with all gradients."""

from __future__ import annotations

import pytest

from benchmarks.conftest import Race
from benchmarks.contest import Settings
from benchmarks.sizes import BATCH, BATCH_LAST, cases, entry
from benchmarks.workload import Size

OWN = ("eager", "compiled", "codespace", "kernels", "kernels-1-thread")
# No residual VQ: it has no encoder apart, so bench_encode times this very call of it.
LAST = ("eager", "codespace", "kernels")
FORWARD = cases([(BATCH, (*OWN, "grouped-fsq")), (BATCH_LAST, LAST)])
BACKWARD = cases([(BATCH, (*OWN, "grouped-fsq")), (BATCH_LAST, LAST)])


@pytest.mark.parametrize(("size", "name"), FORWARD)
def test_forward(race: Race, settings: Settings, size: Size, name: str) -> None:
    race(*entry("forward", size, name, settings))


@pytest.mark.parametrize(("size", "name"), BACKWARD)
def test_forward_backward(race: Race, settings: Settings, size: Size, name: str) -> None:
    race(*entry("forward+backward", size, name, settings))
