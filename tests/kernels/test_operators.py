# SPDX-License-Identifier: Apache-2.0
"""The Triton kernels as registered operators, under the interpreter."""

from __future__ import annotations

import torch

import affectcodec.kernels.bd_rfsq  # noqa: F401 - registers the operators
from affectcodec.kernels.plan import describe
from affectcodec.ops.registry import OPS
from tests.kernels.problems import DEFAULT, Problem


def test_operators_agree_with_the_reference_and_with_their_fakes() -> None:
    problem = Problem.make(DEFAULT)
    config, params = list(describe(DEFAULT)), problem.params
    kernel = {name: op.kernel("triton") for name, op in OPS.items()}
    weights = kernel["fold"](params, config)
    assert torch.equal(weights.nan_to_num(), problem.weights.nan_to_num())
    z = torch.randn(2, 33, DEFAULT.width)
    tokens = kernel["encode"](z, weights, config, True)
    with torch.no_grad():
        expected = problem.module.encode(z, channels_last=True)
    assert float((tokens == expected).float().mean()) > 0.99
    latents, again, saved = kernel["forward"](z, weights, config, None, [2, 4], True)
    assert torch.equal(again, tokens)
    arguments = {
        "encode": (z, weights, config, True),
        "forward": (z, weights, config, None, [2, 4], True),
        "backward": (
            latents, [0, 1, 2], z, saved, weights, params, config, None, [2, 4], True, True,
        ),
        "decode": (tokens, weights, config, None, True, torch.float16),
        "pack_bits": (tokens.flatten(), 15),
    }  # fmt: skip
    for name, values in arguments.items():
        torch.library.opcheck(kernel[name], values, test_utils=("test_schema", "test_faketensor"))
    out = torch.empty_like(tokens)
    kernel["encode_out"](z, weights, config, True, out)
    assert torch.equal(out, tokens)
    latent = torch.empty(2, 33, DEFAULT.width)
    kernel["decode_out"](tokens, weights, config, None, True, latent)
    assert torch.equal(latent, kernel["decode"](tokens, weights, config, None, True, latent.dtype))
    into, written = [torch.empty_like(u) for u in latents], torch.empty_like(tokens)
    kernel["forward_out"](z, weights, config, None, [2, 4], True, into, written)
    assert torch.equal(written, tokens)
    assert all(torch.equal(a, b) for a, b in zip(into, latents, strict=True))
