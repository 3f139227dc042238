# SPDX-License-Identifier: Apache-2.0
"""The suites themselves, at tiny sizes and on a fake clock; and that a regression is caught."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks.results import Results, baseline
from tests.ops.quantizers import needs_cpu_kernels

ROOT = Path(__file__).resolve().parents[2]
CLOCK = "--benchmark-timer=tests.benchmarks.clock.tick"


def run(*options: str) -> subprocess.CompletedProcess[str]:
    usual = ("--benchmark-only", "--smoke", "-q", "-p", "no:cacheprovider")
    # pytest-benchmark measures nothing in a worker of pytest-xdist, and this is no worker.
    outside = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_XDIST")}
    return subprocess.run(
        [sys.executable, "-m", "pytest", *usual, *options],
        cwd=ROOT,
        env={**outside, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )


@needs_cpu_kernels
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_suite_runs(tmp_path):
    path = tmp_path / "results.json"
    found = run("benchmarks/", CLOCK, f"--results={path}")
    assert found.returncode == 0, found.stdout + found.stderr
    results = Results.read(path)
    assert results.smoke
    ops = {row["op"] for row in results.rows}
    assert ops >= {"encode", "forward", "forward+backward", "decode", "pack_bits", "unpack_bits"}
    for row in results.rows:
        # Every call takes a tick of the fake clock, so time a frame depends on their number alone.
        whole = next(r for r in results.rows if r["group"] == row["group"])
        assert row["ratio"] == pytest.approx(row["units"] / whole["units"])
        assert row["floor_share"] > 0 and row["units_per_second"] > 0
    assert "| bar " in found.stdout
    remarks = results.row("forward+backward", "N=14 [B, D, T]", "kernels")["remarks"]
    if sys.platform == "linux":
        assert remarks["peak_extra_bytes"] >= 0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_relative_comparison_catches_a_regression(tmp_path):
    name = "benchmarks/bench_bitpacking.py::test_bit_packing[{}-15-numpy]"
    past = {"pack_bits": 1.0, "unpack_bits": 0.5}  # multiples of the reference, which is itself
    rows = [
        SimpleNamespace(
            to_dict=lambda op=op, cost=cost: {
                "group": op, "contender": "numpy", "reference": "other", "costs": [cost] * 3
            }
        )
        for op, cost in past.items()
    ]  # fmt: skip
    names = {(op, "numpy"): name.format(op) for op in past}
    saved = baseline(Results.of({}, "", 0.0, [], rows, False), names)
    (tmp_path / "past.json").write_text(json.dumps(saved), encoding="utf-8")
    found = run(
        "benchmarks/bench_bitpacking.py",
        "-k=bits-15-numpy",
        CLOCK,
        "--relative",
        f"--benchmark-compare={tmp_path / 'past.json'}",
        "--benchmark-compare-fail=median:25%",
    )
    assert found.returncode != 0
    regressed = (found.stdout + found.stderr).partition("Performance has regressed")[2]
    assert "[unpack_bits-15-numpy]" in regressed
    assert "[pack_bits-15-numpy]" not in regressed
