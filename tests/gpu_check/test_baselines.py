# SPDX-License-Identifier: Apache-2.0
"""What is timed computes what it should."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from affectcodec.gpu_check import baselines
from affectcodec.gpu_check.baselines import LIBRARY, OPERATORS, NotThere, call_of, providers
from affectcodec.gpu_check.problems import CONFIGS, Shape, latent, quantizer
from tests.ops.quantizers import needs_cpu_kernels, no_saved_graphs

CPU = torch.device("cpu")
CONFIG = CONFIGS["default"]
SHAPE = Shape(1, 4, channels_last=True)


def run(provider: str, op: str) -> object:
    q = quantizer(CONFIG, CPU)
    return call_of(provider, op, q, latent(CONFIG, SHAPE, CPU), SHAPE)()


@needs_cpu_kernels
@pytest.mark.parametrize("op", OPERATORS)
def test_kernels_and_plain_pytorch_do_the_same(op: str) -> None:
    made = run("cpu", op)
    if op in ("pack_bits", "unpack_bits"):
        assert isinstance(made, torch.Tensor)
        assert made.numel() == (4 * 8 * 15 // 8 if op == "pack_bits" else 32)
        with pytest.raises(NotThere):
            run("reference", op)
        return
    plain = run("reference", op)
    if op == "forward":
        made, plain = (made.latent, *made.rates.values()), (plain.latent, *plain.rates.values())
        assert len(made) == 3
    made, plain = ([x] if isinstance(x, torch.Tensor) else list(x) for x in (made, plain))
    for a, b in zip(made, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_compiled_call_does_the_same() -> None:
    with no_saved_graphs():
        assert torch.equal(run("torch.compile", "encode"), run("reference", "encode"))
    torch._dynamo.reset()


@pytest.mark.skipif(importlib.util.find_spec("vector_quantize_pytorch") is None, reason=LIBRARY)
@pytest.mark.parametrize("op", ["encode", "forward", "training", "decode"])
def test_the_library_makes_as_many_tokens(op: str) -> None:
    made = run(LIBRARY, op)
    if op in ("encode", "forward"):
        assert made[1].shape == (1, 4, 8) and made[0].shape == (1, 4, 1024)
    elif op == "decode":
        assert made.shape == (1, 4, 1024)


def test_providers_say_why_they_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise baselines.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", missing)
    found = providers(CPU)
    assert found[LIBRARY] == f"not installed; pip install {LIBRARY}"
    assert found["reference"] == "" and found["torch.compile"] == ""
    assert set(providers(torch.device("cuda"))) >= {"triton", "cuda", "reference"}
