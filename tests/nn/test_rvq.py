# SPDX-License-Identifier: Apache-2.0
"""The vector quantizer baseline: it learns codebooks, revives dead entries, keeps the contract."""

from __future__ import annotations

import math

import pytest
import torch

from affectcodec.config import BDRFSQConfig, Block
from affectcodec.nn.rvq import Codebook, ResidualVQ, split_codebook

BLOCKS = (Block("emotion", 6, (2, 2, 2)), Block("acoustic", 10, (4, 4)))
CONFIG = BDRFSQConfig(BLOCKS, num_stages=3, kind="rvq", codebooks=(16, 8))


def trained(steps: int = 20, seed: int = 0) -> ResidualVQ:
    q = ResidualVQ(CONFIG)
    for step in range(steps):
        torch.manual_seed(seed + step)
        q(torch.randn(4, 16, 60))
    return q


@pytest.mark.parametrize(
    ("size", "parts"), [(32768, (256, 128)), (96, (96,)), (4096, (64, 64)), (7919, (7919,))]
)
def test_stages_are_split_into_equal_bits(size: int, parts: tuple[int, ...]) -> None:
    assert split_codebook(size) == parts and math.prod(parts) == size


def test_k_means_finds_the_clusters() -> None:
    torch.manual_seed(0)
    centres = 5 * torch.randn(4, 3)
    x = centres[torch.arange(400) % 4] + 0.01 * torch.randn(400, 3)
    book = Codebook(8, 3)
    book.initialize(x)
    error = (x - book.look_up(book.nearest(x))).square().sum(1).max()
    assert float(error) < 0.1


def test_nearest_is_nearest() -> None:
    torch.manual_seed(0)
    book, x = Codebook(16, 5), torch.randn(50, 5)
    assert torch.equal(book.nearest(x), torch.cdist(x, book.entries).argmin(1))


def test_entries_follow_the_mean_of_what_they_win() -> None:
    book = Codebook(2, 1)
    book.initialize(torch.tensor([[-1.0], [1.0]]).repeat(200, 1))
    moved = torch.tensor([[-2.0], [3.0]]).repeat(200, 1)
    for _ in range(600):
        book.update(moved, book.nearest(moved))
    assert sorted(book.entries[:, 0].tolist()) == pytest.approx([-2.0, 3.0], abs=0.05)


def test_dead_entries_start_anew_from_the_batch() -> None:
    torch.manual_seed(0)
    book = Codebook(16, 4)
    x = torch.randn(640, 4)
    book.initialize(x)
    book.entries[3] = 1e3
    book.sums[3] = 0
    book.counts[3] = 0
    for _ in range(3):
        book.update(x, book.nearest(x))
    assert float(book.entries.abs().max()) < 10
    assert len(book.nearest(x).unique()) >= 15


def test_training_lowers_the_error_and_evaluation_changes_nothing() -> None:
    torch.manual_seed(9)
    z = torch.randn(4, 16, 100)
    error = {}
    for steps in (1, 30):
        q = trained(steps).eval()
        error[steps] = float((q(z).latent - z).square().mean())
    assert error[30] < error[1] < 1
    before = {k: v.clone() for k, v in q.state_dict().items()}
    q(z)
    q.train()
    with torch.no_grad():
        q(z)
    assert all(torch.equal(v, before[k]) for k, v in q.state_dict().items())


def test_updates_are_repeatable_whatever_the_generators() -> None:
    a = trained()
    torch.manual_seed(1234)
    b = trained()
    assert all(torch.equal(x, y) for x, y in zip(a.buffers(), b.buffers(), strict=True))


def test_tokens_rates_and_masks_agree() -> None:
    q = trained().eval()
    z = torch.randn(2, 16, 30)
    out = q(z, rates=(1, 3))
    tokens = q.encode(z)
    assert tokens.dtype == torch.int32 and tokens.shape == (2, 3, 30)
    assert torch.equal(tokens, out.tokens) and int(tokens.max()) < 128
    for stages in (1, 2, 3):
        torch.testing.assert_close(q.decode(tokens, stages), q(z, stages).latent)
        torch.testing.assert_close(q.decode(tokens[:, :stages]), q(z, stages).latent)
    torch.testing.assert_close(out.rates[1], q(z, 1).latent)
    torch.testing.assert_close(out.rates[3], out.latent)
    each = torch.tensor([[1, 1], [2, 2]])
    mixed = q(z, each).latent
    torch.testing.assert_close(mixed[0], q(z, 1).latent[0])
    torch.testing.assert_close(q.decode(tokens, each[..., None].expand(2, 2, 30)), mixed)
    last = q(z.transpose(1, 2), channels_last=True)
    torch.testing.assert_close(last.latent.transpose(1, 2), out.latent)


def test_more_stages_come_nearer() -> None:
    q = trained().eval()
    torch.manual_seed(3)
    z = torch.randn(4, 16, 100)
    errors = [float((q(z, k).latent - z).square().mean()) for k in (1, 2, 3)]
    assert errors == sorted(errors, reverse=True)


def test_gradients_pass_straight_through_and_commitment_draws_the_encoder() -> None:
    q = trained()
    z = torch.randn(2, 16, 9, requires_grad=True)
    out = q(z)
    weight = torch.randn_like(out.latent)
    (gradient,) = torch.autograd.grad((weight * out.latent).sum(), z, retain_graph=True)
    torch.testing.assert_close(gradient, weight)
    assert out.commitment is not None
    (pull,) = torch.autograd.grad(out.commitment, z)
    assert float((pull * (z - out.latent)).sum()) > 0


def test_nan_frames_are_marked_and_refused() -> None:
    q = trained().eval()
    z = torch.randn(1, 16, 4)
    z[0, 2, 1] = math.nan
    assert q.encode(z)[0, :, 1].tolist() == [-1, -1, -1]
    latent = q(z).latent
    assert bool(torch.isnan(latent[0, :, 1]).all()) and not bool(torch.isnan(latent[0, :, 0]).any())
    with pytest.raises(ValueError, match=r"0\.\.127, got -1"):
        q.decode(q.encode(z))


def test_empty_input() -> None:
    q = trained()
    assert q.encode(torch.zeros(0, 16, 4)).shape == (0, 3, 4)
    assert q(torch.zeros(2, 16, 0)).latent.shape == (2, 16, 0)
    assert q.decode(torch.zeros(2, 3, 0, dtype=torch.int32)).shape == (2, 16, 0)


@pytest.mark.parametrize(
    ("z", "words"),
    [
        (torch.zeros(2, 15, 4), "D = 16, got \\(2, 15, 4\\)"),
        (torch.zeros(16, 4), "\\(16, 4\\)"),
        (torch.zeros(2, 16, 4, dtype=torch.int32), "floating point"),
    ],
)
def test_bad_latents_are_named(z: torch.Tensor, words: str) -> None:
    q = ResidualVQ(CONFIG)
    for call in (q, q.encode):
        with pytest.raises(ValueError, match=words):
            call(z)
    with pytest.raises(ValueError, match=r"rates: wanted 1\.\.3, got 4"):
        q(torch.zeros(1, 16, 2), rates=(4,))
    with pytest.raises(ValueError, match="1 to 3 stages"):
        q.decode(torch.zeros(1, 4, 2, dtype=torch.int32))
