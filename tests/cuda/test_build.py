# SPDX-License-Identifier: Apache-2.0
"""The built CUDA module beside a torch without CUDA, and which architectures it is built for."""

from __future__ import annotations

import ctypes
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from affectcodec import _native
from affectcodec.ops import use_backend
from affectcodec.ops.registry import OPS, choose
from tests.ops.quantizers import CONFIGS, latent, needs_cpu_kernels, quantizer

ROOT = Path(__file__).resolve().parents[2]
LOADED = _native.load("affectcodec._cuda")
needs_module = pytest.mark.skipif(not LOADED.available, reason=LOADED.reason or "built")


@needs_module
def test_every_operator_is_registered_for_cuda_tensors() -> None:
    for op in OPS.values():
        assert torch._C._dispatch_has_kernel_for_dispatch_key(
            f"affectcodec::{op.name}_cuda", "CUDA"
        )


@needs_module
@needs_cpu_kernels
def test_cpu_kernels_work_beside_it() -> None:
    q = quantizer(CONFIGS["odd"])
    z = latent(CONFIGS["odd"], 2, 9)
    assert choose("encode", "cpu", torch.float32) == "cpu"
    with use_backend("reference"):
        wanted = q.encode(z)
    assert float((q.encode(z) != wanted).float().mean()) < 0.01
    with use_backend("cuda"), pytest.raises(RuntimeError, match="computes on cuda tensors"):
        q.encode(z)


@needs_module
@pytest.mark.skipif(torch.cuda.is_available(), reason="here is a GPU")
def test_a_launch_without_a_gpu_is_an_error_and_no_crash() -> None:
    assert LOADED.module is not None and LOADED.module.__file__ is not None
    library = ctypes.CDLL(LOADED.module.__file__)
    library.affectcodec_cuda_error.restype = ctypes.c_char_p
    codes, out = torch.zeros(8, dtype=torch.int32), torch.zeros(8, dtype=torch.uint8)
    code = library.affectcodec_cuda_pack_bits(
        ctypes.c_void_p(codes.data_ptr()), 0, ctypes.c_int64(8), 8,
        ctypes.c_void_p(out.data_ptr()), None,
    )  # fmt: skip
    assert code > 0
    assert library.affectcodec_cuda_error(code)


@needs_module
def test_the_module_needs_no_cuda_library() -> None:
    assert LOADED.module is not None and LOADED.module.__file__ is not None
    done = subprocess.run(["ldd", LOADED.module.__file__], capture_output=True, text=True)
    assert "torch_cpu" in done.stdout
    assert "cudart" not in done.stdout and "libcuda." not in done.stdout


@pytest.fixture(scope="module")
def build():
    """``setup.py`` as a module, without its call of ``setup``."""
    pytest.importorskip("setuptools")
    text = (ROOT / "setup.py").read_text(encoding="utf-8")
    head = text[: text.index("\nsetup(\n")]
    spec = importlib.util.spec_from_loader("affectcodec_setup", loader=None)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    module.__file__ = str(ROOT / "setup.py")
    sys.modules["affectcodec_setup"] = module  # dataclasses look their module up
    exec(compile(head, "setup.py", "exec"), module.__dict__)
    yield module
    del sys.modules["affectcodec_setup"]


ALL = {75, 80, 86, 90, 100, 120}


@pytest.mark.parametrize(
    ("asked", "known", "wanted"),
    [
        ("", ALL, "80-real;90-real;100;120-real"),
        ("", {75, 80, 90}, "80-real;90"),
        ("8.0;9.0+PTX", ALL, "80-real;90"),
        ("8.6 9.0a", ALL, "86-real;90a-real"),
        ("10.0f,12.0+PTX", ALL, "100f-real;120"),
    ],
)
def test_architectures(build, asked: str, known: set[int], wanted: str) -> None:
    assert build.cuda_architectures(asked, known) == wanted


def test_bad_architectures_are_told(build) -> None:
    with pytest.raises(build.LeftOut, match="TORCH_CUDA_ARCH_LIST: wanted such as"):
        build.cuda_architectures("Ampere", ALL)
    with pytest.raises(build.LeftOut, match="update it"):
        build.cuda_architectures("", {50, 75})
