# SPDX-License-Identifier: Apache-2.0
"""The whole of it: on a GPU that is none, and as a user without a GPU runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from affectcodec.gpu_check import predictions, run
from affectcodec.gpu_check.problems import CONFIGS, Shape
from affectcodec.gpu_check.report import Report, render
from tests.gpu_check.fakes import fake_gpu
from tests.ops.quantizers import needs_cpu_kernels, needs_triton


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little work, and nothing compiled."""
    monkeypatch.setattr("affectcodec.gpu_check.timing.COPY_BYTES", {"cpu": 2**20})
    monkeypatch.setattr("affectcodec.gpu_check.timing.MAX_RUNS", 5)
    monkeypatch.setattr("affectcodec.gpu_check.checks.CONFIGS", {"odd": CONFIGS["odd"]})
    monkeypatch.setattr(run, "backends_of", lambda device: {"cpu": "", "cuda": "not built"})

    def compiled(architecture: str, cases: list[dict[str, Any]], target: Any = None) -> Any:
        return [
            {"case": i, "op": c["op"], "use": "", "kernel": c["op"], "faults": [],
             "predicted_seconds": 5e-4}
            for i, c in enumerate(cases)
        ]  # fmt: skip

    monkeypatch.setattr(predictions, "compile_in_process", compiled)
    monkeypatch.setattr(run, "compile_in_process", compiled)


@needs_cpu_kernels
def test_everything_that_a_gpu_run_does(small: None, tmp_path: Path) -> None:
    said: list[str] = []
    skip = ("torch.compile", "triton")
    report = run.run_all(fake_gpu(1e-3), "", quick=True, say=said.append, skip=skip)
    assert report.errors == {}
    assert report.failures == []
    assert report.gpu and report.device["name"] == "Fake 1000"
    assert report.copy_bandwidth == pytest.approx(2 * 2**20 / 1e-3)
    graphs = [c for c in report.checks if c["section"] == "graphs"]
    assert len(graphs) == 2 and "5 outputs of a replay" in graphs[0]["detail"]
    timed = {(r["provider"], r["op"]): r for r in report.times if "error" not in r}
    assert ("cpu", "unpack_bits") in timed and ("reference", "training") in timed
    row = timed["cpu", "encode"]  # every event takes a millisecond
    assert row["median"] == pytest.approx(1e-3) and row["cold"] is True
    assert row["bandwidth_share"] == pytest.approx(row["least_bytes"] / 2**21)
    assert row["replay_median"] == pytest.approx(1e-3)
    assert "replay_median" not in timed["reference", "encode"]
    assert "replay_median" not in timed["cpu", "training"]
    assert row["floor_seconds"] > 0 and 0 < row["prediction_share"] < 1
    assert "GPU: Fake 1000" in render(report)
    report.write(tmp_path / "r.json")
    assert json.loads((tmp_path / "r.json").read_text())["passed"] is True


@needs_triton
def test_the_kernels_own_prediction_goes_before_the_floor(small: None) -> None:
    shape = Shape(1, 1)
    row = run.time_one(
        fake_gpu(1e-3), "reference", "encode", shape, copy_bandwidth=1e12, predicted=5e-4,
        floor=1e-5, budget_seconds=0.01,
    )  # fmt: skip
    assert row["prediction_share"] == pytest.approx(0.5)


@needs_cpu_kernels
def test_what_cannot_be_captured_is_timed_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    device = fake_gpu(1e-3)

    def capture(call: object) -> None:
        raise RuntimeError("stream is capturing")

    monkeypatch.setattr(device, "capture", capture)
    row = run.time_one(
        device, "cpu", "encode", Shape(1, 1), copy_bandwidth=1e12, predicted=None, floor=None,
        budget_seconds=0.01,
    )  # fmt: skip
    assert row["median"] == pytest.approx(1e-3) and "capturing" in row["replay_error"]


def test_what_cannot_be_timed_says_so() -> None:
    shape = Shape(1, 1)
    common = {"copy_bandwidth": None, "predicted": None, "floor": None, "budget_seconds": 0.01}
    row = run.time_one(fake_gpu(), "reference", "pack_bits", shape, **common)  # type: ignore[arg-type]
    assert row["error"] == "no pack_bits in plain PyTorch"
    row = run.time_one(fake_gpu(), "cuda", "encode", shape, **common)  # type: ignore[arg-type]
    assert "RuntimeError" in row["error"] and "cuda" in row["error"]


def test_a_section_that_breaks_is_noted() -> None:
    report = Report({}, True)
    with run.section(report, "graphs", lambda line: None):
        raise RuntimeError("operation not permitted when stream is capturing")
    assert "stream is capturing" in report.errors["graphs"]
    assert "test_run.py" in report.errors["graphs"]
    assert report.failures


@pytest.mark.slow
@pytest.mark.timeout(900)
@needs_triton
@needs_cpu_kernels
@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_the_command_runs_to_its_end_without_a_gpu(tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-m", "affectcodec.gpu_check", "--no-build", "--out", str(out)],
        env={**environment, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=900,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("NO GPU: ")
    report = json.loads(out.read_text())
    assert report["gpu"] is False and report["passed"] is True
    assert {c["backend"] for c in report["checks"]} == {"cpu", "triton"}
    assert {row["op"] for row in report["compiled"]} == {"encode", "forward", "backward", "decode"}
    providers = {row["provider"] for row in report["times"]}
    assert "reference" in providers and "triton" not in providers and "cuda" not in providers
    assert all(row.get("predicted_seconds") is None for row in report["times"])
