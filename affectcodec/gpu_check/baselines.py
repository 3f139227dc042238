# SPDX-License-Identifier: Apache-2.0
"""Calls that are timed: the kernels, and what they are measured against.

Every provider answers for an operator with a call without arguments, or says why it has none. The
providers of AffectCodec compute the same thing. The library of ``vector-quantize-pytorch`` has one
dense projection where AffectCodec has isolated blocks, with the same levels, stages and tokens a
frame; it makes tokens and latents at once and no other rates, in ``encode`` and in ``forward``.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from affectcodec.gpu_check.problems import Shape
from affectcodec.nn import BDRFSQ
from affectcodec.ops.registry import BACKENDS, OPS, REFERENCE, use_backend

Call = Callable[[], object]
RATES = (2, 4)  # with all stages three latents, as the multi-rate loss asks for
OPERATORS = ("encode", "forward", "training", "decode", "pack_bits", "unpack_bits")
LIBRARY = "vector-quantize-pytorch"


class NotThere(Exception):
    """A provider has no such operator here; the message says why."""


def providers(device: torch.device) -> dict[str, str]:
    """Names of the providers, each with the reason why it is not there (empty where it is)."""
    found = {}
    for row in BACKENDS.values():
        if device.type in (row.device, *row.devices()):
            found[row.name] = row.why_missing()
    found[REFERENCE] = found["torch.compile"] = ""
    try:
        importlib.metadata.version(LIBRARY)
        found[LIBRARY] = ""
    except importlib.metadata.PackageNotFoundError:
        found[LIBRARY] = f"not installed; pip install {LIBRARY}"
    return found


def _bits(q: BDRFSQ) -> int:
    return max(1, (q.config.codebook_size - 1).bit_length())


def _training(q: BDRFSQ, z: Tensor, channels_last: bool) -> Call:
    x = z.detach().requires_grad_(True)
    inputs = [x, *q.parameters()]
    cotangent = z.detach()

    def step() -> object:
        out = q(x, rates=RATES, channels_last=channels_last)
        outputs = [out.latent, *(out.rates[rate] for rate in RATES)]
        return torch.autograd.grad(outputs, inputs, [cotangent] * len(outputs))

    return step


def _own(q: BDRFSQ, z: Tensor, op: str, channels_last: bool) -> Call:
    with torch.no_grad():
        tokens = q.encode(z, channels_last=channels_last)
    if op == "encode":
        return lambda: q.encode(z, channels_last=channels_last)
    if op == "decode":
        return lambda: q.decode(tokens, channels_last=channels_last)
    if op == "forward":
        return lambda: q(z, rates=RATES, channels_last=channels_last)
    if op == "training":
        return _training(q, z, channels_last)
    raise NotThere(f"no {op} in plain PyTorch")


def _packing(backend: str, q: BDRFSQ, z: Tensor, op: str, channels_last: bool) -> Call:
    codes = q.encode(z, channels_last=channels_last).flatten()
    bits = _bits(q)
    kernel = OPS[op].kernel(backend)
    if op == "pack_bits":
        return lambda: kernel(codes, bits)
    packed = OPS["pack_bits"].kernel(backend)(codes, bits)
    return lambda: kernel(packed, bits, codes.numel(), codes.dtype)


def _library(q: BDRFSQ, z: Tensor, op: str, channels_last: bool) -> Call:
    if op not in ("encode", "forward", "training", "decode"):
        raise NotThere(f"the library has no {op}")
    from vector_quantize_pytorch import ResidualFSQ

    levels = [level for block in q.config.blocks for level in block.levels]
    module = ResidualFSQ(dim=q.config.width, levels=levels, num_quantizers=q.config.num_stages).to(
        z.device
    )
    x = (z if channels_last else z.mT).detach().float()
    if op == "training":
        x.requires_grad_(True)
        module.train()
        inputs = [x, *(p for p in module.parameters() if p.requires_grad)]

        def step() -> object:
            return torch.autograd.grad(module(x)[0].sum(), inputs, allow_unused=True)

        return step
    module.eval()
    if op == "decode":
        indices = module(x)[1]
        return lambda: module.get_output_from_indices(indices)
    return lambda: module(x)


def call_of(provider: str, op: str, q: BDRFSQ, z: Tensor, shape: Shape) -> Call:
    """The call of one provider; it runs as often as wanted and returns what it made.

    Raises:
        NotThere: the provider has no such operator.
    """
    last = shape.channels_last
    grad: Any = torch.enable_grad if op == "training" else torch.no_grad
    if provider == LIBRARY:
        with grad():
            call = _library(q, z, op, last)

        def library() -> object:
            with grad():
                return call()

        return library
    backend = REFERENCE if provider == "torch.compile" else provider
    with use_backend(backend), grad():
        if op in ("pack_bits", "unpack_bits"):
            if backend == REFERENCE:
                raise NotThere(f"no {op} in plain PyTorch")
            call = _packing(backend, q, z, op, last)
        else:
            call = _own(q, z, op, last)
    if provider == "torch.compile":
        call = torch.compile(call, dynamic=False)

    def run() -> object:
        with use_backend(backend), grad():
            return call()

    return run
