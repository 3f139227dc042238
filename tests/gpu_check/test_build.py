# SPDX-License-Identifier: Apache-2.0
"""Building of what is missing, without building."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from affectcodec.gpu_check import build


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/nvcc")
    (tmp_path / "affectcodec").mkdir()
    (tmp_path / "setup.py").touch()
    for part in ("_C", "_cpu"):
        (tmp_path / "affectcodec" / f"{part}.so").touch()
    return tmp_path


def done(code: int, text: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.CompletedProcess([], code, text, "")


def test_what_is_missing_is_built(tree: Path) -> None:
    commands = []

    def run(command: list[str], **keywords: Any) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        (tree / "affectcodec" / "_cuda.so").touch()
        return done(0)

    built = build.build_missing(tree, run)
    assert built == build.Built(True, True, "built _cuda")
    assert commands[0][1:4] == ["-m", "pip", "install"] and commands[0][-1] == str(tree)
    assert build.build_missing(tree, run).ran is False


def test_a_failed_build_says_what_it_said(tree: Path) -> None:
    built = build.build_missing(tree, lambda *a, **k: done(1, "nvcc fatal: no"))
    assert built.ran and not built.succeeded
    assert "still missing: _cuda" in built.detail and "nvcc fatal" in built.detail


def test_a_build_that_never_ends_is_no_crash(tree: Path) -> None:
    def run(*_: Any, **__: Any) -> subprocess.CompletedProcess[str]:
        raise subprocess.TimeoutExpired("pip", 1)

    assert "did not end well" in build.build_missing(tree, run).detail


def test_an_installed_package_is_not_built(tree: Path) -> None:
    (tree / "setup.py").unlink()
    built = build.build_missing(tree, lambda *a, **k: done(0))
    assert not built.ran and "no source tree" in built.detail


def test_without_nvcc_cuda_is_not_missed(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert build.missing(tree / "affectcodec") == []
