# SPDX-License-Identifier: Apache-2.0
"""What a build installs, what it leaves out, and what it says about it."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("affectcodec", "kernels", "csrc")
FILES = ("pyproject.toml", "setup.py", "CMakeLists.txt", "MANIFEST.in", "LICENSE")

# A compiler on a busy machine takes its time.
pytestmark = pytest.mark.timeout(300)

needs_build_tools = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("setuptools", "wheel", "pybind11")),
    reason="needs setuptools, wheel and pybind11 in this environment",
)
needs_compiler = pytest.mark.skipif(
    not any(shutil.which(name) for name in ("c++", "g++", "clang++")),
    reason="needs a C++ compiler",
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of the tree without what was built in it."""
    copy = tmp_path / "source"
    built = shutil.ignore_patterns("__pycache__", "*.so", "*.pyd", "_build_info.json")
    for name in SOURCES:
        shutil.copytree(ROOT / name, copy / name, ignore=built)
    for name in FILES:
        shutil.copy2(ROOT / name, copy / name)
    (copy / "README.md").write_text("# AffectCodec\n")
    # Folders that a build could sweep up by mistake.
    for name in ("tests", "benchmarks", "docs"):
        (copy / name).mkdir()
        (copy / name / "__init__.py").write_text("")
    return copy


