# SPDX-License-Identifier: Apache-2.0
"""The gate on the compiled CUDA kernels, read out of the built module."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from affectcodec import _native

LOADED = _native.load("affectcodec._cuda")
pytestmark = [
    pytest.mark.skipif(not LOADED.available, reason=LOADED.reason or "built"),
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton has the tools"),
]
ARCHITECTURES = ("sm_80", "sm_90", "sm_100", "sm_120")


def gate(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "affectcodec.kernels.gate", "--backend", "cuda", *arguments],
        env={k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"},
        capture_output=True, text=True, timeout=500,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_kernel_of_the_built_module_passes_the_gate(tmp_path: Path) -> None:
    assert LOADED.module is not None
    names = LOADED.module.architectures().replace("-real", "").split()
    missing = [a for a in ARCHITECTURES if a.removeprefix("sm_") not in names]
    if missing:
        pytest.skip(f"this build is not for {missing}")
    page = tmp_path / "page.md"
    begin, end = "<!-- compiled CUDA kernels: begin -->\n", "<!-- compiled CUDA kernels: end -->\n"
    page.write_text(f"before\n{begin}stale\n{end}after\n")
    done = gate("--write", str(page))
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert done.stdout.strip().endswith(" 0 with faults")
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "stale" not in text
    for kernel in ("encode", "forward", "decode", "backward_rows", "backward_weights"):
        for architecture in ARCHITECTURES:
            for dtype in ("fp32", "bf16", "fp16"):
                assert f"| {kernel} | {dtype} | {architecture} |" in text
