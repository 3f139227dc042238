# SPDX-License-Identifier: Apache-2.0
"""The gate on compiled kernels, in a process of its own: this one interprets kernels."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def gate(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    return subprocess.run(
        [sys.executable, "-m", "affectcodec.kernels.gate", *arguments],
        env=environment, capture_output=True, text=True, timeout=1500, check=False,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(1600)
def test_every_kernel_passes_the_gate() -> None:
    done = gate("--backend", "triton", "--jobs", str(min(2, os.cpu_count() or 1)))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip().endswith("0 with faults")


def test_a_sample_of_kernels_passes_the_gate() -> None:
    done = gate("--arch", "sm_90", "--arch", "gfx942", "--op", "encode")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip().endswith("0 with faults")
    assert "sm_90 encode: encode, fp32 [B, T, D]: " in done.stdout


def test_the_table_is_put_between_the_markers(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "before\n<!-- compiled kernels: begin -->\nold\n<!-- compiled kernels: end -->\nafter\n"
    )
    done = gate("--arch", "sm_80", "--op", "pack_bits", "--write", str(page))
    assert done.returncode == 0, done.stdout + done.stderr
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert "| pack_bits: pack | 15 bits | sm_80 |" in text
