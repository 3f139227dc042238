# SPDX-License-Identifier: Apache-2.0
"""The quantizer module: shapes, dtypes, rates, stages, tokens."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch

from affectcodec.config import BDRFSQConfig, Block
from affectcodec.nn import BDRFSQ
from tests.nn.quantizers import ACOUSTIC, CONFIG, EMOTION, latent, quantizer, twins

LAYOUTS = [
    (Block("only", 7, (9, 2)),),
    (EMOTION, ACOUSTIC),
    (Block("a", 5, (3,)), Block("b", 1, (2,)), Block("c", 12, (8, 8))),
    (Block("a", 5, (3,)), Block("b", 2, (2, 6)), Block("c", 9, (4,) * 3), Block("d", 3, (7,))),
]


def composite(q: BDRFSQ, digits: dict[str, list[int]]) -> int:
    token, base = 0, 1
    for block in q.config.blocks:
        for digit, level in zip(digits[block.name], block.levels, strict=True):
            token += digit * base
            base *= level
    return token


# -- the two forms ----------------------------------------------------------------------------


@pytest.mark.parametrize("bound", ["tanh", "clamp"])
@pytest.mark.parametrize("stages", [None, 3, {0: 0, -1: 2}, "tensor"])
@pytest.mark.parametrize("blocks", LAYOUTS, ids=len)
def test_forms_agree_for_any_number_of_blocks(blocks, stages, bound: str) -> None:
    config = BDRFSQConfig(blocks=blocks, num_stages=4, bound=bound)
    if isinstance(stages, dict):
        names, stages = config.names, {-1: 2, 0: 0} if len(blocks) > 1 else {-1: 2}
        stages = {names[index]: count for index, count in stages.items()}
    elif stages == "tensor":
        stages = torch.randint(0, 5, (3, len(blocks)))
        stages[0] = 0
    fast, naive = (module.double() for module in twins(config))
    z = latent(3, 7, config.width, dtype=torch.float64)
    cotangent = [torch.randn_like(z) for _ in range(3)]
    outs, grads = [], []
    for module in (fast, naive):
        x = z.clone().requires_grad_(True)
        out = module(x, stages, rates=(1, 3))
        outs.append(out)
        values = (out.latent, out.rates[1], out.rates[3])
        total = sum((u * g).sum() for u, g in zip(values, cotangent, strict=True))
        grads.append(
            torch.autograd.grad(
                total, [x, *module.parameters()], allow_unused=True, materialize_grads=True
            )
        )
    assert torch.equal(outs[0].tokens, outs[1].tokens)
    torch.testing.assert_close(outs[0].latent, outs[1].latent, rtol=1e-10, atol=1e-10)
    for rate in (1, 3):
        torch.testing.assert_close(outs[0].rates[rate], outs[1].rates[rate], rtol=0, atol=1e-10)
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_float32_digits_differ_only_by_rounding() -> None:
    """Default configuration, 216,000 digits: fewer than 1 in 100,000 may fall the other way."""
    config = BDRFSQConfig()
    fast, naive = BDRFSQ(config), BDRFSQ(config, form="naive")
    naive.load_state_dict(fast.state_dict())
    z = torch.randn(1, config.width, 3000)
    tokens = fast.encode(z)
    other = naive.double().encode(z.double())
    digits = 0
    different = 0
    for level in (2, 2, 2, 4, 4, 4, 4, 4, 4):
        different += int((tokens % level != other % level).sum())
        digits += tokens.numel()
        tokens, other = tokens // level, other // level
    assert digits >= 200_000
    assert different < digits / 100_000


# -- tokens -----------------------------------------------------------------------------------


def test_the_first_block_takes_the_low_digits() -> None:
    q = quantizer()
    z = latent()
    tokens = q.encode(z)
    assert tokens.dtype == torch.int32
    assert tokens.shape == (2, 5, 6)
    assert CONFIG.codebook_size == 8 * 60
    # Moving one block moves its own part of the token only.
    moved = z.clone()
    moved[:, :10] = torch.randn(2, 10, 6)
    after = q.encode(moved)
    assert torch.equal(after // 8, tokens // 8)
    assert not torch.equal(after % 8, tokens % 8)


def test_known_token() -> None:
    """One stage that reads and writes the channels as they are: digits can be counted by hand."""
    config = BDRFSQConfig(blocks=(Block("a", 2, (2, 4)), Block("b", 1, (3,))), num_stages=1)
    q = BDRFSQ(config, form="codespace")
    with torch.no_grad():
        for block in q.blocks.values():
            block.W.copy_(torch.eye(block.W.shape[1])[None])
            block.O.copy_(torch.eye(block.W.shape[1])[None])
    z = torch.tensor([[[0.5, -0.5], [9.0, -0.1], [0.0, -9.0]]])
    # tanh(9) is 1: digit 3 of 4; tanh(-0.1) = -0.0997 lies above -1/3 ... below 0: digit 1 of 4
    want = [composite(q, {"a": [1, 3], "b": [1]}), composite(q, {"a": [0, 1], "b": [0]})]
    out = q(z)
    assert out.tokens[0, 0].tolist() == want
    torch.testing.assert_close(
        out.latent[0], torch.tensor([[1.0, -1.0], [1.0, -1 / 3], [0.0, -1.0]]), rtol=0, atol=1e-6
    )


def test_large_codebooks_use_int64_exactly() -> None:
    blocks = (Block("a", 20, (2,) * 20), Block("b", 20, (4,) * 10))
    config = BDRFSQConfig(blocks=blocks, num_stages=2)
    assert config.codebook_size == 2**40
    q = quantizer(config)
    out = q(latent(2, 50, 40))
    assert out.tokens.dtype == torch.int64
    assert int(out.tokens.max()) > 2**32
    torch.testing.assert_close(q.decode(out.tokens), out.latent, rtol=0, atol=1e-5)


def test_a_codebook_past_2_to_the_63_is_an_error() -> None:
    with pytest.raises(ValueError, match="2\\*\\*63"):
        BDRFSQConfig(blocks=(Block("a", 4, (2,) * 32), Block("b", 4, (2,) * 32)))
    assert BDRFSQConfig(blocks=(Block("a", 4, (2,) * 63),)).codebook_size == 2**63


# -- decoding ---------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 5])
def test_decoding_any_stage_count_gives_the_latent_of_that_rate(count: int) -> None:
    q = quantizer()
    out = q(latent(), rates=(count,))
    for tokens, stages in ((out.tokens, count), (out.tokens[:, :count], None)):
        torch.testing.assert_close(q.decode(tokens, stages), out.rates[count], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "stages", [{"emotion": 5, "acoustic": 1}, {"emotion": 0}, {"acoustic": 3}, 4]
)
def test_decoding_blocks_at_rates_of_their_own(stages) -> None:
    q = quantizer()
    z = latent()
    out = q(z, stages)
    torch.testing.assert_close(q.decode(out.tokens, stages), out.latent, rtol=0, atol=1e-5)
    for name, count in CONFIG.resolve_stages(stages).items():
        part = CONFIG.block_slices()[name]
        if count:
            whole = q(z, count).latent
            torch.testing.assert_close(out.latent[:, part], whole[:, part], rtol=0, atol=1e-5)
        else:
            assert not out.latent[:, part].any()


def test_every_sample_of_a_batch_has_its_own_stages() -> None:
    q = quantizer()
    z = latent(4, 3)
    counts = torch.tensor([[5, 1], [2, 2], [0, 4], [5, 5]])
    out = q(z, counts)
    torch.testing.assert_close(q.decode(out.tokens, counts), out.latent, rtol=0, atol=1e-5)
    for i, (emotion, acoustic) in enumerate(counts.tolist()):
        alone = q(z[i : i + 1], {"emotion": emotion, "acoustic": acoustic})
        torch.testing.assert_close(out.latent[i : i + 1], alone.latent, rtol=0, atol=1e-5)


def test_the_tokens_of_active_stages_do_not_depend_on_the_cut() -> None:
    q = quantizer()
    z = latent()
    whole = q.encode(z)
    cut = q(z, 3).tokens
    assert torch.equal(whole[:, :3], cut[:, :3])


def test_every_frame_may_have_its_own_stages() -> None:
    q = quantizer()
    tokens = q.encode(latent(2, 5))
    counts = torch.randint(0, 6, (2, 2, 5))
    counts[:, :, 0], counts[:, :, 1] = 0, 5
    got = q.decode(tokens, counts)
    for frame in range(5):
        one = q.decode(tokens[..., frame : frame + 1], counts[..., frame])
        torch.testing.assert_close(got[..., frame : frame + 1], one, rtol=0, atol=1e-5)
    assert not got[..., 0].any()


def test_multi_rate_outputs_equal_single_rate_calls() -> None:
    q = quantizer()
    z = latent()
    out = q(z, rates=(1, 2, 5))
    assert sorted(out.rates) == [1, 2, 5]
    for rate, value in out.rates.items():
        torch.testing.assert_close(value, q(z, rate).latent, rtol=0, atol=1e-5)
    torch.testing.assert_close(out.rates[5], out.latent, rtol=0, atol=0)


def test_a_rate_above_the_cut_adds_nothing() -> None:
    q = quantizer()
    out = q(latent(), 2, rates=(2, 4))
    torch.testing.assert_close(out.rates[4], out.rates[2], rtol=0, atol=1e-6)


def test_more_stages_come_closer_to_the_latent() -> None:
    q = BDRFSQ(BDRFSQConfig(blocks=(Block("a", 12, (4,) * 6),), num_stages=6))
    z = latent(4, 50, 12)
    out = q(z, rates=(1, 3))
    errors = [
        float((u - z).detach().square().mean()) for u in (out.rates[1], out.rates[3], out.latent)
    ]
    assert errors[0] > errors[1] > errors[2]


# -- layouts and dtypes -----------------------------------------------------------------------


def test_channels_last_and_any_strides_give_the_same() -> None:
    q = quantizer()
    z = latent()
    want = q(z, rates=(2,))
    last = q(z.transpose(1, 2).contiguous(), rates=(2,), channels_last=True)
    torch.testing.assert_close(last.latent.transpose(1, 2), want.latent, rtol=0, atol=1e-6)
    torch.testing.assert_close(last.rates[2].transpose(1, 2), want.rates[2], rtol=0, atol=1e-6)
    torch.testing.assert_close(
        q.decode(want.tokens, channels_last=True).transpose(1, 2),
        q.decode(want.tokens),
        rtol=0,
        atol=0,
    )
    wide = torch.randn(4, 2 * CONFIG.width, 12)
    strided = wide[::2, ::2, 1::2]
    backward_batch = z.flip(0).contiguous().flip(0)
    for view, same in ((strided, strided.clone()), (backward_batch, z)):
        assert torch.equal(q.encode(view), q.encode(same.contiguous()))
    expanded = z[:1].expand(3, -1, -1)
    tokens = q.encode(expanded)
    assert torch.equal(tokens[0], tokens[2])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_dtype_in_is_dtype_out_and_arithmetic_is_float32(dtype: torch.dtype) -> None:
    q = quantizer()
    z = latent().to(dtype).requires_grad_(True)
    out = q(z, rates=(2,))
    assert out.latent.dtype == out.rates[2].dtype == dtype
    out.latent.float().sum().backward()
    assert z.grad is not None and z.grad.dtype == dtype
    wide = q(z.detach().float()) if dtype != torch.float64 else q(z.detach())
    assert torch.equal(out.tokens, wide.tokens)
    assert torch.equal(out.latent, wide.latent.to(dtype))


def test_autocast_changes_nothing() -> None:
    q = quantizer()
    z = latent()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = q(z)
    assert torch.equal(inside.tokens, q.encode(z))
    assert inside.latent.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_module_of_low_precision_computes_in_float32_from_rounded_weights(dtype) -> None:
    low = quantizer().to(dtype)
    rounded = copy.deepcopy(low).float()
    z = latent()
    assert torch.equal(low.encode(z), rounded.encode(z))
    tokens = low.encode(z)
    assert low.decode(tokens).dtype == torch.float32
    assert torch.equal(low.decode(tokens), rounded.decode(tokens))


@pytest.mark.parametrize(("batch", "frames"), [(0, 4), (2, 0), (0, 0), (1, 1)])
def test_empty_and_single_frames(batch: int, frames: int) -> None:
    for form in ("codespace", "naive"):
        q = quantizer(form=form)
        z = latent(batch, frames).requires_grad_(True)
        out = q(z, rates=(2,))
        assert out.tokens.shape == (batch, 5, frames)
        assert out.latent.shape == out.rates[2].shape == z.shape
        out.latent.sum().backward()
        assert z.grad is not None and z.grad.shape == z.shape
        assert q.encode(z).shape == (batch, 5, frames)
        assert q.decode(out.tokens).shape == z.shape


# -- copies -----------------------------------------------------------------------------------


def test_copies_make_the_same_tokens() -> None:
    q = quantizer()
    z = latent()
    want = q.encode(z)
    loaded = quantizer(seed=1)
    assert not torch.equal(loaded.encode(z), want)
    file = io.BytesIO()
    torch.save(q.state_dict(), file)
    file.seek(0)
    loaded.load_state_dict(torch.load(file))
    for other in (copy.deepcopy(q), pickle.loads(pickle.dumps(q)), loaded):
        assert torch.equal(other.encode(z), want)
        assert torch.equal(other.decode(want), q.decode(want))


def test_a_fresh_quantizer_uses_every_digit() -> None:
    q = BDRFSQ(BDRFSQConfig(blocks=(Block("a", 32, (2, 4)),), num_stages=8))
    tokens = q.encode(latent(1, 4000, 32))
    for digit, level in ((tokens % 2, 2), (tokens // 2, 4)):
        for stage in range(8):
            share = torch.bincount(digit[0, stage], minlength=level) / 4000
            assert float(share.min()) > 0.05, (stage, share)


def test_training_reduces_the_error() -> None:
    q = BDRFSQ(BDRFSQConfig(blocks=(Block("a", 16, (4,) * 3),), num_stages=3))
    z = latent(2, 200, 16)
    optimizer = torch.optim.Adam(q.parameters(), lr=1e-2)
    errors = []
    for _ in range(30):
        loss = (q(z).latent - z).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        errors.append(float(loss.detach()))
    assert errors[-1] < 0.9 * errors[0]
