# SPDX-License-Identifier: Apache-2.0
"""Past 2**31 elements, and past 2**31 codes.

Memory that is only read, or never touched, takes no room: tensors are expanded, or lie far apart in
an allocation of which single pages are used.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from affectcodec.config import BDRFSQConfig, Block
from affectcodec.nn import BDRFSQOutput
from affectcodec.ops import use_backend
from tests.ops.quantizers import CONFIGS, assert_close, latent, needs_cpu_kernels, quantizer

pytestmark = [needs_cpu_kernels, pytest.mark.slow, pytest.mark.timeout(300)]
FAR = 2**30 + 64


@pytest.fixture(autouse=True)
def _kernels_only():
    with use_backend("cpu"):
        yield


def apart(shape: tuple[int, int, int], dtype: torch.dtype, channels_last: bool) -> Tensor:
    """A tensor whose samples begin ``FAR`` elements from each other."""
    batch, rows, columns = shape
    whole = torch.empty((batch - 1) * FAR + rows * columns, dtype=dtype)
    strides = (FAR, columns, 1)
    assert whole.numel() > 2**31
    return whole.as_strided(shape, strides)


def test_more_elements_than_int32_counts() -> None:
    config = BDRFSQConfig(blocks=(Block("only", 512, (2, 3)),), num_stages=1)
    q = quantizer(config)
    frames, batch = 50_000, 84
    z = latent(config, 1, frames).to(torch.bfloat16)
    many = z.expand(batch, -1, -1)
    assert many.numel() > 2**31
    want = q.encode(z)
    tokens = q.encode(many)
    assert tokens.shape == (batch, 1, frames)
    assert torch.equal(tokens, want.expand(batch, -1, -1))


@pytest.mark.parametrize("channels_last", [False, True], ids=["BDT", "BTD"])
def test_addresses_past_int32(channels_last: bool) -> None:
    config = CONFIGS["odd"]
    q = quantizer(config)
    shape = (3, 70, config.width) if channels_last else (3, config.width, 70)
    plain = latent(config, 3, 70, channels_last).to(torch.bfloat16)
    z, out, g = (apart(shape, torch.bfloat16, channels_last) for _ in range(3))
    z.copy_(plain), g.copy_(torch.randn(shape))
    assert torch.equal(
        q.encode(z, channels_last=channels_last), q.encode(plain, channels_last=channels_last)
    )
    params = list(q.parameters())
    results = []
    for x, gradient in ((z, g), (plain, g.clone(memory_format=torch.contiguous_format))):
        x = x.detach().requires_grad_(True)
        u = q(x, channels_last=channels_last).latent
        results.append([u, *torch.autograd.grad(u, [x, *params], gradient)])
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)
    with torch.no_grad():
        want = q(plain, channels_last=channels_last)
        into = BDRFSQOutput(out, torch.empty_like(want.tokens), {})
        q(z, channels_last=channels_last, out=into)
    assert torch.equal(out, want.latent) and torch.equal(into.tokens, want.tokens)


@pytest.mark.parametrize("channels_last", [False, True], ids=["BDT", "BTD"])
def test_decoding_to_addresses_past_int32(channels_last: bool) -> None:
    config = CONFIGS["odd"]
    q = quantizer(config)
    shape = (4, 70, config.width) if channels_last else (4, config.width, 70)
    tokens = q.encode(latent(config, 4, 70))
    out = apart(shape, torch.float32, channels_last)
    q.decode(tokens, channels_last=channels_last, out=out)
    assert torch.equal(out, q.decode(tokens, channels_last=channels_last))


def test_codebooks_past_int32_and_int64() -> None:
    levels = (2,) * 40
    config = BDRFSQConfig(blocks=(Block("a", 50, levels), Block("b", 9, (8,))), num_stages=2)
    q = quantizer(config)
    z = latent(config, 2, 300)
    tokens = q.encode(z)
    assert tokens.dtype == torch.int64
    assert int(tokens.max()) > 2**31 and int(tokens.max()) < config.codebook_size
    u = q.decode(tokens)
    with use_backend("reference"):
        assert float((q.encode(z) != tokens).float().mean()) < 0.01
        assert_close(u, q.decode(tokens), "decoded")
    with pytest.raises(ValueError, match="63"):
        BDRFSQConfig(blocks=(Block("a", 50, (2,) * 64),), num_stages=1)
