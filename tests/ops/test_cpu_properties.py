# SPDX-License-Identifier: Apache-2.0
"""What the CPU kernels promise beyond their values: tokens that depend on nothing but the frame,
sums that do not depend on threads, equal digits on every instruction set."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from affectcodec import _native
from affectcodec.ops import use_backend
from tests.ops.quantizers import CONFIGS, latent, needs_cpu_kernels, quantizer

pytestmark = needs_cpu_kernels

ROOT = Path(__file__).resolve().parents[2]
ISAS = ["scalar", "avx2", "avx512"]


@pytest.fixture(autouse=True)
def _kernels_only():
    with use_backend("cpu"):
        yield


# -- bitwise properties -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["default", "odd", "clamp", "levels"])
def test_a_frame_has_the_same_tokens_whatever_stands_beside_it(name: str) -> None:
    config = CONFIGS[name]
    q = quantizer(config)
    z = latent(config, 3, 150)
    whole = q.encode(z)
    for size in (1, 2, 5, 8, 63, 64, 65, 149):
        parts = [q.encode(part) for part in z.split(size, dim=2)]
        assert torch.equal(torch.cat(parts, 2), whole), size
    assert torch.equal(torch.cat([q.encode(z[i : i + 1]) for i in range(3)]), whole)
    padded = torch.nn.functional.pad(z, (3, 70), value=1e9)
    assert torch.equal(q.encode(padded)[..., 3:153], whole)
    last = z.mT.contiguous()
    assert torch.equal(q.encode(last, channels_last=True), whole)
    for size in (1, 7, 64):
        parts = [q.encode(part, channels_last=True) for part in last.split(size, dim=1)]
        assert torch.equal(torch.cat(parts, 2), whole), size


@pytest.mark.parametrize("name", ["default", "odd"])
def test_latents_and_decoded_latents_are_bitwise_alike(name: str) -> None:
    config = CONFIGS[name]
    q = quantizer(config)
    z = latent(config, 2, 150)
    out = q(z, rates=(1, 2))
    assert torch.equal(out.latent, q(z).latent)
    assert torch.equal(out.rates[1], q(z, 1).latent)
    assert torch.equal(q.decode(out.tokens), out.latent)
    assert torch.equal(q.decode(out.tokens[:, :2]), out.rates[2])
    assert torch.equal(q.decode(out.tokens, 1), out.rates[1])
    last = q(z.mT.contiguous(), channels_last=True)
    assert torch.equal(last.latent.mT, out.latent)
    one = torch.cat([q.decode(out.tokens[..., t : t + 1]) for t in range(150)], 2)
    assert torch.equal(one, out.latent)


@pytest.mark.parametrize("channels_last", [False, True], ids=["BDT", "BTD"])
def test_nothing_depends_on_the_number_of_threads(channels_last: bool) -> None:
    q = quantizer(CONFIGS["clamp"])
    z = latent(q.config, 3, 500, channels_last)
    stages = torch.tensor([[4, 4], [1, 3], [0, 2]])
    results = []
    for threads in (1, 2, 3, 2):
        torch.set_num_threads(threads)
        x = z.clone().requires_grad_(True)
        out = q(x, stages, rates=(1, 2), channels_last=channels_last)
        total = out.latent.square().sum() + out.rates[2].sum()
        grads = torch.autograd.grad(total, [x, *q.parameters()])
        decoded = q.decode(out.tokens, channels_last=channels_last)
        results.append([out.tokens, out.latent, decoded, *grads])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert torch.equal(a, b)


def test_fresh_memory_is_never_read() -> None:
    """Freed memory full of NaN is what the next allocation gets."""
    q = quantizer(CONFIGS["odd"])
    z = latent(q.config, 2, 70)
    results = []
    for _ in range(4):
        junk = [torch.full((n,), float("nan")) for n in (10**3, 10**4, 10**5, 10**6)]
        del junk
        x = z.clone().requires_grad_(True)
        out = q(x, rates=(2,))
        grads = torch.autograd.grad(out.latent.sum() + out.rates[2].sum(), [x, *q.parameters()])
        results.append([out.tokens, out.latent, *grads])
    for other in results:
        for a, b in zip(results[0], other, strict=True):
            assert torch.equal(a, b)


def test_two_python_threads_at_once() -> None:
    q = quantizer(CONFIGS["odd"])
    latents = [latent(q.config, 2, n) for n in (70, 200, 333)]
    wanted = [q.encode(z) for z in latents]
    failures: list[str] = []

    def work(seed: int) -> None:
        with use_backend("cpu"):
            for i in range(60):
                z, want = latents[(i + seed) % 3], wanted[(i + seed) % 3]
                if i % 7 == 0:
                    q.refold()
                x = z.clone().requires_grad_(True)
                out = q(x)
                torch.autograd.grad(out.latent.sum(), x)
                if not torch.equal(q.encode(z), want) or not torch.equal(out.tokens, want):
                    failures.append(f"thread {seed}, call {i}")

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


# -- instruction sets ---------------------------------------------------------------------------

FINGERPRINT = """
import hashlib, sys, torch
from tests.ops.quantizers import CONFIGS, latent, quantizer
from tests.ops.test_kernel_values import exact
import affectcodec._cpu
torch.set_num_threads(1)
print(affectcodec._cpu.isa())
for name in ("default", "odd", "clamp", "levels", "dims", "wide", "many"):
    q = exact(quantizer(CONFIGS[name]))
    z = torch.randint(-8, 9, (2, q.config.width, 777)) / 8
    print(name, hashlib.sha256(q.encode(z).numpy().tobytes()).hexdigest())
