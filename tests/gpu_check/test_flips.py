# SPDX-License-Identifier: Apache-2.0
"""Flips: none, explained by rounding, and not."""

from __future__ import annotations

import pytest
import torch

from affectcodec.gpu_check.flips import compare_tokens
from affectcodec.gpu_check.problems import CONFIGS, Shape, latent, quantizer
from affectcodec.ops import use_backend

CONFIG = CONFIGS["odd"]
CPU = torch.device("cpu")


def encoded(z: torch.Tensor) -> torch.Tensor:
    with use_backend("reference"):
        return quantizer(CONFIG, CPU).encode(z)


def test_equal_tokens_have_no_flips() -> None:
    z = latent(CONFIG, Shape(2, 50), CPU)
    flips = compare_tokens(quantizer(CONFIG, CPU), z, encoded(z), encoded(z))
    assert (flips.flipped, flips.outside, flips.worst) == (0, 0, 0.0)
    assert flips.digits == 2 * 3 * 50 * 8


def test_what_rounding_can_do_is_explained() -> None:
    """Two latents on both sides of a threshold, found by halving, as near as float64 can tell."""
    q = quantizer(CONFIG, CPU)
    exact = quantizer(CONFIG, CPU).double()
    low, high = (latent(CONFIG, Shape(1, 200), CPU, seed).double() for seed in (0, 1))
    with use_backend("reference"):
        first = exact.encode(low)
        for _ in range(60):
            middle = (low + high) / 2
            same = (exact.encode(middle) == first).all(1, keepdim=True)
            low, high = torch.where(same, middle, low), torch.where(same, high, middle)
        flips = compare_tokens(q, low, exact.encode(low), exact.encode(high))
    assert flips.flipped >= 150
    assert flips.outside == 0
    assert 0 <= flips.worst < 1


def test_a_latent_that_is_slightly_off_is_not() -> None:
    z = latent(CONFIG, Shape(4, 500), CPU)
    flips = compare_tokens(quantizer(CONFIG, CPU), z, encoded(z), encoded(z * 1.01))
    assert flips.outside > 0 and flips.worst > 1


@pytest.mark.parametrize("stage", [0, 2])
def test_one_wrong_digit_is_found_at_its_stage_alone(stage: int) -> None:
    z = latent(CONFIG, Shape(1, 20), CPU)
    tokens = encoded(z)
    wrong = tokens.clone()
    wrong[0, stage, 7] += torch.where(wrong[0, stage, 7] % 3 == 2, -1, 1)  # first dim, 3 levels
    wrong[0, 2:, 7] = tokens[0, 2:, 7] if stage == 0 else wrong[0, 2:, 7]
    flips = compare_tokens(quantizer(CONFIG, CPU), z, tokens, wrong)
    assert (flips.flipped, flips.outside) == (1, 1)


def test_a_mark_on_one_side_alone_is_a_fault() -> None:
    z = latent(CONFIG, Shape(1, 20), CPU)
    tokens = encoded(z)
    marked = tokens.clone()
    marked[..., 3] = -1
    assert compare_tokens(quantizer(CONFIG, CPU), z, tokens, marked).outside >= 3


def test_other_shapes_are_refused() -> None:
    z = latent(CONFIG, Shape(1, 20), CPU)
    tokens = encoded(z)
    with pytest.raises(ValueError, match="tokens"):
        compare_tokens(quantizer(CONFIG, CPU), z, tokens, tokens[..., :3])
