# SPDX-License-Identifier: Apache-2.0
"""The one file that comes out, and the same for a terminal."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SCHEMA = 1


@dataclass
class Report:
    """All results, as they come in.

    Attributes:
        device: facts of the hardware.
        gpu: whether it is a GPU. Without one no number here says anything about one.
        why_no_gpu: the reason, empty on a GPU.
        checks: results of the checks, each with ``section``, ``backend`` and ``passed``.
        times: one row an operator, shape and provider.
        compiled: facts of compiled kernels.
        errors: sections that could not be finished, with the reason.
    """

    device: dict[str, Any]
    gpu: bool
    why_no_gpu: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    build: str = ""
    backends: dict[str, str] = field(default_factory=dict)
    copy_bandwidth: float | None = None
    checks: list[dict[str, Any]] = field(default_factory=list)
    times: list[dict[str, Any]] = field(default_factory=list)
    compiled: list[dict[str, Any]] = field(default_factory=list)
    errors: dict[str, str] = field(default_factory=dict)

    @property
    def failures(self) -> list[str]:
        found = [
            f"{c['section']} {c.get('backend', '')}: {c['name']} {c['what']}: {c['detail']}"
            for c in self.checks
            if not c["passed"]
        ]
        found += [
            f"compiled {row['op']} {row['kernel']} {row['use']}: {fault}"
            for row in self.compiled
            for fault in row["faults"]
        ]
        return found + [f"{section}: {reason}" for section, reason in self.errors.items()]

    def as_dict(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "gpu": self.gpu,
            "why_no_gpu": self.why_no_gpu,
            "device": self.device,
            "versions": self.versions,
            "build": self.build,
            "backends": self.backends,
            "copy_bandwidth_bytes_per_second": self.copy_bandwidth,
            "passed": not self.failures,
            "failures": self.failures,
            "checks": self.checks,
            "times": self.times,
            "compiled": self.compiled,
            "errors": self.errors,
        }

    def write(self, path: Path) -> None:
        """One JSON file; non-finite numbers become strings, which every reader takes."""
        text = json.dumps(_finite(self.as_dict()), indent=1, allow_nan=False)
        path.write_text(text + "\n", encoding="utf-8")


def _finite(value: Any) -> Any:
    if isinstance(value, float) and (value != value or value in (float("inf"), -float("inf"))):
        return str(value)
    if isinstance(value, dict):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return value


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.0f} %"


def _micro(seconds: float | None) -> str:
    return "" if seconds is None else f"{1e6 * seconds:.1f}"


def time_table(times: list[dict[str, Any]]) -> list[str]:
    """Lines of a table; the shares are of the measured bandwidth and of the predicted time.

    They are those of the graph where there is one: it leaves out what Python does between launches.
    """
    head = (
        f"{'operator':<12} {'shape':<30} {'by':<26} {'median us':>10} {'graph us':>10} "
        f"{'of copy':>8} {'of prediction':>13}"
    )
    lines = [head]
    for row in times:
        where = f"{row['op']:<12} {row['shape']:<30} {row['provider']:<26}"
        if "error" in row:
            lines.append(f"{where} {row['error']}")
            continue
        lines.append(
            f"{where} {1e6 * row['median']:>10.1f} {_micro(row.get('replay_median')):>10} "
            f"{_share(row['bandwidth_share']):>8} {_share(row['prediction_share']):>13}"
        )
    return lines


def render(report: Report) -> str:
    """The report for a terminal."""
    lines = []
    if report.gpu:
        lines.append(f"GPU: {report.device.get('name')} ({report.device.get('architecture')})")
    else:
        lines += [
            f"NO GPU: {report.why_no_gpu}.",
            "What follows ran on this CPU. It says nothing about the speed of any GPU.",
        ]
    if report.build:
        lines.append(f"build: {report.build}")
    lines += [f"backend {name}: {why or 'on'}" for name, why in report.backends.items()]
    passed = sum(check["passed"] for check in report.checks)
    lines.append(f"checks: {passed} of {len(report.checks)} passed")
    if report.compiled:
        bad = sum(bool(row["faults"]) for row in report.compiled)
        lines.append(f"compiled kernels: {len(report.compiled)}, {bad} with faults")
    if report.copy_bandwidth:
        lines.append(f"copy: {report.copy_bandwidth / 1e9:.1f} GB/s, read and written counted")
    if report.times:
        lines += ["", *time_table(report.times)]
    if report.failures:
        lines += ["", f"FAILED: {len(report.failures)}", *(f"  {f}" for f in report.failures)]
    return "\n".join(lines)
