# SPDX-License-Identifier: Apache-2.0
"""The quantizer module on damaged and wrong input."""

from __future__ import annotations

import math

import pytest
import torch

from affectcodec.config import BDRFSQConfig, Block
from affectcodec.nn import BDRFSQ
from tests.nn.quantizers import CONFIG, latent, quantizer


@pytest.mark.parametrize("form", ["codespace", "naive"])
def test_nan_stays_in_its_frame_and_block(form: str) -> None:
    q = quantizer(form=form)
    z = latent()
    clean = q(z)
    z[0, 3, 2] = math.nan  # emotion block
    out = q(z)
    tokens = q.encode(z)
    for found in (tokens, out.tokens):
        assert found[0, :, 2].tolist() == [-1] * 5
        kept = torch.ones(2, 6, dtype=torch.bool)
        kept[0, 2] = False
        assert torch.equal(found.transpose(1, 2)[kept], clean.tokens.transpose(1, 2)[kept])
    assert bool(torch.isnan(out.latent[0, :10, 2]).all())
    out.latent[0, :10, 2] = clean.latent[0, :10, 2]
    torch.testing.assert_close(out.latent, clean.latent, rtol=0, atol=0)
    with pytest.raises(ValueError, match="NaN"):
        q.decode(tokens)


@pytest.mark.parametrize("form", ["codespace", "naive"])
@pytest.mark.parametrize("value", [math.inf, -math.inf, 3e38, -3e38])
def test_no_token_leaves_the_codebook(value: float, form: str) -> None:
    config = BDRFSQConfig(blocks=(Block("a", 6, (2, 5, 3)), Block("b", 3, (4, 9))), num_stages=3)
    q = quantizer(config, form=form)
    z = latent(2, 4, 9)
    z[0, 1, 0] = value
    z[0, 7, 1] = value
    z[1, :, 2] = value
    tokens = q.encode(z)
    assert int(tokens.min()) >= 0
    assert int(tokens.max()) < config.codebook_size
    # Frames without such a value, and the other block of those with one, are as before.
    z[0, 1, 0] = 0.0
    z[0, 7, 1] = 0.0
    z[1, :, 2] = 0.0
    clean = q.encode(z)
    size = config.blocks[0].codebook_size
    assert torch.equal(tokens[0, :, 2:], clean[0, :, 2:])
    assert torch.equal(tokens[0, :, 0] // size, clean[0, :, 0] // size)
    assert torch.equal(tokens[0, :, 1] % size, clean[0, :, 1] % size)


def test_tokens_do_not_depend_on_batch_neighbours() -> None:
    q = quantizer()
    z = latent(3, 40)
    tokens = q.encode(z)
    z[0], z[2] = torch.randn_like(z[0]) * 100, math.nan
    assert torch.equal(q.encode(z)[1], tokens[1])


@pytest.mark.parametrize(
    ("z", "words"),
    [
        (torch.zeros(33, 4), ["z:", "[B, D, T]", "(33, 4)"]),
        (torch.zeros(2, 32, 4), ["z:", "33 channels", "10 emotion + 23 acoustic", "(2, 32, 4)"]),
        (torch.zeros(2, 4, 33), ["channels_last=True"]),
        (torch.zeros(2, 33, 4, dtype=torch.int64), ["z:", "floating", "int64"]),
        ([1.0], ["z:", "list"]),
    ],
)
def test_bad_latents_are_named(z, words: list[str]) -> None:
    q = quantizer()
    for call in (q, q.encode):
        with pytest.raises(ValueError) as caught:
            call(z)
        for word in words:
            assert word in str(caught.value)


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (torch.zeros(2, 5, dtype=torch.int32), ["tokens:", "[B, K, T]"]),
        (torch.zeros(2, 5, 4), ["tokens:", "int32 or int64", "float32"]),
        (torch.zeros(2, 6, 4, dtype=torch.int32), ["tokens:", "1 to 5 stages", "got 6"]),
        (torch.zeros(2, 0, 4, dtype=torch.int32), ["tokens:", "got 0"]),
        (torch.full((1, 2, 2), 480, dtype=torch.int32), ["0..479", "480"]),
        (torch.full((1, 2, 2), -1, dtype=torch.int32), ["0..479", "NaN"]),
        ("tokens", ["tokens:", "str"]),
    ],
)
def test_bad_tokens_are_named(tokens, words: list[str]) -> None:
    with pytest.raises(ValueError) as caught:
        quantizer().decode(tokens)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"stages": 6}, ValueError, ["stages", "6", "0..5"]),
        ({"stages": {"emotion": -1}}, ValueError, ["stages", "emotion", "-1"]),
        ({"stages": {"speaker": 1}}, ValueError, ["stages", "speaker", "acoustic"]),
        ({"stages": 0}, ValueError, ["stages", "at least one"]),
        ({"stages": 2.0}, TypeError, ["stages", "float"]),
        (
            {"stages": torch.ones(2, 3, dtype=torch.int64)},
            ValueError,
            ["stages", "[2, 2]", "[2, 3]"],
        ),
        ({"rates": (0,)}, ValueError, ["rates", "1..5"]),
        ({"rates": (6,)}, ValueError, ["rates", "1..5"]),
        ({"rates": (2.0,)}, ValueError, ["rates", "1..5"]),
    ],
)
def test_bad_stages_and_rates_are_named(arguments, error, words: list[str]) -> None:
    with pytest.raises(error) as caught:
        quantizer()(latent(), **arguments)
    for word in words:
        assert word in str(caught.value)


def test_bad_construction_is_named() -> None:
    with pytest.raises(TypeError, match="BDRFSQConfig, got dict"):
        BDRFSQ({"blocks": ()})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'fast'"):
        BDRFSQ(CONFIG, form="fast")
