# SPDX-License-Identifier: Apache-2.0
"""Projections that start from data: optimal where the optimum is known."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from affectcodec.config import BDRFSQConfig, Block
from affectcodec.nn import BDRFSQ
from affectcodec.nn.quantizer_start import start_from
from affectcodec.nn.rfsq import DenseRFSQ
from affectcodec.nn.rvq import ResidualVQ

CONFIG = BDRFSQConfig((Block("emotion", 8, (2, 2, 2)), Block("acoustic", 16, (4, 4, 4, 4))), 4)


def latents(rows: int = 4000, rank: int = 4, seed: int = 0) -> Tensor:
    """Each block a random mixture of `rank` Gaussians, off centre."""
    generator = torch.Generator().manual_seed(seed)

    def part(width: int) -> Tensor:
        mixing = torch.randn(rank, width, generator=generator) / math.sqrt(rank)
        return torch.randn(rows, rank, generator=generator) @ mixing + 0.3

    return torch.cat([part(8), part(16)], 1)


def left(quantizer: torch.nn.Module, z: Tensor, stages: int) -> float:
    with torch.no_grad():
        u = quantizer.decode(
            quantizer.encode(z[None], channels_last=True), stages, channels_last=True
        )
    return float((z - u[0]).square().mean() / (z - z.mean(0)).square().mean())


@pytest.mark.parametrize("bound", ["tanh", "clamp"])
@pytest.mark.parametrize("kind", [BDRFSQ, DenseRFSQ])
def test_latents_come_back_better_than_from_random_directions(kind: type, bound: str) -> None:
    z = latents()
    config = dataclasses.replace(CONFIG, bound=bound)
    random, started = kind(config), kind(config)
    told = start_from(started, z)
    for stages, most in ((1, 0.35), (2, 0.2), (4, 0.1)):
        assert left(started, z, stages) < min(most, 0.6 * left(random, z, stages))
    # what it says is left is what is left, and it holds of frames it has not seen
    assert told == pytest.approx(left(started, z, 4), rel=0.02)
    assert left(started, latents(seed=0)[:2000], 4) < 0.1


def test_one_gaussian_of_four_levels_is_the_known_quantizer() -> None:
    quantizer = BDRFSQ(BDRFSQConfig((Block("acoustic", 1, (4,)),), 1))
    z = torch.randn(200_000, 1, generator=torch.Generator().manual_seed(1)) * 3 + 5
    # Quarters of a Gaussian end at .6745; E[x q] and E[q^2] of the grid's values, from the density.
    density = [math.exp(-0.5 * x * x) / math.sqrt(2 * math.pi) for x in (0.0, 0.6745)]
    product = 2 * (density[1] + (density[0] - density[1]) / 3)
    distortion = 1 - product**2 / (0.5 + 0.5 / 9)
    assert start_from(quantizer, z) == pytest.approx(distortion, abs=0.001)
    digits = quantizer.encode(z[None], channels_last=True).flatten()
    share = torch.bincount(digits.long(), minlength=4) / len(z)
    assert torch.allclose(share, torch.full((4,), 0.25), atol=0.01)


def test_blocks_stay_apart() -> None:
    z = latents()
    other = z.clone()
    other[:, 8:] = latents(seed=5)[:, 8:]
    found = []
    for data in (z, other):
        quantizer = BDRFSQ(CONFIG)
        start_from(quantizer, data)
        found.append(quantizer.block_params("emotion"))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_directions_without_variance_are_harmless() -> None:
    z = latents(rank=1)
    quantizer = BDRFSQ(CONFIG)
    start_from(quantizer, z)
    assert all(bool(torch.isfinite(p).all()) for p in quantizer.parameters())
    assert left(quantizer, z, 4) < 0.05
    constant = torch.ones(40, 24)
    quantizer = BDRFSQ(CONFIG)
    start_from(quantizer, constant)
    assert all(bool(torch.isfinite(p).all()) for p in quantizer.parameters())
    u = quantizer.decode(quantizer.encode(constant[None], channels_last=True), channels_last=True)
    torch.testing.assert_close(u[0], constant, atol=1e-5, rtol=0)


def test_what_is_refused() -> None:
    quantizer = BDRFSQ(CONFIG)
    before = [p.clone() for p in quantizer.parameters()]
    with pytest.raises(ValueError, match=r"wanted \[N, D\] with D = 24, got \(50, 23\)"):
        start_from(quantizer, torch.randn(50, 23))
    with pytest.raises(ValueError, match="at least 16 finite frames.*got 15; use a larger batch"):
        start_from(quantizer, torch.randn(15, 24))
    with pytest.raises(ValueError, match="finite"):
        start_from(quantizer, torch.full((50, 24), math.nan))
    assert all(torch.equal(a, b) for a, b in zip(before, quantizer.parameters(), strict=True))
    assert start_from(ResidualVQ(CONFIG), torch.randn(50, 24)) is None
