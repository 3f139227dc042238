# SPDX-License-Identifier: Apache-2.0
"""What each operator is expected to take on a GPU. Predictions, and named so wherever they appear.

For Triton the kernels are compiled for the GPU and the model of ``affectcodec.kernels.roofline`` is
applied to each. For other kernels only the floor is known: bytes that must move and products that
must be made, whichever takes longer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from affectcodec.config import BDRFSQConfig
from affectcodec.gpu_check.baselines import RATES
from affectcodec.gpu_check.compiled import COMPILED_OPS, Target, compile_in_process
from affectcodec.gpu_check.problems import Shape, short
from affectcodec.kernels.hardware import GPUS, MULTIPROCESSORS, Gpu
from affectcodec.kernels.plan import describe, make_plan
from affectcodec.kernels.roofline import Use, least

# Operators as they are timed, and the launches that they are made of.
PARTS = {
    "encode": ("encode",),
    "forward": ("forward",),
    "training": ("forward", "backward"),
    "decode": ("decode",),
}


def family(architecture: str) -> str:
    """The architecture of the table of limits that holds for another one."""
    if architecture in MULTIPROCESSORS or not architecture.startswith("sm_"):
        return architecture
    known = sorted(int(name[3:]) for name in MULTIPROCESSORS if name.startswith("sm_"))
    number = int(architecture[3:])
    return f"sm_{max((n for n in known if n <= number), default=known[0])}"


def target_of(facts: dict[str, Any], bandwidth: float) -> Target:
    """The GPU as the device describes it, with the bandwidth that was measured on it."""
    name = family(facts["architecture"])
    peak = GPUS.get(name)
    clock = (facts.get("clock_khz") or 0) / 1e6 or (peak.clock_ghz if peak else 1.0)
    return Target(facts["name"], name, facts["multiprocessors"], clock, bandwidth)


def compiled_predictions(
    shapes: Sequence[Shape], architecture: str, target: Target
) -> tuple[dict[tuple[str, str], float], list[dict[str, Any]]]:
    """Predicted seconds by operator and shape label for the Triton kernels, and all their rows."""
    cases, labels = [], []
    for shape in shapes:
        for op in COMPILED_OPS:
            cases.append(
                {
                    "op": op,
                    "dtype": short(shape.dtype),
                    "channels_last": shape.channels_last,
                    "batch": shape.batch,
                    "frames": shape.frames,
                }
            )
            labels.append((op, shape.label))
    found = compile_in_process(architecture, cases, target)
    seconds: dict[tuple[str, str], float] = defaultdict(float)
    for row in found:
        seconds[labels[row["case"]]] += row["predicted_seconds"]
    for shape in shapes:
        seconds["training", shape.label] = sum(
            seconds[part, shape.label] for part in PARTS["training"]
        )
    return dict(seconds), found


def floor_seconds(op: str, shape: Shape, target: Target, config: BDRFSQConfig) -> float | None:
    """Fewest seconds of any kernel for the operator; None for operators without a model."""
    if op not in PARTS:
        return None
    plan = make_plan(describe(config))
    rates = (*(rate for rate in RATES if rate < plan.stages), plan.stages)
    use = Use(plan, shape.dtype.itemsize, shape.batch, shape.frames, rates)
    gpu = Gpu(
        target.name,
        target.architecture,
        target.multiprocessors,
        target.clock_ghz,
        target.bandwidth,
    )
    total = 0.0
    for part in PARTS[op]:
        moved, multiplied = least(part, use)
        total += max(moved / gpu.bandwidth, multiplied / gpu.fma_rate)
    return total


def least_bytes(op: str, shape: Shape, config: BDRFSQConfig) -> int | None:
    """Bytes that an operator cannot but move; None for operators without a model."""
    if op not in PARTS:
        return None
    plan = make_plan(describe(config))
    rates = (*(rate for rate in RATES if rate < plan.stages), plan.stages)
    use = Use(plan, shape.dtype.itemsize, shape.batch, shape.frames, rates)
    return sum(least(part, use)[0] for part in PARTS[op])
