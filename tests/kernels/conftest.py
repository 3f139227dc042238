# SPDX-License-Identifier: Apache-2.0
"""Kernels run under Triton's interpreter; both need triton.

The interpreter is chosen when triton itself is imported, so it is asked for here, before any test
module imports the kernels. Compiling ahead of time cannot share that process: its test starts one
of its own.
"""

from __future__ import annotations

import importlib.util
import os
import sys

import pytest

collect_ignore_glob = []
if importlib.util.find_spec("triton") is None:
    collect_ignore_glob.append("test_*.py")
elif "triton" not in sys.modules:
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(autouse=True)
def _interpreted() -> None:
    import triton.language as tl

    if "Interpreted" not in type(tl.sum).__name__:
        pytest.fail(
            "triton was imported before the interpreter was chosen; run tests/kernels alone"
        )
