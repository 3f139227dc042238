# SPDX-License-Identifier: Apache-2.0
"""Options and results of the commands that measure."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from affectcodec.evaluation.runs import (
    parse_comparisons,
    parse_weights,
    shown_path,
    without_nan,
    write_results,
)


def test_weights() -> None:
    assert parse_weights([]) == {"affectcodec": None}
    assert parse_weights(["a/b", "rvq=c"]) == {"affectcodec": "a/b", "rvq": "c"}


def test_comparisons() -> None:
    default = (("affectcodec:1.5", "opus:6"), ("affectcodec:3", "opus:9"))
    codecs = ["affectcodec:1.5", "affectcodec:3", "opus:6"]
    assert parse_comparisons([], codecs, default) == [("affectcodec:1.5", "opus:6")]
    assert parse_comparisons(["x=y"], ["x", "y"], default) == [("x", "y")]
    for value in ("x=z", "x", "", "=y"):
        with pytest.raises(ValueError, match="compare: .* wants CODEC=CODEC, both among"):
            parse_comparisons([value], ["x", "y"], default)


def test_paths_show_nothing_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert shown_path("data/m.csv") == "data/m.csv"
    assert shown_path(tmp_path / "x" / "m.csv") == "x/m.csv"
    assert shown_path("/far/away/data/m.csv") == "data/m.csv"


def test_what_json_cannot_hold_is_made_to_fit() -> None:
    value = {1: (np.float32(0.5), float("nan")), "b": [np.int64(3), np.float64("nan"), None, "x"]}
    assert without_nan(value) == {"1": [0.5, None], "b": [3, None, None, "x"]}


def test_results_are_a_page_and_figures(tmp_path: Path) -> None:
    write_results(tmp_path / "a" / "b", "one", {"x": float("nan"), "y": np.float32(2)}, "# One\n")
    folder = tmp_path / "a" / "b"
    assert json.loads((folder / "one.json").read_text()) == {"x": None, "y": 2.0}
    assert (folder / "one.md").read_text() == "# One\n"
    with pytest.raises(ValueError):
        write_results(folder, "one", {"x": float("inf")}, "")
