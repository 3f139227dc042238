# SPDX-License-Identifier: Apache-2.0
"""The order of it all. A section that cannot be finished is noted, and the next one goes on."""

from __future__ import annotations

import platform
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from affectcodec.gpu_check import baselines, checks, graphs, predictions, timing
from affectcodec.gpu_check.compiled import COMPILED_OPS, compile_in_process
from affectcodec.gpu_check.device import Device
from affectcodec.gpu_check.problems import CONFIGS, Shape, latent, quantizer, short, timed_shapes
from affectcodec.gpu_check.report import Report
from affectcodec.info import version_of
from affectcodec.ops.registry import BACKENDS

PACKAGES = ("affectcodec", "torch", "triton", "vector-quantize-pytorch")
SAMPLE_ARCHITECTURE = "sm_90"
GRAPH_SHAPES = (Shape(1, 1), Shape(2, 70, torch.bfloat16, True))

Say = Callable[[str], None]


@contextmanager
def section(report: Report, name: str, say: Say) -> Iterator[None]:
    """Whatever goes wrong inside becomes a line of the report."""
    say(name)
    try:
        yield
    except Exception as error:  # noqa: BLE001 - the rest of the report is worth having
        last = traceback.extract_tb(error.__traceback__)[-1]
        report.errors[name] = f"{type(error).__name__}: {error} ({last.filename}:{last.lineno})"


def versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "platform": platform.platform()}
    return found | {package: version_of(package) for package in PACKAGES}


def backends_of(device: Device) -> dict[str, str]:
    """Backends for the device, the interpreted ones too, each with why it is off."""
    kind = device.torch.type
    return {
        row.name: row.why_missing()
        for row in BACKENDS.values()
        if kind in (row.device, *row.devices()) and (row.name != "cpu" or kind == "cpu")
    }


def check_backend(report: Report, device: Device, backend: str, *, quick: bool, say: Say) -> None:
    """Correctness, and capture into a graph."""
    interpreted = backend != "cpu" and device.torch.type == "cpu"
    ordered = not interpreted and device.facts().get("kind") != "hip"
    with section(report, f"correctness {backend}", say):
        for row in checks.run_checks(device, backend, quick=quick, ordered=ordered):
            report.checks.append({"section": "correctness", "backend": backend, **row})
    with section(report, f"graphs {backend}", say):
        for shape in GRAPH_SHAPES:
            q = quantizer(CONFIGS["default"], device.torch).eval()
            seen = graphs.captured(device, backend, q, shape)
            report.checks.append(
                {
                    "section": "graphs", "backend": backend, "name": "capture and replay",
                    "what": shape.label, "passed": True, "detail": seen,
                }
            )  # fmt: skip


def replayed(device: Device, op: str, call: Callable[[], object], budget: float) -> dict[str, Any]:
    """Time of the call as a graph, which leaves out what Python does between the launches."""
    if op == "training":  # its graph would need gradients in memory of its own
        return {}
    try:
        replay = device.capture(call)
        if replay is None:
            return {}
        return {"replay_median": timing.measure(device, replay, budget).median}
    except Exception as error:  # noqa: BLE001 - what cannot be captured can still be timed
        return {"replay_error": f"{type(error).__name__}: {error}"}


