# SPDX-License-Identifier: Apache-2.0
"""The dense baseline: the digits and bits of BD-RFSQ, without its isolation."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from affectcodec.config import BDRFSQConfig, Block
from affectcodec.nn import check_isolation
from affectcodec.nn.diagnostics import IsolationError
from affectcodec.nn.quantizers import make_quantizer
from affectcodec.nn.rfsq import DenseRFSQ, shared_stages

CONFIG = BDRFSQConfig(
    (Block("emotion", 6, (2, 2, 2)), Block("acoustic", 10, (4, 3))), num_stages=4, kind="rfsq"
)


def quantizer() -> DenseRFSQ:
    torch.manual_seed(0)
    made = make_quantizer(CONFIG)
    assert isinstance(made, DenseRFSQ)
    return made


def test_tokens_have_the_range_and_bits_of_the_configuration() -> None:
    q = quantizer()
    z = torch.randn(3, 16, 40)
    tokens = q.encode(z)
    assert tokens.shape == (3, 4, 40) and tokens.dtype == torch.int32
    assert int(tokens.min()) >= 0 and int(tokens.max()) < CONFIG.codebook_size == 96
    assert len(tokens.unique()) > 40
    out = q(z)
    assert torch.equal(out.tokens, tokens)
    torch.testing.assert_close(q.decode(tokens), out.latent, rtol=1e-5, atol=1e-5)


def test_it_is_not_isolated() -> None:
    with pytest.raises(IsolationError):
        check_isolation(quantizer(), torch.randn(2, 16, 8))


def test_stage_counts_are_shared() -> None:
    q = quantizer()
    z = torch.randn(2, 16, 5)
    whole = q(z, stages=2)
    assert torch.equal(whole.latent, q(z, stages={"emotion": 2, "acoustic": 2}).latent)
    each = torch.tensor([[1, 1], [3, 3]])
    mixed = q(z, stages=each).latent
    torch.testing.assert_close(mixed[1], q(z, stages=3).latent[1])
    tokens = whole.tokens
    torch.testing.assert_close(q.decode(tokens, each), mixed)
    torch.testing.assert_close(q(z, rates=(1, 3)).rates[3], q(z, stages=3).latent)
    with pytest.raises(ValueError, match="has no blocks of its own"):
        q(z, stages={"emotion": 4, "acoustic": 1})
    with pytest.raises(ValueError, match="independent_stages=0"):
        q(z, stages=torch.tensor([[1, 2], [3, 3]]))
    with pytest.raises(ValueError, match=r"\[B, G\] or \[B, G, T\] with 2 blocks, got \[2, 3\]"):
        shared_stages(CONFIG, torch.ones(2, 3))


def test_gradients_pass_to_all_channels() -> None:
    q = quantizer()
    z = torch.randn(1, 16, 5, requires_grad=True)
    q(z).latent[:, 8:].sum().backward()
    assert z.grad is not None and float(z.grad[:, :6].abs().sum()) > 0


def test_the_hash_of_the_default_kind_is_what_it_was() -> None:
    from affectcodec.config import CodecConfig

    assert CodecConfig().hash == "745fb9d7de1cc0ed"
    quantizer_config = dataclasses.replace(CodecConfig().quantizer, kind="rfsq")
    assert dataclasses.replace(CodecConfig(), quantizer=quantizer_config).hash != CodecConfig().hash


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": "lfq"}, r"kind must be one of \['bd-rfsq', 'rfsq', 'rvq'\], got 'lfq'"),
        ({"codebooks": (12, 8)}, "belong to kind 'rvq'"),
        ({"kind": "rvq", "codebooks": (12, 4)}, r"the codebook of a stage \(96\).*got \(12, 4\)"),
        ({"kind": "rvq", "codebooks": (96, 1)}, r"got \(96, 1\)"),
    ],
)
def test_bad_kinds_are_named(changes: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(CONFIG, **changes)
