# SPDX-License-Identifier: Apache-2.0
"""Who computes a call: requests, defaults, reasons."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from affectcodec.nn import BDRFSQ
from affectcodec.ops import use_backend
from affectcodec.ops.registry import BACKENDS, OPS, asked_backend, choose
from tests.ops.quantizers import CONFIGS, latent, needs_cpu_kernels, needs_triton, quantizer

ROOT = Path(__file__).resolve().parents[2]
CONFIG = CONFIGS["odd"]


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("AFFECTCODEC_")}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**clean, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip


@needs_cpu_kernels
def test_the_default_of_the_device_serves() -> None:
    code = """
import torch
from affectcodec.ops.registry import choose
print(choose("encode", "cpu", torch.float32), choose("encode", "meta"))
"""
    done = run(code)
    assert done.stdout.split() == ["cpu", "reference"], done.stderr


def test_types_that_no_kernel_takes_go_to_the_reference() -> None:
    assert choose("encode", "cpu", torch.float64) == "reference"
    assert choose("encode", "xpu", torch.float32) == "reference"


@pytest.mark.parametrize("name", ["fast", "CPU", " "])
def test_unknown_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="known ones are"), use_backend(name):
        pass
    with pytest.raises(ValueError, match="known ones are"):
        choose("encode", "cpu", torch.float32, name)


@needs_cpu_kernels
def test_a_request_that_cannot_be_served_says_why() -> None:
    with pytest.raises(RuntimeError, match=r"encode: backend 'cpu'.*float64"):
        choose("encode", "cpu", torch.float64, "cpu")
    with pytest.raises(RuntimeError, match=r"computes on cpu tensors, got a tensor on cuda"):
        choose("encode", "cuda", torch.float32, "cpu")
    q = quantizer(CONFIG)
    with use_backend("cpu"), pytest.raises(RuntimeError, match="float64"):
        q.encode(latent(CONFIG, 1, 3).double())


def test_a_missing_backend_fails_at_the_request() -> None:
    missing = [b for b in BACKENDS.values() if b.why_missing()]
    for backend in missing:
        with pytest.raises(RuntimeError, match="is not there"), use_backend(backend.name):
            pass
    code = ("import torch\nfrom affectcodec.ops import use_backend\n"
            "with use_backend('cpu'): pass")  # fmt: skip
    done = run(code, AFFECTCODEC_NO_NATIVE="1")
    assert "switched off by AFFECTCODEC_NO_NATIVE" in done.stderr


def test_without_native_parts_everything_works() -> None:
    code = """
import torch
from affectcodec.config import BDRFSQConfig
from affectcodec.nn import BDRFSQ
from affectcodec.ops.registry import choose
q = BDRFSQ(BDRFSQConfig())
z = torch.randn(1, 1024, 3, requires_grad=True)
q(z).latent.sum().backward()
print(choose("encode", "cpu", torch.float32), q.decode(q.encode(z)).shape)
"""
    done = run(code, AFFECTCODEC_NO_NATIVE="1")
    assert done.stdout.split()[0] == "reference", done.stderr


def test_environment_names_the_backend() -> None:
    code = "from affectcodec.ops.registry import *\nimport torch\nprint(choose('encode', 'cpu'))"
    assert run(code, AFFECTCODEC_BACKEND="reference").stdout.strip() == "reference"
    assert (
        "AFFECTCODEC_BACKEND: unknown backend 'quick'"
        in run(code, AFFECTCODEC_BACKEND="quick").stderr
    )
    refused = run(code, AFFECTCODEC_BACKEND="cuda")
    assert "encode: backend 'cuda' was asked for and cannot serve" in refused.stderr


@needs_triton
@pytest.mark.parametrize("interpreted", [True, False])
def test_triton_serves_cpu_tensors_under_the_interpreter_alone(interpreted: bool) -> None:
    code = "from affectcodec.ops.registry import choose\nprint(choose('encode', 'cpu'))"
    done = run(code, AFFECTCODEC_BACKEND="triton", TRITON_INTERPRET=str(int(interpreted)))
    if interpreted:
        assert done.stdout.strip() == "triton", done.stderr
    else:
        assert "computes on cuda tensors, got a tensor on cpu; start" in done.stderr
        assert "with TRITON_INTERPRET=1" in done.stderr


@needs_cpu_kernels
def test_the_order_of_requests() -> None:
    with use_backend("reference"):
        assert choose("encode", "cpu", torch.float32) == "reference"
        assert choose("encode", "cpu", torch.float32, "cpu") == "cpu"
        with use_backend("cpu"):
            assert asked_backend() == "cpu"
        assert asked_backend() == "reference"


def test_a_request_ends_with_its_block_and_stays_in_its_thread() -> None:
    before = asked_backend()
    seen: list[str | None] = []
    with pytest.raises(KeyError), use_backend("reference"):
        thread = threading.Thread(target=lambda: seen.append(asked_backend()))
        thread.start()
        thread.join()
        raise KeyError
    assert asked_backend() == before
    assert seen == [before]


@needs_cpu_kernels
def test_a_module_may_name_its_backend() -> None:
    z = latent(CONFIG, 2, 40)
    modules = [quantizer(CONFIG, backend=name) for name in (None, "cpu", "reference")]
    tokens = [module.encode(z) for module in modules]
    assert torch.equal(tokens[0], tokens[1])
    assert float((tokens[0] != tokens[2]).float().mean()) < 0.01
    with pytest.raises(RuntimeError, match="cuda"):
        quantizer(CONFIG, backend="cuda").encode(z)


@needs_cpu_kernels
def test_the_specification_is_never_replaced() -> None:
    q = BDRFSQ(CONFIG, form="naive")
    with use_backend("cpu"):
        assert q.encode(latent(CONFIG, 1, 2).double()).shape == (1, 3, 2)


def test_every_row_is_defined_for_every_backend() -> None:
    for op in OPS.values():
        for backend in BACKENDS:
            schema = str(op.kernel(backend)._schema)
            assert schema.startswith(f"affectcodec::{op.name}_{backend}("), schema
