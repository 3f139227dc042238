# SPDX-License-Identifier: Apache-2.0
"""Registers the Triton kernels as operators ``affectcodec::<operator>_triton``.

Schemas and fakes stand in ``affectcodec.ops.registry``. On CPU tensors the operators work under
the interpreter alone (``TRITON_INTERPRET=1``, set before triton is imported).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

try:
    import triton
except ModuleNotFoundError:
    raise ModuleNotFoundError(
        "triton is not installed; pip install 'affectcodec[triton]'"
    ) from None

from affectcodec.kernels import fold as folding
from affectcodec.kernels.backward import backward
from affectcodec.kernels.bits import pack_bits, unpack_bits
from affectcodec.kernels.decode import decode
from affectcodec.kernels.encode import encode
from affectcodec.kernels.forward import forward
from affectcodec.ops.bd_rfsq.params import BlockParams

INTERPRETED = bool(triton.knobs.runtime.interpret)
DEVICES = ("cuda", "cpu") if INTERPRETED else ("cuda",)


def fold(params: Sequence[Tensor], config: Sequence[int]) -> Tensor:
    """Folded weights from the six parameters of each block, in order."""
    blocks = [BlockParams(*params[i : i + 6]) for i in range(0, len(params), 6)]
    return folding.fold(blocks, config)


def encode_out(
    z: Tensor, weights: Tensor, config: Sequence[int], channels_last: bool, out: Tensor
) -> None:
    encode(z, weights, config, channels_last, out=out)


def forward_out(
    z: Tensor,
    weights: Tensor,
    config: Sequence[int],
    counts: Tensor | None,
    rates: Sequence[int],
    channels_last: bool,
    out: Sequence[Tensor],
    tokens: Tensor,
) -> None:
    latents, made, _ = forward(z, weights, config, counts, rates, channels_last)
    for target, latent in zip((*out, tokens), (*latents, made), strict=True):
        if target.shape != latent.shape or target.dtype != latent.dtype:
            raise RuntimeError(f"out: wanted {latent.dtype} {list(latent.shape)}")
        target.copy_(latent)


def decode_out(
    tokens: Tensor,
    weights: Tensor,
    config: Sequence[int],
    counts: Tensor | None,
    channels_last: bool,
    out: Tensor,
) -> None:
    decode(tokens, weights, config, counts, channels_last, out=out)


OPERATORS: dict[str, Any] = {
    "fold": fold,
    "encode": encode,
    "encode_out": encode_out,
    "forward": forward,
    "forward_out": forward_out,
    "backward": backward,
    "decode": decode,
    "decode_out": decode_out,
    "pack_bits": pack_bits,
    "unpack_bits": unpack_bits,
}

_LIBRARY = torch.library.Library("affectcodec", "IMPL")


def _register() -> None:
    for name, function in OPERATORS.items():
        for device in DEVICES:
            _LIBRARY.impl(f"{name}_triton", function, device.upper())


_register()