def time_one(
    device: Device,
    provider: str,
    op: str,
    shape: Shape,
    *,
    copy_bandwidth: float | None,
    predicted: float | None,
    floor: float | None,
    budget_seconds: float,
) -> dict[str, Any]:
    """One row of times; a provider that has no such operator, or fails, says so in it."""
    config = CONFIGS["default"]
    row: dict[str, Any] = {
        "op": op, "shape": shape.label, "batch": shape.batch, "frames": shape.frames,
        "dtype": short(shape.dtype), "channels_last": shape.channels_last, "provider": provider,
    }  # fmt: skip
    try:
        q = quantizer(config, device.torch)
        q.train(op == "training")
        call = baselines.call_of(provider, op, q, latent(config, shape, device.torch), shape)
        timed = timing.measure(device, call, budget_seconds)
        again = replayed(device, op, call, budget_seconds) if provider in BACKENDS else {}
    except baselines.NotThere as reason:
        return {**row, "error": str(reason)}
    except Exception as error:  # noqa: BLE001 - another library, a compiler, too little memory
        first = str(error).splitlines()[0] if str(error) else ""
        return {**row, "error": f"{type(error).__name__}: {first}"}
    moved = predictions.least_bytes(op, shape, config)
    seconds = again.get("replay_median", timed.median)  # of the kernels, as far as it is known
    share = None
    if moved is not None and copy_bandwidth and seconds > 0:
        share = moved / seconds / copy_bandwidth
    expected = predicted if predicted is not None else floor
    return {
        **row,
        **timed.as_dict(),
        **again,
        "cold": device.cold,
        "least_bytes": moved,
        "bandwidth_share": share,
        "predicted_seconds": predicted,
        "floor_seconds": floor,
        "prediction_share": expected / seconds if expected and seconds > 0 else None,
    }


def time_all(
    report: Report,
    device: Device,
    *,
    quick: bool,
    say: Say,
    budget_seconds: float,
    skip: tuple[str, ...] = (),
) -> None:
    """Times of every operator, shape and provider, against bandwidth and prediction."""
    shapes = list(timed_shapes(quick))
    expected: dict[tuple[str, str], float] = {}
    target = None
    with section(report, "bandwidth", say):
        report.copy_bandwidth = timing.bandwidth(device)
    if report.gpu and report.copy_bandwidth:
        with section(report, "predictions", say):
            facts = device.facts()
            target = predictions.target_of(facts, report.copy_bandwidth)
            if not BACKENDS["triton"].why_missing():
                expected, rows = predictions.compiled_predictions(
                    shapes, target.architecture, target
                )
                report.compiled += rows
    found = baselines.providers(device.torch)
    for provider, why in found.items():
        if why or provider in skip:
            continue
        with section(report, f"times of {provider}", say):
            for shape in shapes:
                for op in baselines.OPERATORS:
                    floor = None
                    if target is not None:
                        floor = predictions.floor_seconds(op, shape, target, CONFIGS["default"])
                    predicted = expected.get((op, shape.label)) if provider == "triton" else None
                    report.times.append(
                        time_one(
                            device, provider, op, shape, copy_bandwidth=report.copy_bandwidth,
                            predicted=predicted, floor=floor, budget_seconds=budget_seconds,
                        )
                    )  # fmt: skip


def compile_sample(report: Report, say: Say) -> None:
    """A few kernels for an architecture that is not here, read and judged."""
    with section(report, f"kernels compiled for {SAMPLE_ARCHITECTURE}", say):
        cases = [
            {"op": op, "dtype": "float32", "channels_last": True, "batch": 16, "frames": 1024}
            for op in COMPILED_OPS
        ]
        report.compiled += compile_in_process(SAMPLE_ARCHITECTURE, cases)


def run_all(
    device: Device,
    why_no_gpu: str,
    *,
    quick: bool = False,
    build: str = "",
    say: Say = lambda line: None,
    budget_seconds: float = 0.2,
    skip: tuple[str, ...] = (),
) -> Report:
    """Everything that can be run here.

    Args:
        device: where to run; ``why_no_gpu`` is empty if it is a GPU.
        quick: few and small shapes.
        skip: providers that are not timed.
    """
    report = Report(device.facts(), not why_no_gpu, why_no_gpu, versions(), build)
    report.backends = backends_of(device)
    for backend, why in report.backends.items():
        if not why:
            check_backend(report, device, backend, quick=quick or not report.gpu, say=say)
    if not report.gpu:
        if BACKENDS["triton"].why_missing():
            report.errors["triton"] = BACKENDS["triton"].why_missing()
        else:
            compile_sample(report, say)
        # An interpreter's time is nobody's; what is timed here shows that timing works.
        skip = (*skip, "triton", "cuda")
    time_all(
        report, device, quick=quick or not report.gpu, say=say, budget_seconds=budget_seconds,
        skip=skip,
    )  # fmt: skip
    return report
