# SPDX-License-Identifier: Apache-2.0
"""pytest plugin (``-p tests.csrc.instrumented``): the tests run on another build of the kernels.

AFFECTCODEC_TEST_CPU names the file. It is loaded under the name of the installed module, before
anything imports the package, so that every test of this process computes with it.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import torch  # noqa: F401 - the module finds libtorch only where it is loaded already

NAME = "affectcodec._cpu"
BINARY = Path(os.environ["AFFECTCODEC_TEST_CPU"]).resolve()

spec = importlib.util.spec_from_file_location(NAME, BINARY)
assert spec is not None and spec.loader is not None
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
sys.modules[NAME] = module


def pytest_report_header() -> str:
    import affectcodec._cpu

    assert Path(affectcodec._cpu.__file__).resolve() == BINARY
    return f"kernels: {BINARY} ({affectcodec._cpu.isa()})"
