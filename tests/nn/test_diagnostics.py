# SPDX-License-Identifier: Apache-2.0
"""Isolation: proven for BD-RFSQ, refuted for quantizers that mix. Token use by known answers."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from affectcodec.config import BDRFSQConfig, Block
from affectcodec.nn import (
    BDRFSQ,
    IsolationError,
    check_isolation,
    isolation_report,
    usage_report,
)
from affectcodec.tokens import Tokens

CONFIG = BDRFSQConfig(
    blocks=(Block("emotion", 9, (2, 2, 2)), Block("acoustic", 14, (4, 3))), num_stages=4
)


class DenseResidualFSQ(nn.Module):
    """The same recursion with one projection over all channels: what BD-RFSQ is compared to."""

    def __init__(self, config: BDRFSQConfig, leak: float = 1.0) -> None:
        super().__init__()
        self.config = config
        whole = Block("whole", config.width, sum((b.levels for b in config.blocks), ()))
        self.inner = BDRFSQ(BDRFSQConfig((whole,), config.num_stages, config.bound))
        # Dims of one block read and write the other block's channels `leak` times as strongly.
        mask = torch.full((config.code_dim, config.width), leak)
        row = 0
        for block in config.blocks:
            mask[row : row + block.code_dim, config.block_slices()[block.name]] = 1
            row += block.code_dim
        with torch.no_grad():
            self.inner.blocks["whole"].W.mul_(mask)
            self.inner.blocks["whole"].O.mul_(mask.t())

    def encode(self, z: Tensor) -> Tensor:
        return self.inner.encode(z)

    def forward(self, z: Tensor):
        return self.inner(z)


@pytest.mark.parametrize("form", ["codespace", "naive"])
@pytest.mark.parametrize("bound", ["tanh", "clamp"])
def test_blocks_of_bd_rfsq_are_isolated(bound: str, form: str) -> None:
    config = BDRFSQConfig(CONFIG.blocks, CONFIG.num_stages, bound)
    q = BDRFSQ(config, form=form)
    with torch.no_grad():
        for parameter in q.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    report = check_isolation(q, torch.randn(2, config.width, 4))
    assert report.isolated
    assert [(p.jacobian, p.digits, p.outputs) for p in report.pairs] == [(0.0, 0, 0)] * 2
    # Nothing is proven unless each block does depend on itself.
    for own in report.own:
        assert own.jacobian > 0 and own.digits > 0 and own.outputs > 0
    assert json.loads(json.dumps(report.to_dict()))["isolated"] is True


def test_blocks_are_isolated_at_the_default_levels_and_stages() -> None:
    config = BDRFSQConfig(blocks=(Block("emotion", 24, (2, 2, 2)), Block("acoustic", 48, (4,) * 6)))
    assert isolation_report(BDRFSQ(config), torch.randn(1, config.width, 3)).isolated


@pytest.mark.parametrize("leak", [1.0, 1e-4])
def test_a_dense_projection_is_caught(leak: float) -> None:
    q = DenseResidualFSQ(CONFIG, leak)
    report = isolation_report(q, torch.randn(2, CONFIG.width, 4))
    assert not report.isolated
    assert {(p.source, p.target) for p in report.leaks} == {
        ("emotion", "acoustic"),
        ("acoustic", "emotion"),
    }
    for pair in report.pairs:
        assert pair.jacobian > 0 and pair.digits > 0 and pair.outputs > 0
    with pytest.raises(IsolationError, match="emotion -> acoustic.*acoustic -> emotion"):
        check_isolation(q, torch.randn(2, CONFIG.width, 4))


def test_a_leak_in_one_direction_is_named_as_such() -> None:
    q = DenseResidualFSQ(CONFIG)
    emotion = CONFIG.block_slices()["emotion"]
    with torch.no_grad():  # acoustic dims read emotion channels, not the other way round
        block = q.inner.blocks["whole"]
        block.W[:, :3, emotion.stop :] = 0
        block.O[:, emotion, 3:] = 0
        block.O[:, emotion.stop :, :3] = 0
    report = isolation_report(q, torch.randn(2, CONFIG.width, 4))
    assert [(p.source, p.target) for p in report.leaks] == [("emotion", "acoustic")]


def test_a_leak_of_the_forward_alone_is_caught() -> None:
    """A detached leak has no gradient at all: only the perturbation sees it."""
    inner = BDRFSQ(CONFIG)

    class Sneaky(nn.Module):
        config = CONFIG

        def mixed(self, z: Tensor) -> Tensor:
            return torch.cat([z[:, :9], z[:, 9:] + 0.1 * z[:, :1].detach()], 1)

        def encode(self, z: Tensor) -> Tensor:
            return inner.encode(self.mixed(z))

        def forward(self, z: Tensor):
            return inner(self.mixed(z))

    report = isolation_report(Sneaky(), torch.randn(1, CONFIG.width, 3))
    (leak,) = report.leaks
    assert (leak.source, leak.target, leak.jacobian) == ("emotion", "acoustic", 0.0)
    assert leak.outputs > 0 and leak.digits > 0


def test_a_leak_of_the_gradient_alone_is_caught() -> None:
    inner = BDRFSQ(CONFIG)

    class Sneaky(nn.Module):
        config = CONFIG
        encode = staticmethod(inner.encode)

        def forward(self, z: Tensor):
            shadow = 1e-6 * z[:, :1]
            out = inner(z).latent
            return SimpleNamespace(
                latent=torch.cat(
                    [out[:, :9], out[:, 9:] + 0 * shadow.detach() + (shadow - shadow.detach())], 1
                )
            )

    (leak,) = isolation_report(Sneaky(), torch.randn(1, CONFIG.width, 3)).leaks
    assert leak.jacobian == pytest.approx(1e-6)
    assert leak.digits == leak.outputs == 0


def test_isolation_report_names_a_bad_latent() -> None:
    with pytest.raises(ValueError, match="latent: wanted .* 23.*\\(1, 22, 3\\)"):
        isolation_report(BDRFSQ(CONFIG), torch.randn(1, 22, 3))


# -- token use --------------------------------------------------------------------------------

SMALL = BDRFSQConfig(blocks=(Block("a", 4, (2, 4)), Block("b", 4, (3,))), num_stages=2)


def tokens_of(codes: Tensor, **changes) -> Tokens:
    batch, _, frames = codes.shape
    values = {
        "codes": codes.int(),
        "lengths": torch.full((batch,), frames),
        "num_samples": torch.full((batch,), max(0, frames - 1) * 320),
        "stages": {"a": 2, "b": 2},
        "quantizer": SMALL,
        "config_hash": "0" * 16,
    }
    return Tokens(**{**values, **changes})


def test_use_of_hand_made_tokens() -> None:
    # Block a: digit 0 alternates, digit 1 is always 2; block b takes 0, 1, 2, 0.
    frames = [(n % 2) + 2 * 2 + 8 * (n % 3) for n in range(12)]
    codes = torch.tensor([[frames, [0] * 12]])
    report = usage_report(codes.int(), SMALL)
    use = {(d.block, d.stage, d.dim): d for d in report.digits}
    assert len(use) == 6
    assert use["a", 1, 0].bits == pytest.approx(1)
    assert use["a", 1, 0].level_shares == (0.5, 0.5)
    assert use["a", 1, 1].bits == 0
    assert use["a", 1, 1].level_shares == (0, 0, 1, 0)
    assert use["b", 1, 0].bits == pytest.approx(math.log2(3))
    assert use["b", 1, 0].share == pytest.approx(1)
    code = {(c.block, c.stage): c for c in report.codes}
    assert (code["a", 1].used, code["b", 1].used, code["a", 2].used) == (2, 3, 1)
    assert code["a", 1].codebook_size == 8
    assert report.dead == [
        "a stage 1 dim 1: 0.00 of 2.00 bits",
        "a stage 2 dim 0: 0.00 of 1.00 bits",
        "a stage 2 dim 1: 0.00 of 2.00 bits",
        "b stage 2 dim 0: 0.00 of 1.58 bits",
    ]
    assert "a stage 1 dim 1: 0.00 of 2.00 bits" in report.table()
    assert json.loads(json.dumps(report.to_dict()))["dead"] == report.dead


def test_the_threshold_decides_what_is_dead() -> None:
    skewed = torch.tensor([[[0] * 9 + [1]]])  # 0.47 bits in block a's first digit
    strict = usage_report(skewed.int(), SMALL, threshold=0.5)
    lax = usage_report(skewed.int(), SMALL, threshold=0.4)
    name = "a stage 1 dim 0: 0.47 of 1.00 bits"
    assert name in strict.dead and name not in lax.dead


def test_padding_and_missing_stages_do_not_count() -> None:
    codes = torch.randint(0, 24, (2, 2, 10))
    alone = usage_report(tokens_of(codes[:1]), SMALL)
    codes[1] = 0
    padded = tokens_of(codes, lengths=torch.tensor([10, 0]))
    assert usage_report(padded, SMALL) == alone
    cut = tokens_of(codes[:1], stages={"a": 2, "b": 1})
    kept = {(c.block, c.stage) for c in usage_report(cut, SMALL).codes}
    assert kept == {("a", 1), ("a", 2), ("b", 1)}


def test_stages_that_vary_by_frame_are_counted_where_they_are() -> None:
    codes = torch.randint(0, 24, (1, 2, 10))
    limit = torch.full((1, 2, 10), 2)
    limit[0, 1, 4:] = 1
    report = usage_report(tokens_of(codes, frame_stages=limit), SMALL)
    frames = {(c.block, c.stage): c.frames for c in report.codes}
    assert frames == {("a", 1): 10, ("a", 2): 10, ("b", 1): 10, ("b", 2): 4}


def test_frames_marked_as_nan_are_left_out() -> None:
    codes = torch.randint(0, 24, (1, 2, 10)).int()
    marked = torch.cat([codes, torch.full((1, 2, 3), -1, dtype=torch.int32)], 2)
    assert usage_report(marked, SMALL) == usage_report(codes, SMALL)


@pytest.mark.parametrize(
    ("codes", "words"),
    [
        (torch.zeros(1, 2, 0, dtype=torch.int32), "no frame"),
        (torch.full((1, 2, 3), 24, dtype=torch.int32), "0..23"),
        (torch.zeros(1, 3, 3, dtype=torch.int32), "1 to 2 stages"),
        (torch.zeros(1, 2, 3), "float32"),
    ],
)
def test_bad_tokens_are_named(codes: Tensor, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        usage_report(codes, SMALL)


def test_tokens_of_another_quantizer_are_refused() -> None:
    with pytest.raises(ValueError, match="another quantizer"):
        usage_report(tokens_of(torch.zeros(1, 2, 3)), CONFIG)
