# SPDX-License-Identifier: Apache-2.0
"""Runs the suite of the CPU kernels on the CUDA kernels: on the host shim the operators of backend
``cuda`` take CPU tensors, and here they stand where those of ``cpu`` do."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator

import pytest

from affectcodec.ops import registry, use_backend
from affectcodec.ops.bd_rfsq import kernels
from tests.cuda import shim
from tests.ops.backends import CANDIDATES, Candidate


@pytest.fixture(scope="session")
def _shim() -> Iterator[shim.Kernels]:
    if shim.COMPILER is None:
        pytest.skip("needs g++ or clang++")
    built = shim.Kernels(shim.build(os.environ.get("AFFECTCODEC_SHIM", "plain")))
    library = shim.register(built)
    yield built
    library._destroy()


@pytest.fixture
def shim_kernels(_shim: shim.Kernels, monkeypatch: pytest.MonkeyPatch) -> Iterator[shim.Kernels]:
    """The kernels; for as long as a test runs, backend ``cpu`` is made of them."""
    monkeypatch.setitem(kernels._KERNELS, "cpu", kernels._KERNELS["cuda"])
    original = registry.Op.kernel

    def kernel(op: registry.Op, backend: str):
        return original(op, "cuda" if backend == "cpu" else backend)

    monkeypatch.setattr(registry.Op, "kernel", kernel)
    yield _shim


@pytest.fixture
def backend(shim_kernels: shim.Kernels) -> Iterator[Candidate]:
    """What the suite of all kernels asks for: here the shim in the place of ``cpu``."""
    with use_backend("cpu"):
        yield CANDIDATES["cpu"]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The suite names every backend; in this folder one stands for it."""
    others = [
        item
        for item in items
        if item.path.parent == pathlib.Path(__file__).parent
        and getattr(item, "callspec", None) is not None
        and item.callspec.params.get("backend", "cpu") != "cpu"
    ]
    if others:
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item not in others]