"""


def run_forced(isa: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "AFFECTCODEC_CPU_ISA": isa, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=850,
    )  # fmt: skip


def supported(isa: str) -> bool:
    module = _native.load("affectcodec._cpu").module
    return module is not None and isa in module.isas()


def test_every_instruction_set_makes_the_same_digits_of_equal_projections() -> None:
    found = {}
    for isa in ISAS:
        if not supported(isa):
            continue
        done = run_forced(isa, "-c", FINGERPRINT)
        assert done.returncode == 0, done.stderr[-2000:]
        name, *lines = done.stdout.splitlines()
        assert name == isa
        assert len(lines) == 7
        found[isa] = lines
    assert "scalar" in found
    assert all(lines == found["scalar"] for lines in found.values()), found


# Tests that start processes for instruction sets of their own, and graphs of Inductor, which call
# the very operators that are tested here.
NOT_FORCED = "instruction or installed_library or compiled or export"


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.skipif("AFFECTCODEC_CPU_ISA" in os.environ, reason="already forced")
def test_the_suite_passes_under_each_forced_instruction_set(isa: str) -> None:
    if not supported(isa):
        pytest.skip(f"this machine or build has no {isa}")
    if isa == _native.load("affectcodec._cpu").module.isa():  # type: ignore[union-attr]
        pytest.skip(f"{isa} is what every other test of this run uses")
    done = run_forced(
        isa, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-x", "-m", "not slow",
        "-k", f"not ({NOT_FORCED}) and not triton", "tests/ops", "tests/nn/test_bdrfsq.py",
        "tests/nn/test_bdrfsq_damage.py",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]


def test_an_unknown_instruction_set_is_named() -> None:
    code = """
import torch
from affectcodec.config import BDRFSQConfig
from affectcodec.nn import BDRFSQ
BDRFSQ(BDRFSQConfig()).encode(torch.zeros(1, 1024, 1))
"""
    done = run_forced("sse9", "-c", code)
    assert done.returncode != 0
    assert "AFFECTCODEC_CPU_ISA: known instruction sets are scalar, avx2 and avx512" in done.stderr


def symbols_with_zmm(binary: Path) -> dict[str, bool]:
    """For each function of the library, whether it touches a 512-bit register."""
    text = subprocess.run(
        ["objdump", "-d", "--no-show-raw-insn", str(binary)], capture_output=True, text=True
    ).stdout
    found: dict[str, bool] = {}
    current = ""
    for line in text.splitlines():
        if line.endswith(">:"):
            current = line.split("<", 1)[1][:-2]
            found[current] = False
        elif "%zmm" in line:
            found[current] = True
    return found


@pytest.mark.skipif(shutil.which("objdump") is None, reason="needs objdump")
def test_objects_below_avx512_hold_no_zmm_instruction(tmp_path: Path) -> None:
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None or not supported("scalar"):
        pytest.skip("needs a C++ compiler")
    if "avx512f" not in str(_native.load().module and _native.load().module.cpu_features()):
        pytest.skip("needs an x86-64 machine")
    flags = [
        "-std=c++17", "-O1", "-fPIC", "-ffp-contract=off", "-Wno-psabi", "-fno-math-errno",
        "-fno-trapping-math",
    ]  # fmt: skip
    registers = {"x86-64": ("%ymm", "%zmm"), "x86-64-v3": ("%zmm",)}
    sources = [path for path in (ROOT / "csrc/cpu").glob("*.cpp") if path.stem != "dispatch"]
    assert len(sources) > 5
    for march, forbidden in registers.items():
        text = ""
        for source in sources:
            target = tmp_path / f"{source.stem}-{march}.o"
            subprocess.run(
                [compiler, *flags, f"-march={march}", "-DAFFECTCODEC_ISA=probe", "-c", str(source),
                 "-o", str(target)],
                check=True,
            )  # fmt: skip
            dump = ["objdump", "-d", str(target)]
            text += subprocess.run(dump, capture_output=True, text=True).stdout
        assert "mulps" in text
        for register in forbidden:
            assert register not in text, (march, register)


@pytest.mark.parametrize("compiler", ["c++", "aarch64-linux-gnu-g++"])
def test_sources_compile_where_there_are_no_instructions_to_name(compiler: str) -> None:
    """The body that every other processor runs, and ARM's where a compiler for it is there."""
    if shutil.which(compiler) is None:
        pytest.skip(f"needs {compiler}")
    flags = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-Wno-psabi", "-fsyntax-only"]
    if compiler == "c++":
        flags.append("-U__SSE2__")
    for source in (ROOT / "csrc/cpu").glob("*.cpp"):
        done = subprocess.run(
            [compiler, *flags, "-DAFFECTCODEC_ISA=scalar", str(source)],
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.skipif(shutil.which("objdump") is None, reason="needs objdump")
def test_the_installed_library_keeps_zmm_to_the_avx512_kernels() -> None:
    module = _native.load("affectcodec._cpu").module
    assert module is not None and module.__file__ is not None
    found = symbols_with_zmm(Path(module.__file__))
    assert found
    # Shared helpers of the standard library must be the baseline's: nothing named std:: may use it.
    offending = [name for name, wide in found.items() if wide and "NSt" in name[:6]]
    assert offending == []
