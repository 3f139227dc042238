# SPDX-License-Identifier: Apache-2.0
"""Encoding: latent to tokens, from one streamed frame to a training batch, in both layouts."""

from __future__ import annotations

import pytest

from benchmarks.conftest import Race
from benchmarks.contest import Settings
from benchmarks.sizes import BATCH, BATCH_LAST, SECOND, SECOND_LAST, SINGLE, cases, entry
from benchmarks.workload import Size

OWN = ("eager", "compiled", "codespace", "codespace-compiled", "kernels")
STREAM = ("eager", "compiled", "codespace", "kernels")
PEERS = ("grouped-fsq", "rvq-1024", "rvq-32768")
CASES = cases(
    [
        (SINGLE, (*STREAM, *PEERS)),
        (SECOND, (*STREAM, *PEERS)),
        (SECOND_LAST, ("eager", "codespace", "kernels")),
        (BATCH, (*OWN, "kernels-1-thread", *PEERS)),
        (BATCH_LAST, ("eager", "codespace", "kernels", "kernels-1-thread")),
    ]
)


@pytest.mark.parametrize(("size", "name"), CASES)
def test_encode(race: Race, settings: Settings, size: Size, name: str) -> None:
    race(*entry("encode", size, name, settings))
