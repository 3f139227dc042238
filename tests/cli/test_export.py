# SPDX-License-Identifier: Apache-2.0
"""``affectcodec export``: what it says where it cannot."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest


def test_without_the_packages(run, weights: str, tmp_path: Path, monkeypatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "onnx" else find(name, *a)
    )
    done = run("export", "onnx", tmp_path / "graphs", "--weights", weights)
    assert done.exit_code == 1 and "pip install 'affectcodec[export]'" in done.stderr
    assert not (tmp_path / "graphs").exists()


@pytest.mark.parametrize("arguments", [[], ["onnx"]])
def test_wrong_use(run, arguments: list[str]) -> None:
    assert run("export", *arguments).exit_code == 2
