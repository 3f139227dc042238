# SPDX-License-Identifier: Apache-2.0
"""Training curves from the figures that a run leaves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from affectcodec.training.curves import PANELS, main, read_dev_figures


def write_figures(folder: Path, *records: dict[str, float]) -> None:
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (folder / "dev.jsonl").write_text(lines)


def test_steps_are_in_order_and_the_last_of_a_repeated_one_counts(tmp_path: Path) -> None:
    write_figures(
        tmp_path,
        {"step": 2000, "seconds": 7.0},
        {"step": 1000, "seconds": 3.0},
        {"step": 2000, "seconds": 8.0},
    )
    found = [(record["step"], record["seconds"]) for record in read_dev_figures(tmp_path)]
    assert found == [(1000, 3.0), (2000, 8.0)]


def test_a_run_without_figures_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="train with a dev split"):
        read_dev_figures(tmp_path)


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    figures = {f"{name}/stages_{stages}": 0.5 for name, _ in PANELS for stages in (1, 2, 4)}
    write_figures(tmp_path, {"step": 1000, "seconds": 3600.0, **figures})
    out = tmp_path / "images" / "training.png"
    assert main([str(tmp_path), "--out", str(out)]) == 0
    assert out.read_bytes().startswith(b"\x89PNG")
