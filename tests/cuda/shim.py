# SPDX-License-Identifier: Apache-2.0
"""The CUDA kernel bodies on the host shim, as operators ``affectcodec::<op>_cuda`` of CPU tensors.

The sources of ``csrc/cuda`` are compiled by g++ against ``csrc/simt`` and driven through the same
plain-C launchers that a GPU build has. Variants:

    plain   optimised, for values
    asan    AddressSanitizer and UndefinedBehaviorSanitizer; preload() must be preloaded
    races   every access of shared memory is watched, see ``csrc/simt/races.h``

``SIMT_ORDER`` (forward, reverse, shuffled) chooses the order of the threads.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from ctypes import Structure, c_int32, c_int64, c_void_p
from pathlib import Path

import torch
from torch import Tensor

from affectcodec.ops.fakes import UNIT, Shape, empty_latent

ROOT = Path(__file__).resolve().parents[2]
COMPILER = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
TYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


class ShimError(RuntimeError):
    """A launcher returned an error code."""


# -- building -----------------------------------------------------------------------------------


def _hash(files: Sequence[Path], flags: Sequence[str]) -> str:
    digest = hashlib.sha256(" ".join(flags).encode())
    for path in files:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def variant_flags(variant: str) -> tuple[list[str], list[str]]:
    """Flags of the kernels and of the shim itself."""
    base = ["-std=c++20", "-g1", "-fPIC", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror",
            "-Wno-unknown-pragmas"]  # fmt: skip
    cpu = Path("/proc/cpuinfo")
    if cpu.is_file() and " fma " in cpu.read_text():
        base.append("-mfma")  # a call of libm for each multiply-add would take most of the time
    if variant == "asan":
        return [*base, "-O1", *SANITIZERS], [*base, "-O1", *SANITIZERS]
    if variant == "races":
        # The shim watches, so it is not watched itself.
        return [*base, "-O1", "-fsanitize=thread"], [*base, "-O2", "-DSIMT_RACES"]
    if variant == "plain":
        return [*base, "-O2"], [*base, "-O2"]
    raise ValueError(f"variant: wanted plain, asan or races, got {variant!r}")


def _compile(source: Path, flags: Sequence[str], target: Path) -> None:
    language = ["-x", "c++"]
    done = subprocess.run(
        [str(COMPILER), *flags, *language, "-c", str(source), "-o", str(target)],
        capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{source.name} does not compile for the shim:\n{done.stderr[:4000]}")


def build(variant: str, extra: Sequence[Path] = ()) -> Path:
    """Shared library of the kernels (or of ``extra`` alone) on the shim; made once a content."""
    if COMPILER is None:
        raise RuntimeError("needs g++ or clang++")
    cuda, simt = ROOT / "csrc" / "cuda", ROOT / "csrc" / "simt"
    kernels = list(extra) or [*sorted(cuda.glob("*.cu")), *sorted(cuda.glob("*.cpp"))]
    shim = sorted(simt.glob("*.cpp"))
    headers = [*sorted(cuda.glob("*.cuh")), *sorted(cuda.glob("*.h")), *sorted(simt.glob("*.h")),
               *sorted((ROOT / "csrc" / "core").glob("*.h"))]  # fmt: skip
    of_kernels, of_shim = variant_flags(variant)
    name = _hash([*kernels, *shim, *headers], [*of_kernels, *of_shim])
    folder = ROOT / "build" / "simt"
    library = folder / f"{variant}-{name}.so"
    if library.is_file():
        return library
    work = folder / f"{variant}-{name}-{os.getpid()}"
    work.mkdir(parents=True, exist_ok=True)
    objects = []
    for source, flags in [*((s, of_kernels) for s in kernels), *((s, of_shim) for s in shim)]:
        target = work / f"{source.stem}.o"
        _compile(source, flags, target)
        objects.append(str(target))
    link = SANITIZERS if variant == "asan" else []
    made = work / library.name
    done = subprocess.run(
        [str(COMPILER), "-shared", *link, *objects, "-o", str(made)], capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"the shim does not link:\n{done.stderr[:4000]}")
    os.replace(made, library)
    shutil.rmtree(work)
    return library


def preload() -> str:
    """What LD_PRELOAD must hold for the asan variant; empty where the libraries are not found."""
    found = []
    for name in ("libasan.so", "libubsan.so"):
        done = subprocess.run(
            [str(COMPILER), f"-print-file-name={name}"], capture_output=True, text=True
        )
        path = Path(done.stdout.strip())
        if not path.is_absolute() or not path.exists():
            return ""
        found.append(str(path.resolve()))
    return " ".join(found)


# -- the launchers ------------------------------------------------------------------------------


class _Latent(Structure):
    _fields_ = [
        ("data", c_void_p), ("batch", c_int64), ("frames", c_int64), ("stride_b", c_int64),
        ("stride_t", c_int64), ("stride_d", c_int64), ("type", c_int32), ("reserved", c_int32),
    ]  # fmt: skip


class _Tokens(Structure):
    _fields_ = [
        ("data", c_void_p), ("stride_b", c_int64), ("stride_k", c_int64), ("stride_t", c_int64),
        ("stages", c_int32), ("wide", c_int32),
    ]  # fmt: skip


class _Counts(Structure):
    _fields_ = [
        ("data", c_void_p), ("stride_b", c_int64), ("stride_g", c_int64), ("stride_t", c_int64),
    ]  # fmt: skip


def _latent_of(t: Tensor | None, channels_last: bool) -> _Latent:
    if t is None:
        return _Latent()
    frame, channel = (1, 2) if channels_last else (2, 1)
    return _Latent(
        t.data_ptr(), t.shape[0], t.shape[frame], t.stride(0), t.stride(frame), t.stride(channel),
        TYPES[t.dtype], 0,
    )  # fmt: skip


def _tokens_of(t: Tensor) -> _Tokens:
    return _Tokens(t.data_ptr(), *t.stride(), t.shape[1], int(t.dtype == torch.int64))


def _counts_of(t: Tensor | None) -> _Counts:
    if t is None:
        return _Counts()
    return _Counts(t.data_ptr(), t.stride(0), t.stride(1), t.stride(2) if t.ndim == 3 else 0)


class Kernels:
    """The operators on one build of the shim."""

    def __init__(self, library: Path) -> None:
        self._lib = ctypes.CDLL(str(library))
        for name in ("weights", "backward_work"):
            getattr(self._lib, f"affectcodec_cuda_{name}").restype = c_int64
        self._lib.affectcodec_cuda_error.restype = ctypes.c_char_p

    def _config(self, config: Sequence[int]) -> tuple[object, c_int64]:
        return (c_int64 * len(config))(*config), c_int64(len(config))

    def _call(self, name: str, *arguments: object) -> None:
        code = getattr(self._lib, f"affectcodec_cuda_{name}")(*arguments, None)
        if code:
            raise ShimError(f"{name}: {self._lib.affectcodec_cuda_error(code).decode()}")

    @staticmethod
    def _pointer(t: Tensor) -> c_void_p:
        return c_void_p(t.data_ptr())

    @staticmethod
    def _pointers(tensors: Sequence[Tensor]) -> object:
        return (c_void_p * len(tensors))(*(t.data_ptr() for t in tensors))

    def fold(self, params: Sequence[Tensor], config: Sequence[int]) -> Tensor:
        size = self._lib.affectcodec_cuda_weights(*self._config(config))
        if size < 0:
            raise ShimError("fold: config")
        weights = torch.full((size,), float("nan"))
        self._call("fold", *self._config(config), self._pointers(params), self._pointer(weights))
        return weights

    def encode(
        self, z: Tensor, weights: Tensor, config: Sequence[int], channels_last: bool
    ) -> Tensor:
        shape = Shape.of(config)
        frames = z.shape[1 if channels_last else 2]
        tokens = torch.full((z.shape[0], shape.num_stages, frames), 77, dtype=shape.token_dtype)
        self.encode_out(z, weights, config, channels_last, tokens)
        return tokens

    def encode_out(
        self, z: Tensor, weights: Tensor, config: Sequence[int], channels_last: bool, out: Tensor
    ) -> None:
        shape = Shape.of(config)
        wanted = (z.shape[0], shape.num_stages, z.shape[1 if channels_last else 2])
        if tuple(out.shape) != wanted or out.dtype != shape.token_dtype:
            raise RuntimeError(f"out: wanted {str(shape.token_dtype).removeprefix('torch.')}")
        latent, tokens = _latent_of(z, channels_last), _tokens_of(out)
        self._call(
            "encode", *self._config(config), self._pointer(weights), ctypes.byref(latent),
            ctypes.byref(tokens),
        )  # fmt: skip

    def forward(
        self, z: Tensor, weights: Tensor, config: Sequence[int], counts: Tensor | None,
        rates: Sequence[int], channels_last: bool,
    ) -> tuple[list[Tensor], Tensor, Tensor]:  # fmt: skip
        shape = Shape.of(config)
        batch, frames = z.shape[0], z.shape[1 if channels_last else 2]
        latents = [
            empty_latent(z, batch, frames, shape.width, channels_last).fill_(float("nan"))
            for _ in range(len(rates) + 1)
        ]
        tokens = torch.full((batch, shape.num_stages, frames), 77, dtype=shape.token_dtype)
        units = -(-batch * frames // UNIT)
        saved = torch.full((units * shape.num_stages * shape.code_dim * UNIT,), float("nan"))
        self._forward(z, weights, config, counts, rates, channels_last, latents, tokens, saved)
        return latents, tokens, saved

    def forward_out(
        self, z: Tensor, weights: Tensor, config: Sequence[int], counts: Tensor | None,
        rates: Sequence[int], channels_last: bool, out: Sequence[Tensor], tokens: Tensor,
    ) -> None:  # fmt: skip
        shape = Shape.of(config)
        for latent in out:
            if latent.shape != z.shape or latent.dtype != z.dtype:
                raise RuntimeError("out: wanted latents of the shape and dtype of z")
            if latent.stride() != out[0].stride():
                raise RuntimeError("out: wanted latents of the same strides")
        if tokens.dtype != shape.token_dtype:
            raise RuntimeError(f"tokens: wanted {str(shape.token_dtype).removeprefix('torch.')}")
        self._forward(z, weights, config, counts, rates, channels_last, out, tokens, None)

    def _forward(
        self, z: Tensor, weights: Tensor, config: Sequence[int], counts: Tensor | None,
        rates: Sequence[int], channels_last: bool, latents: Sequence[Tensor], tokens: Tensor,
        saved: Tensor | None,
    ) -> None:  # fmt: skip
        ascending = [*rates, Shape.of(config).num_stages]
        source, target = _latent_of(z, channels_last), _latent_of(latents[0], channels_last)
        to, counted = _tokens_of(tokens), _counts_of(counts)
        self._call(
            "forward", *self._config(config), self._pointer(weights), ctypes.byref(source),
            ctypes.byref(counted), ctypes.byref(target), self._pointers(latents),
            (c_int32 * len(ascending))(*ascending), c_int32(len(ascending)), ctypes.byref(to),
            c_void_p(None if saved is None else saved.data_ptr()),
        )  # fmt: skip

    def backward(
        self, grads: Sequence[Tensor], present: Sequence[int], z: Tensor, saved: Tensor,
        weights: Tensor, params: Sequence[Tensor], config: Sequence[int], counts: Tensor | None,
        rates: Sequence[int], channels_last: bool, need_dz: bool,
    ) -> tuple[Tensor, list[Tensor]]:  # fmt: skip
        shape = Shape.of(config)
        batch, frames = z.shape[0], z.shape[1 if channels_last else 2]
        ascending = [*rates, shape.num_stages]
        dz = empty_latent(z, batch, frames, shape.width, channels_last).fill_(float("nan"))
        found = [torch.full_like(p, float("nan")) for p in params]
        given: list[Tensor | None] = [None] * len(ascending)
        for i, g in zip(present, grads, strict=True):
            given[i] = g
        views = (_Latent * len(given))(*(_latent_of(g, channels_last) for g in given))
        size = self._lib.affectcodec_cuda_backward_work(
            *self._config(config), c_int64(batch * frames)
        )
        work = torch.full((size,), float("nan"))
        source, counted = _latent_of(z, channels_last), _counts_of(counts)
        target = _latent_of(dz if need_dz else None, channels_last)
        self._call(
            "backward", *self._config(config), self._pointer(weights), self._pointers(params),
            ctypes.byref(source), self._pointer(saved), ctypes.byref(counted), views,
            (c_int32 * len(ascending))(*ascending), c_int32(len(ascending)), ctypes.byref(target),
            self._pointers(found), self._pointer(work),
        )  # fmt: skip
        return (dz if need_dz else z.new_empty((0,))), found

    def decode(
        self, tokens: Tensor, weights: Tensor, config: Sequence[int], counts: Tensor | None,
        channels_last: bool, dtype: torch.dtype,
    ) -> Tensor:  # fmt: skip
        like = torch.empty(0, dtype=dtype)
        width = Shape.of(config).width
        out = empty_latent(like, tokens.shape[0], tokens.shape[2], width, channels_last)
        out.fill_(float("nan"))
        self.decode_out(tokens, weights, config, counts, channels_last, out)
        return out

    def decode_out(
        self, tokens: Tensor, weights: Tensor, config: Sequence[int], counts: Tensor | None,
        channels_last: bool, out: Tensor,
    ) -> None:  # fmt: skip
        width = Shape.of(config).width
        if tuple(out.shape) != tuple(
            empty_latent(tokens, tokens.shape[0], tokens.shape[2], width, channels_last).shape
        ):
            raise RuntimeError("out: wanted the batch and frames of tokens")
        source, target = _tokens_of(tokens), _latent_of(out, channels_last)
        counted = _counts_of(counts)
        self._call(
            "decode", *self._config(config), self._pointer(weights), ctypes.byref(source),
            ctypes.byref(counted), ctypes.byref(target),
        )  # fmt: skip

    def pack_bits(self, codes: Tensor, bits: int) -> Tensor:
        out = torch.full(((codes.numel() * bits + 7) // 8,), 0xAB, dtype=torch.uint8)
        self._call(
            "pack_bits", self._pointer(codes), c_int32(codes.dtype == torch.int64),
            c_int64(codes.numel()), c_int32(bits), self._pointer(out),
        )  # fmt: skip
        return out

    def unpack_bits(self, data: Tensor, bits: int, count: int, dtype: torch.dtype) -> Tensor:
        out = torch.full((count,), -77, dtype=dtype)
        self._call(
            "unpack_bits", self._pointer(data), c_int32(bits), c_int64(count),
            c_int32(dtype == torch.int64), self._pointer(out),
        )  # fmt: skip
        return out


OPERATORS = (
    "fold", "encode", "encode_out", "forward", "forward_out", "backward", "decode", "decode_out",
    "pack_bits", "unpack_bits",
)  # fmt: skip


def register(kernels: Kernels) -> torch.library.Library:
    """Registers the operators for CPU tensors, as long as the result lives."""
    library = torch.library.Library("affectcodec", "IMPL")
    for name in OPERATORS:
        library.impl(f"{name}_cuda", getattr(kernels, name), "CPU")
    return library
