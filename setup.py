# SPDX-License-Identifier: Apache-2.0
"""Builds the native parts with CMake and says what was built and what was left out.

All metadata stands in pyproject.toml. Nothing native is needed to run: a part that this machine
cannot build is left out with its reason, and the same reason is shown by
``python -m affectcodec.info``. Environment:

    AFFECTCODEC_NO_NATIVE=1        build nothing native
    AFFECTCODEC_REQUIRE_NATIVE=1   fail where a part cannot be built, the CUDA part excepted
    AFFECTCODEC_NO_CUDA=1          leave out the CUDA part; it is built wherever nvcc is
    FORCE_CUDA=1                   fail where the CUDA part cannot be built
    TORCH_CUDA_ARCH_LIST           what the CUDA part is compiled for, such as "8.0;9.0+PTX"
    CUDACXX, CUDA_HOME             nvcc, or the toolkit it lies in; otherwise nvcc on PATH
    CXX, CXXFLAGS                  compiler and its flags, as CMake reads them
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent


class LeftOut(Exception):
    """A part cannot be built here; the message is for the user."""


@dataclass(frozen=True)
class Part:
    """One native part: CMake target and install component ``name``, switched by ``option``.

    ``requirements`` returns the CMake arguments the part needs, or raises :class:`LeftOut`. Parts
    of one ``tree`` are configured together: what may fail to configure has a tree of its own.
    """

    name: str
    option: str
    purpose: str
    requirements: Callable[[], list[str]]
    tree: str = "cmake"

    @property
    def required(self) -> bool:
        """Whether the build must fail where this part is left out."""
        return is_set("FORCE_CUDA" if self.tree == "cuda" else "AFFECTCODEC_REQUIRE_NATIVE")


def python_module_requirements() -> list[str]:
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    if not header.is_file():
        raise LeftOut(f"{header} is missing; install Python's headers (Debian: python3-dev)")
    try:
        import pybind11
    except ImportError:
        raise LeftOut(
            "pybind11 is not installed; `pip install pybind11`, or build with isolation"
        ) from None
    return [f"-Dpybind11_DIR={pybind11.get_cmake_dir()}", f"-DPython_EXECUTABLE={sys.executable}"]


def find_torch() -> Path:
    """Folder of the torch package that the kernels will run with.

    pip hides the environment from an isolated build, but builds with its interpreter, whose paths
    still name it. Nothing of torch is imported: that takes seconds and no build needs it.
    """
    spec = importlib.util.find_spec("torch")
    folders = [Path(spec.origin).parent] if spec and spec.origin else []
    folders += [Path(sysconfig.get_paths()[name]) / "torch" for name in ("platlib", "purelib")]
    for folder in folders:
        if (folder / "version.py").is_file():
            return folder
    raise LeftOut(
        "torch is not installed where this is built; install torch first, then this package with "
        "`pip install .` or `pip install --no-build-isolation .`"
    )


def torch_requirements() -> list[str]:
    """Headers and libraries of torch, of the environment that will run the kernels."""
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    if not header.is_file():
        raise LeftOut(f"{header} is missing; install Python's headers (Debian: python3-dev)")
    folder = find_torch()
    found = re.search(r"__version__ = '((\d+)\.(\d+)[^']*)'", (folder / "version.py").read_text())
    if found is None or (int(found[2]), int(found[3])) < (2, 13):
        version = found[1] if found else "of unknown version"
        raise LeftOut(f"torch {version} is too old, the kernels need 2.13 or newer")
    if not (folder / "include" / "torch" / "csrc" / "stable" / "library.h").is_file():
        raise LeftOut(f"torch {found[1]} in {folder} has no headers of its stable interface")
    return [f"-DAFFECTCODEC_TORCH_PATH={folder}", f"-DPython_EXECUTABLE={sys.executable}"]


def find_nvcc() -> str:
    asked = os.environ.get("CUDACXX")
    if asked:
        if not shutil.which(asked):
            raise LeftOut(f"CUDACXX={asked} is not an executable")
        return asked
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    found = shutil.which("nvcc", path=os.path.join(home, "bin")) if home else shutil.which("nvcc")
    if found is None:
        where = f"in {home}" if home else "on PATH"
        raise LeftOut(f"nvcc is not {where}; install the CUDA toolkit, or set CUDA_HOME")
    return found


def cuda_architectures(asked: str, known: set[int]) -> str:
    """Architectures as CMake names them, of a list such as ``"8.0;9.0+PTX"``.

    Without a list: those that each generation's own code is made for, as far as this nvcc knows
    them, and PTX that newer GPUs compile at their first launch.
    """
    if asked:
        names = []
        for word in asked.replace(",", ";").replace(" ", ";").split(";"):
            found = re.fullmatch(r"(\d+)\.(\d)([af]?)(\+PTX)?", word)
            if not word:
                continue
            if found is None:
                raise LeftOut(f"TORCH_CUDA_ARCH_LIST: wanted such as 8.0;9.0+PTX, got {word!r}")
            number = f"{found[1]}{found[2]}{found[3]}"
            names.append(number if found[4] else f"{number}-real")
        return ";".join(names)
    wanted = [number for number in (80, 90, 100, 120) if number in known]
    if not wanted:
        raise LeftOut("this nvcc knows none of sm_80, sm_90, sm_100 and sm_120; update it")
    ptx = 100 if 100 in wanted else wanted[-1]
    return ";".join(str(n) if n == ptx else f"{n}-real" for n in wanted)


def cuda_requirements() -> list[str]:
    """nvcc, and what any torch part needs; a GPU is not asked for."""
    if is_set("AFFECTCODEC_NO_CUDA"):
        raise LeftOut("AFFECTCODEC_NO_CUDA was set at build time")
    nvcc = find_nvcc()
    done = subprocess.run([nvcc, "--list-gpu-arch"], capture_output=True, text=True)
    if done.returncode:
        raise LeftOut(f"{nvcc} does not work: {first_error(done.stderr + done.stdout)}")
    known = {int(number) for number in re.findall(r"compute_(\d+)\b", done.stdout)}
    names = cuda_architectures(os.environ.get("TORCH_CUDA_ARCH_LIST", ""), known)
    return [
        *torch_requirements(),
        f"-DCMAKE_CUDA_COMPILER={nvcc}",
        f"-DAFFECTCODEC_CUDA_ARCHITECTURES={names}",
    ]


PARTS = (
    Part(
        "_C",
        "AFFECTCODEC_BUILD_PYTHON",
        "fast bit packing, CPU features",
        python_module_requirements,
    ),
    Part("_cpu", "AFFECTCODEC_BUILD_CPU", "quantizer kernels for the CPU", torch_requirements),
    Part(
        "_runtime",
        "AFFECTCODEC_BUILD_RUNTIME",
        "live encoder and decoder",
        python_module_requirements,
    ),
    Part(
        "_cuda",
        "AFFECTCODEC_BUILD_CUDA",
        "quantizer kernels for NVIDIA GPUs",
        cuda_requirements,
        tree="cuda",
    ),
)


def is_set(variable: str) -> bool:
    return os.environ.get(variable, "0").lower() not in ("", "0", "false", "no")


def find_tool(name: str) -> str | None:
    """Path of a build tool on PATH, or beside the interpreter of a venv that is not activated."""
    return shutil.which(name) or shutil.which(str(Path(sys.executable).parent / name))


def find_compiler() -> str:
    asked = os.environ.get("CXX")
    if asked:
        if not shutil.which(asked.split()[0]):
            raise LeftOut(f"CXX={asked} is not an executable")
        return asked
    for name in ("c++", "g++", "clang++", "cl"):
        if shutil.which(name):
            return name
    raise LeftOut("no C++ compiler found; install g++ or clang++, or set CXX")


class CMake:
    """One configured build tree."""

    def __init__(self, build: Path) -> None:
        self.build = build
        self.toolchain: dict[str, str] = {}
        tool = find_tool("cmake")
        if tool is None:
            raise LeftOut("CMake is not installed; `pip install cmake`, or build with isolation")
        self.cmake = tool

    def _call(self, what: str, *arguments: str) -> None:
        done = subprocess.run(
            [self.cmake, *arguments], capture_output=True, text=True, errors="replace"
        )
        log = done.stdout + done.stderr
        sys.stdout.write(log)
        if done.returncode:
            raise LeftOut(f"{what} failed: {first_error(log)} (whole log: pip install -v)")

    def configure(self, arguments: list[str]) -> None:
        ninja = find_tool("ninja")
        if ninja:
            arguments = [*arguments, "-GNinja", f"-DCMAKE_MAKE_PROGRAM={ninja}"]
        # Fresh: a tree left by another interpreter or a removed build environment holds dead paths.
        shutil.rmtree(self.build, ignore_errors=True)
        self._call("CMake", "-S", str(ROOT), "-B", str(self.build), *arguments)
        record = self.build / "toolchain.json"
        self.toolchain = json.loads(record.read_text(encoding="utf-8"))

    def install(self, name: str, prefix: Path) -> None:
        self._call(
            "compiling", "--build", str(self.build), "--config", "Release", "--target", name,
            "--parallel", os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL") or str(os.cpu_count() or 1),
        )  # fmt: skip
        self._call(
            "installing", "--install", str(self.build), "--config", "Release",
            "--component", name, "--prefix", str(prefix),
        )  # fmt: skip


def first_error(log: str) -> str:
    """The most telling line of a build log."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    if any("is not able to compile a simple test program" in line for line in lines):
        return f"the C++ compiler ({os.environ.get('CXX', 'c++')}) does not work"
    for i, line in enumerate(lines):
        if line.startswith("CMake Error"):
            return " ".join(lines[i : i + 2])[:300]
        if "error:" in line:
            return line[:300]
    return lines[-1][:300] if lines else "no output"