def build(source: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A wheel of ``source``; without the CUDA part, which takes a minute, unless asked for."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("AFFECTCODEC_")}
    clean["AFFECTCODEC_NO_CUDA"] = "1"
    return subprocess.run(
        [sys.executable, "setup.py", "bdist_wheel", "--dist-dir", str(source.parent / "dist")],
        cwd=source,
        env={**clean, **environment},
        capture_output=True,
        text=True,
        timeout=280,
    )


def wheel_of(source: Path) -> zipfile.ZipFile:
    (path,) = (source.parent / "dist").glob("*.whl")
    return zipfile.ZipFile(path)


def record_of(wheel: zipfile.ZipFile) -> dict[str, dict[str, str]]:
    record: dict[str, dict[str, str]] = json.loads(wheel.read("affectcodec/_build_info.json"))
    return record


@needs_build_tools
@pytest.mark.slow
def test_wheel_holds_the_package_and_nothing_else(source: Path) -> None:
    done = build(source, AFFECTCODEC_NO_NATIVE="1")
    assert done.returncode == 0, done.stderr[-3000:]
    names = wheel_of(source).namelist()
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == {"affectcodec"}
    assert "affectcodec/kernels/__init__.py" in names
    assert "affectcodec/bitpacking.py" in names
    assert not [name for name in names if name.endswith((".so", ".pyd", ".h", ".cpp"))]
    packaged = {name for name in names if name.startswith(("affectcodec/pretrained/",))}
    shipped = {
        path.relative_to(ROOT).as_posix()
        for pattern in ("*.json", "*.safetensors", "*.md")
        for path in (ROOT / "affectcodec" / "pretrained").rglob(pattern)
    }
    assert packaged == shipped


@needs_build_tools
@pytest.mark.slow
def test_without_native_the_reason_is_recorded_and_printed(source: Path) -> None:
    done = build(source, AFFECTCODEC_NO_NATIVE="1")
    record = record_of(wheel_of(source))
    assert record["built"] == {}
    assert "AFFECTCODEC_NO_NATIVE" in record["left_out"]["_C"]
    assert "left out  _C: AFFECTCODEC_NO_NATIVE" in done.stdout


@needs_build_tools
@pytest.mark.slow
@pytest.mark.parametrize(
    ("compiler", "reason"),
    [("/bin/false", "does not work"), ("/absent/c++", "is not an executable")],
)
def test_broken_compiler_gives_pure_python(source: Path, compiler: str, reason: str) -> None:
    done = build(source, CXX=compiler)
    assert done.returncode == 0, done.stderr[-3000:]
    wheel = wheel_of(source)
    assert reason in record_of(wheel)["left_out"]["_C"]
    assert not [name for name in wheel.namelist() if name.endswith(".so")]


@needs_build_tools
@pytest.mark.slow
def test_required_native_part_that_fails_is_an_error(source: Path) -> None:
    done = build(source, CXX="/absent/c++", AFFECTCODEC_REQUIRE_NATIVE="1")
    assert done.returncode != 0
    assert "left out  _C: CXX=/absent/c++ is not an executable" in done.stdout
    assert not (source.parent / "dist").exists()


@needs_build_tools
@needs_compiler
@pytest.mark.slow
def test_source_that_does_not_compile_is_left_out_with_the_error(source: Path) -> None:
    module = source / "csrc" / "python" / "module.cpp"
    module.write_text("#error this machine is special\n")
    done = build(source)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "this machine is special" in record_of(wheel_of(source))["left_out"]["_C"]


@needs_build_tools
@needs_compiler
@pytest.mark.slow
def test_native_wheel_works(source: Path, tmp_path: Path) -> None:
    done = build(source, AFFECTCODEC_REQUIRE_NATIVE="1")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "built     _C" in done.stdout
    wheel = wheel_of(source)
    record = record_of(wheel)
    assert record["left_out"] == {"_cuda": "AFFECTCODEC_NO_CUDA was set at build time"}
    assert "-ffp-contract=off" in record["toolchain"]["flags"]
    assert "-march" not in record["toolchain"]["flags"]
    wheel.extractall(tmp_path / "installed")
    code = (
        "import affectcodec.kernels, affectcodec._C as c, numpy as n;"
        "print(c.__file__, c.pack_bits(n.array([1, 2], n.int32), 4))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path / "installed",
        env={**os.environ, "PYTHONPATH": str(tmp_path / "installed")},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert str(tmp_path) in ran.stdout and "b'!'" in ran.stdout


@needs_build_tools
@needs_compiler
@pytest.mark.slow
def test_without_nvcc_the_rest_is_built_and_the_reason_said(source: Path, tmp_path: Path) -> None:
    tools = tmp_path / "tools"  # a PATH with a compiler and no nvcc
    tools.mkdir()
    for name in ("c++", "g++", "gcc", "cc", "ld", "as", "ar", "ranlib", "nm", "sh", "ninja"):
        found = shutil.which(name)
        if found:
            (tools / name).symlink_to(found)
    done = build(source, AFFECTCODEC_NO_CUDA="0", PATH=str(tools), CUDA_HOME="", CUDA_PATH="")
    record = record_of(wheel_of(source))
    assert "_C" in record["built"], done.stdout[-3000:]
    assert record["left_out"]["_cuda"].startswith("nvcc is not on PATH; install the CUDA toolkit")
    assert "left out  _cuda: nvcc is not on PATH" in done.stdout


@needs_build_tools
@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("CUDACXX", "/absent/nvcc", "CUDACXX=/absent/nvcc is not an executable"),
        ("CUDACXX", "/bin/false", "/bin/false does not work"),
        ("CUDA_HOME", "/absent", "nvcc is not in /absent"),
    ],
)
def test_cuda_that_is_forced_and_cannot_be_built_is_an_error(
    source: Path, name: str, value: str, reason: str
) -> None:
    done = build(source, AFFECTCODEC_NO_CUDA="0", FORCE_CUDA="1", **{name: value})
    assert done.returncode != 0
    assert f"left out  _cuda: {reason}" in done.stdout
    assert "a native part that was asked for was left out: _cuda" in done.stderr


def test_every_source_file_opens_with_its_license() -> None:
    files = [
        path
        for folder in ("affectcodec", "kernels", "csrc", "tests", "benchmarks")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".py", ".h", ".cpp", ".cu", ".cuh"} and "build" not in path.parts
    ]
    assert len(files) > 10
    missing = [
        path.relative_to(ROOT).as_posix()
        for path in files
        if "SPDX-License-Identifier: Apache-2.0" not in path.read_text(encoding="utf-8")[:200]
    ]
    assert missing == []


@pytest.mark.skipif(
    importlib.util.find_spec("affectcodec.kernels") is None, reason="the package is not installed"
)
def test_kernels_come_from_the_package() -> None:
    kernels = importlib.import_module("affectcodec.kernels")
    assert kernels.__name__ == "affectcodec.kernels"
    assert "Triton" in (kernels.__doc__ or "")
