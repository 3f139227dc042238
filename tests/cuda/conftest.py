# SPDX-License-Identifier: Apache-2.0
"""Runs the suite of the CPU kernels on the CUDA kernels: on the host shim the operators of backend
``cuda`` take CPU tensors, and here they stand where those of ``cpu`` do."""

from __future__ import annotations

import dataclasses
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
        yield dataclasses.replace(CANDIDATES["cpu"], narrow_is_rounded=False)


# Under a sanitizer everything takes several times as long. Of the cases that differ in size alone
# those remain that cross units and clips; with shuffled threads also those of a part of a unit.
SHUFFLED = os.environ.get("SIMT_ORDER") == "shuffled"
SHAPES = {(1, 7), (3, 65)} if SHUFFLED else {(3, 65)}
LARGE = ("half_precision", "whatever_stands_beside", "fresh_memory", "of_the_specification")
LARGE += () if SHUFFLED else ("many", "wide", "levels", "bitwise")


def _left_out(item: pytest.Item) -> bool:
    if item.path.parent != pathlib.Path(__file__).parent:
        return False
    params = item.callspec.params if hasattr(item, "callspec") else {}
    if params.get("backend", "cpu") != "cpu":  # the suite names every backend; one stands here
        return True
    if os.environ.get("AFFECTCODEC_SHIM", "plain") == "plain":
        return False
    return params.get("shape", (3, 65)) not in SHAPES or any(n in item.name for n in LARGE)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = [item for item in items if _left_out(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not _left_out(item)]
