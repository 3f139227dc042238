# SPDX-License-Identifier: Apache-2.0
"""The report as a file and as text."""

from __future__ import annotations

import json
from pathlib import Path

from affectcodec.gpu_check.report import Report, render


def full() -> Report:
    report = Report({"name": "Fake 1000", "architecture": "sm_90"}, True)
    report.backends = {"triton": "", "cuda": "not built"}
    report.copy_bandwidth = 2e12
    check = {"section": "correctness", "backend": "triton", "name": "tokens", "what": "1 x 1"}
    report.checks = [
        {**check, "passed": True, "detail": "", "worst": float("nan")},
        {**check, "passed": False, "detail": "3 unexplained", "worst": float("inf")},
    ]
    report.times = [
        {"op": "encode", "shape": "1 x 1", "provider": "triton", "median": 2e-6,
         "replay_median": 1.5e-6, "bandwidth_share": 0.5, "prediction_share": None},
        {"op": "decode", "shape": "1 x 1", "provider": "cuda", "error": "no such thing"},
    ]  # fmt: skip
    report.compiled = [{"op": "encode", "kernel": "encode", "use": "fp32", "faults": ["spills"]}]
    report.errors = {"graphs triton": "RuntimeError: capture"}
    return report


def test_the_file_is_strict_json_with_everything(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    full().write(path)

    def refuse(name: str) -> None:
        raise AssertionError(name)

    data = json.loads(path.read_text(), parse_constant=refuse)
    assert data["schema"] == 1 and data["gpu"] is True and data["passed"] is False
    assert data["checks"][0]["worst"] == "nan" and data["checks"][1]["worst"] == "inf"
    assert len(data["failures"]) == 3
    assert data["copy_bandwidth_bytes_per_second"] == 2e12


def test_the_text_names_failures_and_shares() -> None:
    text = render(full())
    assert text.startswith("GPU: Fake 1000 (sm_90)")
    assert "checks: 1 of 2 passed" in text
    assert "compiled kernels: 1, 1 with faults" in text
    assert "copy: 2000.0 GB/s" in text
    assert " 2.0        1.5     50 %" in text
    assert "no such thing" in text
    assert "FAILED: 3" in text and "3 unexplained" in text and "RuntimeError: capture" in text


def test_without_a_gpu_it_says_so_first() -> None:
    text = render(Report({"kind": "cpu"}, False, "this torch is a CPU build"))
    assert text.startswith("NO GPU: this torch is a CPU build.")
    assert "says nothing about the speed of any GPU" in text
