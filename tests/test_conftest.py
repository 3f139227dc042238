# SPDX-License-Identifier: Apache-2.0
"""The shared fixtures themselves."""

from __future__ import annotations

from types import BuiltinFunctionType

import pytest
import torch


@pytest.mark.usefixtures("poisoned_empty")
def test_fresh_memory_is_poisoned() -> None:
    like = torch.zeros(3)
    for tensor in (torch.empty(3), torch.empty_like(like), like.new_empty(3)):
        assert tensor.isnan().all()
    assert (torch.empty(3, dtype=torch.int32) == 2**31 - 1).all()
    assert torch.empty(3, device="meta").is_meta


def test_memory_is_not_poisoned_unasked() -> None:
    assert isinstance(torch.empty, BuiltinFunctionType)


@pytest.mark.parametrize("run", [1, 2])
def test_every_test_starts_from_the_same_seed(run: int) -> None:
    assert torch.initial_seed() == 0
    torch.rand(run)
    assert torch.get_num_threads() == 1
