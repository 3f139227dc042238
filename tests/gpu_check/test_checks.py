# SPDX-License-Identifier: Apache-2.0
"""The checks pass for kernels that are right, and fail for each that is not."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from affectcodec.gpu_check import checks
from affectcodec.gpu_check.checks import Subject, run_checks
from affectcodec.gpu_check.device import CpuDevice
from affectcodec.gpu_check.problems import CONFIGS, Shape
from affectcodec.nn import BDRFSQ
from tests.ops.quantizers import needs_cpu_kernels

pytestmark = needs_cpu_kernels
SHAPE = Shape(2, 20)


def subject() -> Subject:
    return Subject(CpuDevice(), "cpu", CONFIGS["odd"])


def test_kernels_that_are_right_pass_everything() -> None:
    rows = list(run_checks(CpuDevice(), "cpu", quick=True, ordered=True))
    assert [row for row in rows if not row["passed"]] == []
    names = {row["name"] for row in rows}
    assert names == {
        "tokens", "latents", "gradients", "exact projections", "damage", "packed bits", "neighbours"
    }  # fmt: skip
    labels = {row["what"] for row in rows}
    assert {"2 x 21 float16 [B, T, D] sliced", "0 x 5 float32 [B, D, T]"} <= labels


def broken_encode(change: Any) -> Any:
    original = BDRFSQ.encode

    def encode(self: BDRFSQ, z: torch.Tensor, **keywords: Any) -> torch.Tensor:
        tokens = original(self, z, **keywords)
        return change(self, z, tokens)

    return encode


def test_wrong_tokens_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    tested = subject()

    def change(module: BDRFSQ, z: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        return tokens.roll(1, 2) if module is tested.q else tokens

    monkeypatch.setattr(BDRFSQ, "encode", broken_encode(change))
    done = tested.tokens(SHAPE)
    assert not done.passed and done.facts["outside"] > 0


def test_tokens_that_depend_on_their_neighbours_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    def change(module: BDRFSQ, z: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        return tokens + (z.shape[2] == 7)

    monkeypatch.setattr(BDRFSQ, "encode", broken_encode(change))
    done = subject().neighbours()
    assert not done.passed and done.facts["counts"]["chunks of 1"] == 0


def test_a_latent_that_is_off_fails() -> None:
    tested = subject()
    with torch.no_grad():
        tested.naive.blocks["b"].e += 1e-3
    assert not tested.latents(SHAPE).passed


def test_a_gradient_that_is_off_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    tested = subject()
    original, calls = torch.autograd.grad, []

    def grad(*arguments: Any, **keywords: Any) -> Any:
        found = list(original(*arguments, **keywords))
        if not calls:
            found[0] = found[0] * 1.001
        calls.append(1)
        return found

    monkeypatch.setattr(torch.autograd, "grad", grad)
    done = tested.gradients(SHAPE)
    assert not done.passed and done.detail.startswith("z: error 0.001 ")


def test_nan_does_not_pass_for_small(monkeypatch: pytest.MonkeyPatch) -> None:
    tested = subject()
    with torch.no_grad():
        tested.naive.blocks["b"].e.fill_(float("nan"))
    assert not tested.latents(SHAPE).passed


def test_a_check_that_breaks_is_a_failure_and_the_rest_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(self: Subject, shape: Shape) -> checks.Check:
        raise RuntimeError("illegal address")

    broken.__name__ = "gradients"
    monkeypatch.setattr(Subject, "gradients", broken)
    monkeypatch.setattr(checks, "CONFIGS", {"odd": CONFIGS["odd"]})
    rows = list(run_checks(CpuDevice(), "cpu", quick=True, ordered=False))
    bad = [row for row in rows if not row["passed"]]
    assert {row["name"] for row in bad} == {"gradients"}
    assert bad[0]["detail"] == "RuntimeError: illegal address"
    assert len(rows) > len(bad) + 10