class BuildNative(build_ext):
    """Builds every part that can be built, and keeps a record beside the package."""

    def run(self) -> None:
        self._produced: list[str] = []
        stage = Path(self.build_temp).resolve() / "stage"
        shutil.rmtree(stage, ignore_errors=True)
        record = self._build(stage)
        in_place = self.inplace or getattr(self, "editable_mode", False)
        package = ROOT / "affectcodec" if in_place else Path(self.build_lib) / "affectcodec"
        self._place(stage, package, record)
        print_summary(record)
        missing = [part for part in PARTS if part.required and part.name in record["left_out"]]
        if missing:
            raise SystemExit(f"a native part that was asked for was left out: {missing[0].name}")

    def _build(self, stage: Path) -> dict[str, dict[str, str]]:
        built: dict[str, str] = {}
        left_out: dict[str, str] = {}
        toolchain: dict[str, str] = {}
        for tree in dict.fromkeys(part.tree for part in PARTS):
            parts = [part for part in PARTS if part.tree == tree]
            toolchain.update(self._build_tree(tree, parts, stage, built, left_out))
        return {"built": built, "left_out": left_out, "toolchain": toolchain}

    def _build_tree(
        self,
        tree: str,
        parts: list[Part],
        stage: Path,
        built: dict[str, str],
        left_out: dict[str, str],
    ) -> dict[str, str]:
        """Builds the parts of one tree; returns its toolchain."""
        arguments: list[str] = [f"-D{part.option}=OFF" for part in PARTS if part.tree != tree]
        wanted: list[Part] = []
        for part in parts:
            try:
                if is_set("AFFECTCODEC_NO_NATIVE"):
                    raise LeftOut("AFFECTCODEC_NO_NATIVE was set at build time")
                arguments += [*part.requirements(), f"-D{part.option}=ON"]
                wanted.append(part)
            except LeftOut as reason:
                left_out[part.name] = str(reason)
                arguments.append(f"-D{part.option}=OFF")
        if not wanted:
            return {}
        try:
            find_compiler()
            cmake = CMake(Path(self.build_temp).resolve() / tree)
            cmake.configure(arguments)
        except LeftOut as reason:
            left_out.update({part.name: str(reason) for part in wanted})
            return {}
        for part in wanted:
            try:
                cmake.install(part.name, stage)
                built[part.name] = part.purpose
            except LeftOut as reason:
                left_out[part.name] = str(reason)
        return cmake.toolchain

    def _place(self, stage: Path, package: Path, record: dict[str, dict[str, str]]) -> None:
        package.mkdir(parents=True, exist_ok=True)
        for part in PARTS:
            # An older binary must not outlive a build that left the part out. Only this
            # interpreter's: another environment may use the same tree.
            binary = part.name + str(sysconfig.get_config_var("EXT_SUFFIX"))
            if not (stage / binary).exists():
                (package / binary).unlink(missing_ok=True)
        (stage / "_build_info.json").parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({**record, "python": sysconfig.get_platform()}, indent=2, sort_keys=True)
        (stage / "_build_info.json").write_text(text + "\n", encoding="utf-8")
        for source in sorted(stage.iterdir()):
            target = package / source.name
            # Replaced, not overwritten: a running process may have the old file mapped.
            shutil.copy2(source, target.with_name(target.name + ".new"))
            os.replace(target.with_name(target.name + ".new"), target)
            self._produced.append(str(target))

    def get_outputs(self) -> list[str]:
        return list(getattr(self, "_produced", []))

    def get_output_mapping(self) -> dict[str, str]:
        return {}


def print_summary(record: dict[str, dict[str, str]]) -> None:
    toolchain = record["toolchain"]
    lines = ["", "AffectCodec native build"]
    if toolchain:
        lines += [f"  compiler  {toolchain['compiler']}", f"  flags     {toolchain['flags']}"]
    lines += [f"  built     {name}: {purpose}" for name, purpose in record["built"].items()]
    lines += [f"  left out  {name}: {reason}" for name, reason in record["left_out"].items()]
    if record["left_out"]:
        lines.append("  The package works without these parts, only slower.")
    print("\n".join([*lines, ""]), flush=True)


setup(
    packages=[
        *find_packages(include=["affectcodec", "affectcodec.*"]),
        "affectcodec.kernels",
        *(f"affectcodec.kernels.{name}" for name in find_packages("kernels")),
    ],
    package_dir={"affectcodec": "affectcodec", "affectcodec.kernels": "kernels"},
    # Optional and without sources: it marks the wheel as this platform's, CMake does the rest.
    ext_modules=[Extension("affectcodec._C", sources=[], optional=True)],
    cmdclass={"build_ext": BuildNative},
)
