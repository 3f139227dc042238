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
    ("environment", "reason"),
    [
        ({"CXX": "/bin/false"}, "does not work"),
        ({"CXX": "/absent/c++"}, "is not an executable"),
        ({"CXX": "", "PATH": "/absent"}, "no C++ compiler found; install g++ or clang++"),
    ],
    ids=["broken", "absent", "none"],
)
def test_without_a_compiler_all_is_there_in_pure_python(
    source: Path, environment: dict[str, str], reason: str
) -> None:
    done = build(source, **environment)
    assert done.returncode == 0, done.stderr[-3000:]
    wheel = wheel_of(source)
    left_out = record_of(wheel)["left_out"]
    assert reason in left_out["_C"] and reason in left_out["_cpu"]
    assert f"left out  _cpu: {left_out['_cpu']}" in done.stdout
    assert not [name for name in wheel.namelist() if name.endswith(".so")]
    wheel.extractall(source.parent / "installed")
    ran = run_installed(source.parent / "installed", CODE_PLAIN)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[0] == "reference torch.Size([1, 8, 3])"
    assert reason in ran.stdout


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
    """Built as pip does it in isolation, where torch can be found but not imported."""
    overlay = isolation(tmp_path / "overlay")
    done = build(source, AFFECTCODEC_REQUIRE_NATIVE="1", PYTHONPATH=str(overlay))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "built     _C" in done.stdout and "built     _cpu" in done.stdout
    wheel = wheel_of(source)
    record = record_of(wheel)
    assert record["left_out"] == {"_cuda": "AFFECTCODEC_NO_CUDA was set at build time"}
    assert "-ffp-contract=off" in record["toolchain"]["flags"]
    assert "-march" not in record["toolchain"]["flags"]
    installed = tmp_path / "installed"
    wheel.extractall(installed)
    ran = run_installed(installed, CODE_NATIVE)
    assert ran.returncode == 0, ran.stderr
    assert str(tmp_path) in ran.stdout and "b'!'" in ran.stdout
    # The least that a machine of this kind runs.
    plain = run_installed(installed, CODE_KERNELS, AFFECTCODEC_CPU_ISA="scalar")
    assert plain.returncode == 0, plain.stderr
    assert plain.stdout.startswith("scalar cpu")
    best = run_installed(installed, CODE_KERNELS)
    assert best.stdout.split()[2:] == plain.stdout.split()[2:]  # the same tokens
    check_run_paths(installed / "affectcodec")


CODE_NATIVE = """
import affectcodec.kernels, affectcodec._C as c, numpy as n
print(c.__file__, c.pack_bits(n.array([1, 2], n.int32), 4))
"""
CODE_PLAIN = """
import torch, affectcodec.info
from affectcodec.config import BDRFSQConfig
from affectcodec.nn import BDRFSQ
from affectcodec.ops.registry import BACKENDS, choose
tokens = BDRFSQ(BDRFSQConfig()).encode(torch.zeros(1, 1024, 3))
print(choose("encode", "cpu", torch.float32), tokens.shape)
print(BACKENDS["cpu"].why_missing())
"""
CODE_KERNELS = """
import torch, affectcodec._cpu
from affectcodec.config import BDRFSQConfig
from affectcodec.nn import BDRFSQ
from affectcodec.ops.registry import choose
torch.manual_seed(0)
q = BDRFSQ(BDRFSQConfig())
with torch.no_grad():  # few bits, so that every order of summing gives the same projection
    for block in q.blocks.values():
        block.W.copy_((block.W * 16).round() / 16)
        block.O.copy_((block.O * 16).round() / 16)
tokens = q.encode(torch.randint(-8, 9, (1, 1024, 90)) / 8.0)
q.decode(tokens)
print(affectcodec._cpu.isa(), choose("encode", "cpu", torch.float32), *tokens.flatten().tolist())
"""


# An editable install of this tree would lend a module that the wheel lacks.
ALONE = """
import sys
sys.meta_path[:] = [f for f in sys.meta_path if "__editable__" not in getattr(f, "__module__", "")]
"""


def run_installed(folder: Path, code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("AFFECTCODEC_")}
    return subprocess.run(
        [sys.executable, "-c", ALONE + code],
        cwd=folder,
        env={**clean, "PYTHONPATH": str(folder), **environment},
        capture_output=True, text=True, timeout=200,
    )  # fmt: skip


def isolation(folder: Path) -> Path:
    """What an isolated build of pip sees: the build requirements and no other package."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "import sys\nsys.path[:] = [p for p in sys.path if not p.endswith('site-packages')]\n"
    )
    for name in (
        "setuptools",
        "_distutils_hack",
        "wheel",
        "pybind11",
        "packaging",
        "cmake",
        "ninja",
    ):
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            continue
        package = Path(spec.origin).parent
        (folder / name).symlink_to(package)
        for record in package.parent.glob(f"{name}-*.dist-info"):
            (folder / record.name).symlink_to(record)
    return folder


def check_run_paths(folder: Path) -> None:
    if shutil.which("readelf") is None:
        return
    binaries = sorted(folder.glob("*.so"))
    assert len(binaries) >= 2
    for binary in binaries:
        table = subprocess.run(
            ["readelf", "-d", str(binary)], capture_output=True, text=True, check=True
        ).stdout
        assert "NEEDED" in table
        assert "RPATH" not in table and "RUNPATH" not in table, (binary.name, table)


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
