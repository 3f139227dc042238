# SPDX-License-Identifier: Apache-2.0
"""Kernels run under Triton's interpreter, which the conftest above asks for. Without triton these
tests are skipped."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path

import pytest


class _WithoutTriton(pytest.Module):
    def collect(self) -> Iterable[pytest.Item | pytest.Collector]:
        pytest.skip("triton is not installed: pip install 'affectcodec[triton]'")


def pytest_pycollect_makemodule(
    module_path: Path, parent: pytest.Collector
) -> pytest.Module | None:
    if importlib.util.find_spec("triton") is not None:
        return None
    return _WithoutTriton.from_parent(parent, path=module_path)
