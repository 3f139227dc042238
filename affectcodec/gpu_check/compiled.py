# SPDX-License-Identifier: Apache-2.0
"""Kernels of one architecture, compiled and read, as JSON; run as a process of its own.

    python -m affectcodec.gpu_check.compiled '{"architecture": "sm_90", "cases": [...]}'

An interpreting process cannot compile, and a compiler that crashes must not take the check along.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from typing import Any

TIMEOUT_SECONDS = 900
COMPILED_OPS = ("encode", "forward", "backward", "decode")


@dataclass(frozen=True)
class Target:
    """A GPU to predict for; see ``affectcodec.kernels.hardware.Gpu``."""

    name: str
    architecture: str
    multiprocessors: int
    clock_ghz: float
    bandwidth: float


def compile_in_process(
    architecture: str, cases: list[dict[str, Any]], target: Target | None = None
) -> list[dict[str, Any]]:
    """Facts, faults and predictions of the kernels of some uses, from a process of its own.

    Args:
        cases: each with ``op``, ``dtype`` (a name of torch), ``channels_last``, ``batch``,
            ``frames``.
        target: what to predict for; None for the published peaks of the architecture.

    Returns:
        a row a kernel; ``case`` in it is the place of its use in ``cases``.

    Raises:
        RuntimeError: the process failed; the message has the end of what it said.
    """
    wanted = {"architecture": architecture, "cases": cases, "target": target and asdict(target)}
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-m", "affectcodec.gpu_check.compiled", json.dumps(wanted)],
        env=environment, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"compiling failed: {done.stderr.strip()[-2000:]}")
    rows: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return rows


def compile_here(wanted: dict[str, Any]) -> list[dict[str, Any]]:
    """What the process does; needs triton, and no interpreter."""
    import torch

    from affectcodec.kernels import aot, gate, hardware

    gpu = hardware.Gpu(**wanted["target"]) if wanted["target"] else None
    rows = []
    for number, entry in enumerate(wanted["cases"]):
        case = aot.Case(**{**entry, "dtype": getattr(torch, entry["dtype"])})
        for row in aot.compile_case((wanted["architecture"], case)):
            expected = gate.prediction(row, gpu)
            rows.append(
                {
                    "case": number,
                    "op": case.op,
                    "use": case.label,
                    "kernel": row.name,
                    "registers": row.facts.registers,
                    "spills": row.facts.spills,
                    "shared": row.facts.shared,
                    "faults": gate.faults(row),
                    "predicted_seconds": expected.seconds,
                    "predicted_bound": expected.bound,
                    "predicted_warps": expected.warps,
                }
            )
    return rows


if __name__ == "__main__":
    print(json.dumps(compile_here(json.loads(sys.argv[1]))))
