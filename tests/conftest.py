# SPDX-License-Identifier: Apache-2.0
"""What all tests share: fixed seeds, one thread, and memory that shows when it was not written."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

# Triton reads it when it is imported, which any test may bring about. What is to be compiled is
# compiled in a process of its own.
os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(autouse=True)
def _reproducible() -> Iterator[None]:
    """Seed every generator, and keep torch to one thread.

    One thread makes float sums repeatable and is faster at the sizes of these tests; a test about
    threads sets its own number, which is put back here.
    """
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - third parties draw from it
    torch.manual_seed(0)
    torch.set_num_threads(1)
    # Some libraries turn it on for the thread that loads them (built with -ffast-math).
    torch.set_flush_denormal(False)
    yield
    torch.set_num_threads(1)


def _poisoned(make: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def made(*args: Any, **kwargs: Any) -> torch.Tensor:
        tensor = make(*args, **kwargs)
        if tensor.is_meta:
            return tensor
        if tensor.is_floating_point() or tensor.is_complex():
            return tensor.fill_(float("nan"))
        if tensor.dtype is torch.bool:
            return tensor.fill_(True)
        return tensor.fill_(torch.iinfo(tensor.dtype).max)

    return made


@pytest.fixture
def poisoned_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fill what ``torch.empty`` and its kin return with NaN (integers: the largest value).

    Fresh memory often happens to be zero, which hides an output that a kernel forgot to write.
    """
    for name in ("empty", "empty_like", "empty_strided"):
        monkeypatch.setattr(torch, name, _poisoned(getattr(torch, name)))
    for name in ("new_empty", "new_empty_strided"):
        monkeypatch.setattr(torch.Tensor, name, _poisoned(getattr(torch.Tensor, name)))
