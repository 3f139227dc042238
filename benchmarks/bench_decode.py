# SPDX-License-Identifier: Apache-2.0
"""Decoding: tokens to the quantized latent."""

from __future__ import annotations

import pytest

from benchmarks.conftest import Race
from benchmarks.contest import Settings
from benchmarks.sizes import BATCH, BATCH_LAST, SINGLE, cases, entry
from benchmarks.workload import Size

OWN = ("eager", "compiled", "codespace", "kernels")
PEERS = ("grouped-fsq", "rvq-1024", "rvq-32768")
CASES = cases(
    [
        (SINGLE, ("eager", "codespace", "kernels")),
        (BATCH, (*OWN, "kernels-1-thread", *PEERS)),
        (BATCH_LAST, ("eager", "codespace", "kernels")),
    ]
)


@pytest.mark.parametrize(("size", "name"), CASES)
def test_decode(race: Race, settings: Settings, size: Size, name: str) -> None:
    race(*entry("decode", size, name, settings))
