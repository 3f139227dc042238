# SPDX-License-Identifier: Apache-2.0
"""``python -m affectcodec.info``: which parts are on, and why each other one is off.

Every probe is guarded, so that a broken installation is reported and never crashes the report.
To report another part, write a probe and add one row to ``PROBES``.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from affectcodec import _native


@dataclass(frozen=True)
class Status:
    """State of one part.

    Attributes:
        group: heading it is shown under.
        name: what it is called.
        on: whether it can be used now.
        detail: version or other facts where on, the reason where off.
        fix: how to turn it on; empty where it is on or cannot be.
    """

    group: str
    name: str
    on: bool
    detail: str
    fix: str = ""


@dataclass(frozen=True)
class Report:
    """Versions, parts and the build record of this installation."""

    versions: dict[str, str]
    parts: tuple[Status, ...]
    cpu_features: dict[str, bool]
    build: dict[str, object]

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


REQUIRED = ("torch", "numpy", "safetensors", "soundfile", "soxr", "click", "tqdm")

# package to import, extra that brings it, what it is for
OPTIONAL = (
    ("swift_f0", "eval", "fundamental frequency for metrics"),
    ("pyworld", "eval", "WORLD: resynthesis as a control, other F0 trackers"),
    ("pesq", "eval", "PESQ"),
    ("pystoi", "eval", "STOI"),
    ("matplotlib", "eval", "plots"),
    ("tensorboard", "train", "training curves"),
)

# module, distribution, extra, purpose; looked for and not imported, which would take seconds
LARGE = (
    ("opensmile", "opensmile", "judges", "eGeMAPS: an emotion judge, concordance"),
    ("sklearn", "scikit-learn", "judges", "the emotion judges"),
    ("faster_whisper", "faster-whisper", "judges", "Whisper: an emotion judge, word errors"),
)


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0] if text else 'no message'}"


def version_of(package: str) -> str:
    """Version of an installed package, or that it is not there."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _imports(package: str) -> str:
    """Empty where ``package`` imports, otherwise why not."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # not this report's to tell
            importlib.import_module(package)
    except ModuleNotFoundError as error:
        return "not installed" if error.name == package else _first_line(error)
    except Exception as error:  # noqa: BLE001 - a third party's import may raise anything
        return _first_line(error)
    return ""


def _package(group: str, package: str, extra: str, purpose: str) -> Status:
    why = _imports(package)
    if not why:
        return Status(group, package, True, f"{version_of(package)}, {purpose}")
    return Status(group, package, False, f"{why}; for {purpose}", _install(extra))


def _install(extra: str) -> str:
    return f"pip install 'affectcodec[{extra}]'"


def _probe_native() -> list[Status]:
    loaded = _native.load("affectcodec._C")
    if loaded.module is not None:
        compiler = loaded.module.build_info().get("compiler", "unknown compiler")
        return [Status("native", "bit packing", True, f"compiled with {compiler}")]
    fix = "install a C++17 compiler, then: pip install --force-reinstall --no-deps <source tree>"
    if _native.native_disabled():
        fix = "unset AFFECTCODEC_NO_NATIVE"
    return [Status("native", "bit packing", False, f"{loaded.reason}; NumPy is used instead", fix)]


def _probe_kernels() -> list[Status]:
    import torch  # noqa: F401 - brings the libraries that the kernels are linked to

    loaded = _native.load("affectcodec._cpu")
    if loaded.module is None:
        fix = "install torch and a C++ compiler, then: pip install --no-deps <source tree>"
        if _native.native_disabled():
            fix = "unset AFFECTCODEC_NO_NATIVE"
        why = f"{loaded.reason}; plain PyTorch is used instead"
        return [Status("native", "CPU kernels", False, why, fix)]
    try:
        isa = loaded.module.isa()
    except RuntimeError as error:
        return [Status("native", "CPU kernels", False, str(error), "unset AFFECTCODEC_CPU_ISA")]
    return [Status("native", "CPU kernels", True, f"instruction set: {isa}")]


def _probe_cuda_kernels() -> list[Status]:
    import torch  # noqa: F401 - brings the libraries that the kernels are linked to

    loaded = _native.load("affectcodec._cuda")
    if loaded.module is None:
        fix = "install the CUDA toolkit, then: pip install --no-build-isolation --no-deps <source>"
        if _native.native_disabled():
            fix = "unset AFFECTCODEC_NO_NATIVE"
        return [Status("GPU", "CUDA kernels", False, loaded.reason, fix)]
    return [Status("GPU", "CUDA kernels", True, f"for {loaded.module.architectures()}")]


def _probe_runtime() -> list[Status]:
    loaded = _native.load("affectcodec._runtime")
    if loaded.module is None:
        fix = (
            "install a C++17 compiler, then: pip install --force-reinstall --no-deps <source tree>"
        )
        if _native.native_disabled():
            fix = "unset AFFECTCODEC_NO_NATIVE"
        why = f"{loaded.reason}; live coding runs in plain PyTorch"
        return [Status("native", "live runtime", False, why, fix)]
    try:
        isa = loaded.module.isa()
    except RuntimeError as error:
        return [Status("native", "live runtime", False, str(error), "unset AFFECTCODEC_CPU_ISA")]
    return [Status("native", "live runtime", True, f"instruction set: {isa}")]


def _probe_triton() -> list[Status]:
    why = _imports("triton")
    if why:
        return [Status("GPU", "triton", False, why, _install("triton"))]
    return [Status("GPU", "triton", True, version_of("triton"))]


def _probe_cuda() -> list[Status]:
    import torch

    if torch.cuda.is_available():
        detail = f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}"
        return [Status("GPU", "CUDA device", True, detail)]
    if torch.version.cuda is None:
        why, fix = "this torch is a CPU build", "install a CUDA build of torch"
    else:
        why, fix = f"torch has CUDA {torch.version.cuda} but sees no device", "check the driver"
    return [Status("GPU", "CUDA device", False, why, fix)]


def _probe_nvcc() -> list[Status]:
    path = shutil.which("nvcc")
    if path is None:
        return [Status("GPU", "nvcc", False, "not on PATH", "install the CUDA toolkit")]
    done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=30)
    release = [line for line in done.stdout.splitlines() if "release" in line]
    return [Status("GPU", "nvcc", True, release[0].strip() if release else path)]


def _probe_dispatch() -> list[Status]:
    from affectcodec.ops.registry import BACKENDS, REFERENCE

    order = [row for row in BACKENDS.values() if row.device == "cuda"]
    there = [row.name for row in order if not row.why_missing()]
    names = ", then ".join(row.name for row in order)
    first = (there or [REFERENCE])[0]
    detail = f"CUDA tensors go to {names}, then {REFERENCE}; in this installation to {first}"
    return [Status("GPU", "dispatch", bool(there), detail, "" if there else _install("triton"))]


def _probe_optional() -> list[Status]:
    large = []
    for module, distribution, extra, purpose in LARGE:
        there = importlib.util.find_spec(module) is not None
        detail = (
            f"{version_of(distribution)}, {purpose}" if there else f"not installed; for {purpose}"
        )
        fix = "" if there else _install(extra)
        large.append(Status("optional", distribution, there, detail, fix))
    return [*(_package("optional", *row) for row in OPTIONAL), *large]


PROBES: tuple[tuple[str, Callable[[], list[Status]]], ...] = (
    ("native", _probe_native),
    ("native", _probe_kernels),
    ("native", _probe_runtime),
    ("GPU", _probe_triton),
    ("GPU", _probe_cuda),
    ("GPU", _probe_nvcc),
    ("GPU", _probe_cuda_kernels),
    ("GPU", _probe_dispatch),
    ("optional", _probe_optional),
)


def _guarded(group: str, probe: Callable[[], list[Status]]) -> list[Status]:
    try:
        return probe()
    except Exception as error:  # noqa: BLE001 - the report has to survive whatever is broken
        name = probe.__name__.removeprefix("_probe_")
        return [Status(group, name, False, f"the check failed: {_first_line(error)}")]


def _cpu_features() -> dict[str, bool]:
    """Instruction sets by name; empty where the compiled module is not there to ask."""
    module = _native.load("affectcodec._C").module
    try:
        return dict(module.cpu_features()) if module is not None else {}
    except Exception:  # noqa: BLE001 - a stale binary
        return {}


def collect() -> Report:
    """Probe everything; raises nothing."""
    versions = {
        "affectcodec": version_of("affectcodec"),
        "Python": platform.python_version(),
        "platform": platform.platform(),
        **{package: version_of(package) for package in REQUIRED},
    }
    parts = tuple(status for group, probe in PROBES for status in _guarded(group, probe))
    return Report(versions, parts, _cpu_features(), _native.build_info())


def render(report: Report) -> str:
    """The report as text for a terminal."""
    lines = ["versions"]
    lines += [f"  {name:<14} {version}" for name, version in report.versions.items()]
    group = ""
    for part in report.parts:
        if part.group != group:
            group = part.group
            lines += ["", group]
        lines.append(f"  {part.name:<14} {'on ' if part.on else 'OFF'}  {part.detail}")
        if part.fix:
            lines.append(f"  {'':<14}      to turn it on: {part.fix}")
    features = [name for name, there in report.cpu_features.items() if there]
    lines += ["", "CPU", f"  {'machine':<14} {platform.machine() or 'unknown'}"]
    known = " ".join(features) if report.cpu_features else "unknown: needs the native module"
    lines.append(f"  {'instructions':<14} {known}")
    toolchain = report.build.get("toolchain")
    if isinstance(toolchain, dict) and toolchain:
        lines += ["", "native build"]
        lines += [f"  {name:<14} {value}" for name, value in toolchain.items()]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m affectcodec.info",
        description="Show which parts of AffectCodec are on, and why each other one is off.",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args(argv)
    report = collect()
    text = json.dumps(report.as_dict(), indent=2) if arguments.json else render(report)
    try:
        print(text, flush=True)
    except BrokenPipeError:  # `| head`: whoever read has enough; the exit must not flush again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main())
