# SPDX-License-Identifier: Apache-2.0
"""Quantizers and comparisons that the tests of the kernels share."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from affectcodec.config import BDRFSQConfig, Block
from affectcodec.nn import BDRFSQ
from affectcodec.ops.registry import BACKENDS

needs_cpu_kernels = pytest.mark.skipif(
    bool(BACKENDS["cpu"].why_missing()), reason=BACKENDS["cpu"].why_missing() or "kernels are there"
)

needs_triton = pytest.mark.skipif(
    bool(BACKENDS["triton"].why_missing()), reason=BACKENDS["triton"].why_missing() or "it is there"
)

DEFAULT = BDRFSQConfig()
CONFIGS = {
    "default": DEFAULT,
    "one": BDRFSQConfig(blocks=(Block("only", 1, (2,)),), num_stages=1),
    "odd": BDRFSQConfig(
        blocks=(Block("a", 37, (3, 2)), Block("b", 5, (7,)), Block("c", 129, (4, 5, 2, 3, 2))),
        num_stages=3,
    ),
    "clamp": BDRFSQConfig(
        blocks=(Block("a", 30, (2, 2, 2)), Block("b", 257, (4,) * 6)), num_stages=4, bound="clamp"
    ),
    "levels": BDRFSQConfig(
        blocks=(Block("a", 40, (17, 18, 100, 2)), Block("b", 9, (4096,))), num_stages=2
    ),
    "dims": BDRFSQConfig(
        blocks=(Block("a", 64, (2,) * 11), Block("b", 20, (3,) * 9)), num_stages=2
    ),
    "wide": BDRFSQConfig(
        blocks=(Block("a", 33, (2,) * 20), Block("b", 20, (4,) * 10)), num_stages=2
    ),
    "many": BDRFSQConfig(blocks=(Block("a", 16, (2, 3)),), num_stages=40),
}
SMALL = [name for name in CONFIGS if name != "default"]


def no_saved_graphs():
    """A graph on disk from an older form of an operator would be taken for one of this form."""
    import torch._inductor.config

    return torch._inductor.config.patch(force_disable_caches=True)


def quantizer(config: BDRFSQConfig, seed: int = 0, **kwargs) -> BDRFSQ:
    """A quantizer none of whose parameters is at its neutral start."""
    torch.manual_seed(seed)
    q = BDRFSQ(config, **kwargs)
    with torch.no_grad():
        for parameter in q.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return q


def specification(q: BDRFSQ) -> BDRFSQ:
    """The same quantizer stage by stage in float64."""
    naive = BDRFSQ(q.config, form="naive")
    naive.load_state_dict(copy.deepcopy(q.state_dict()))
    return naive.double()


def latent(config: BDRFSQConfig, batch: int, frames: int, channels_last: bool = False) -> Tensor:
    shape = (batch, frames, config.width) if channels_last else (batch, config.width, frames)
    return torch.randn(shape)


def settled(q: BDRFSQ, z: Tensor, channels_last: bool = False) -> Tensor:
    """``z`` without the frames whose digits lie so near a threshold that float32 may differ.

    They are replaced by a frame that agrees, so that everything behind the digits can be compared.
    """
    tokens = q.encode(z, channels_last=channels_last)
    wanted = specification(q).encode(z.double(), channels_last=channels_last)
    differs = (tokens != wanted).any(1)  # [B, T]
    assert float(differs.float().mean()) < 0.02 or int(differs.sum()) <= 1
    frames = (z if channels_last else z.transpose(1, 2)).clone()
    agreeing = (~differs).nonzero()
    if len(agreeing):
        frames[differs] = frames[tuple(agreeing[0])].clone()
    return frames if channels_last else frames.transpose(1, 2).contiguous()


def assert_close(got: Tensor, want: Tensor, what: str, tolerance: float = 3e-6) -> None:
    """Largest error against the largest wanted value: what float32 sums of that size can hold."""
    got, want = got.detach(), want.detach()
    size = float(want.abs().max()) if want.numel() else 0.0
    error = float((got.double() - want.double()).abs().max()) if want.numel() else 0.0
    assert got.shape == want.shape
    assert error <= tolerance * max(size, 0.1), f"{what}: error {error:.3g} at size {size:.3g}"
