# SPDX-License-Identifier: Apache-2.0
"""Predictions from shapes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from affectcodec.gpu_check import predictions
from affectcodec.gpu_check.compiled import Target
from affectcodec.gpu_check.problems import CONFIGS, Shape
from tests.gpu_check.fakes import fake_gpu

TARGET = Target("Fake 1000", "sm_90", 100, 2.0, 1e12)
DEFAULT = CONFIGS["default"]


@pytest.mark.parametrize(
    ("architecture", "known"),
    [("sm_90", "sm_90"), ("sm_87", "sm_86"), ("sm_103", "sm_100"), ("sm_121", "sm_120"),
     ("sm_75", "sm_80"), ("gfx942", "gfx942")],
)  # fmt: skip
def test_limits_of_relatives(architecture: str, known: str) -> None:
    assert predictions.family(architecture) == known


def test_the_target_is_the_device_with_its_measured_bandwidth() -> None:
    assert predictions.target_of(fake_gpu().facts(), 1e12) == TARGET


def test_bytes_and_seconds_at_least() -> None:
    shape = Shape(2, 500, torch.bfloat16)
    latent, tokens, saved = 1024 * 2, 8 * 4, 72 * 4
    assert predictions.least_bytes("encode", shape, DEFAULT) == 1000 * (latent + tokens)
    assert predictions.least_bytes("decode", shape, DEFAULT) == 1000 * (latent + tokens)
    forward = 4 * latent + tokens + saved
    backward = 5 * latent + saved
    assert predictions.least_bytes("forward", shape, DEFAULT) == 1000 * forward
    assert predictions.least_bytes("training", shape, DEFAULT) == 1000 * (forward + backward)
    assert predictions.least_bytes("pack_bits", shape, DEFAULT) is None
    # 8 * (3 * 256 + 6 * 768) multiply-adds a frame, 100 * 128 * 2e9 of them a second.
    products = 1000 * 8 * (3 * 256 + 6 * 768) / (100 * 128 * 2e9)
    moved = 1000 * (latent + tokens) / 1e12
    expected = predictions.floor_seconds("encode", shape, TARGET, DEFAULT)
    assert expected == pytest.approx(max(products, moved))
    assert predictions.floor_seconds("unpack_bits", shape, TARGET, DEFAULT) is None


def test_kernels_of_an_operator_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def compiled(architecture: str, cases: list[dict[str, Any]], target: Target) -> Any:
        asked.extend(cases)
        rows = [{"case": i, "predicted_seconds": 1.0} for i in range(len(cases))]
        return [*rows, {"case": 2, "predicted_seconds": 10.0}]

    monkeypatch.setattr(predictions, "compile_in_process", compiled)
    shape = Shape(1, 50)
    seconds, rows = predictions.compiled_predictions([shape], "sm_90", TARGET)
    assert [case["op"] for case in asked] == ["encode", "forward", "backward", "decode"]
    assert len(rows) == 5
    assert seconds["backward", shape.label] == 11.0
    assert seconds["training", shape.label] == 12.0
