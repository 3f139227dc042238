# SPDX-License-Identifier: Apache-2.0
"""Digits, grid values and mixed-radix tokens against integer and float64 references."""

from __future__ import annotations

import math
import random

import pytest
import torch

from affectcodec.ops import fsq

LEVELS = (2, 3, 4, 5, 8, 9, 16)


def bounded(y: torch.Tensor, bound: str) -> torch.Tensor:
    return torch.tanh(y) if bound == "tanh" else y.clamp(-1, 1)


@pytest.mark.parametrize("bound", ["tanh", "clamp"])
@pytest.mark.parametrize("levels", LEVELS)
def test_thresholds_are_the_rounding_formula(levels: int, bound: str) -> None:
    y = torch.cat([torch.linspace(-4, 4, 20001, dtype=torch.float64), torch.tensor([-60.0, 60.0])])
    scaled = (levels - 1) * (bounded(y, bound) + 1) / 2 + 0.5
    away = (scaled - scaled.round()).abs() > 1e-9  # at a tie, rounding decides
    table = fsq.threshold_table([levels], bound, dtype=torch.float64)
    got = fsq.digits(y[None], table)[0]
    want = scaled.floor().clamp(0, levels - 1).int()
    assert away.sum() > 20000 - 20 * levels
    assert torch.equal(got[away], want[away])
    assert set(got.tolist()) == set(range(levels))


@pytest.mark.parametrize("bound", ["tanh", "clamp"])
@pytest.mark.parametrize("levels", LEVELS)
def test_a_value_on_a_threshold_takes_the_upper_digit(levels: int, bound: str) -> None:
    taus = torch.tensor(fsq.thresholds(levels, bound), dtype=torch.float64)
    table = fsq.threshold_table([levels], bound, dtype=torch.float64)
    assert fsq.digits(taus[None], table)[0].tolist() == list(range(1, levels))
    below = torch.nextafter(taus, torch.full_like(taus, -math.inf))
    assert fsq.digits(below[None], table)[0].tolist() == list(range(levels - 1))


@pytest.mark.parametrize("bound", ["tanh", "clamp"])
@pytest.mark.parametrize("levels", LEVELS)
def test_thresholds_are_finite_symmetric_and_ascending(levels: int, bound: str) -> None:
    taus = fsq.thresholds(levels, bound)
    assert len(taus) == levels - 1
    assert all(math.isfinite(tau) for tau in taus)
    assert taus == sorted(set(taus))
    assert taus == [-tau for tau in reversed(taus)]


def test_two_levels_split_at_zero() -> None:
    assert fsq.thresholds(2, "tanh") == [0.0]
    table = fsq.threshold_table([2], "tanh", dtype=torch.float32)
    y = torch.tensor([[-1e-30, 0.0, 1e-30]])
    assert fsq.digits(y, table)[0].tolist() == [0, 1, 1]


def test_mixed_levels_stay_in_range_at_infinity() -> None:
    levels = (2, 5, 3)
    table = fsq.threshold_table(levels, "tanh", dtype=torch.float32)
    column = torch.tensor([math.inf, 3e38, -3e38, -math.inf, math.nan])
    got = fsq.digits(column.expand(3, 5), table)
    assert got.tolist() == [[n - 1, n - 1, 0, 0, 0] for n in levels]


@pytest.mark.parametrize("levels", LEVELS)
def test_grid_is_symmetric_and_reaches_both_ends(levels: int) -> None:
    digit = torch.arange(levels)[None]
    grid = fsq.grid_values(digit, torch.tensor([[levels]], dtype=torch.float64))[0]
    want = torch.tensor([2 * n / (levels - 1) - 1 for n in range(levels)], dtype=torch.float64)
    assert grid[0] == -1 and grid[-1] == 1
    assert torch.equal(grid, -grid.flip(0))
    torch.testing.assert_close(grid, want, rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    ("levels", "dtype"),
    [
        ((4,) * 6, torch.int32),
        ((2, 3, 9, 5), torch.int32),
        ((2,) * 31, torch.int32),  # exactly 2**31 codes: the last one is 2**31 - 1
        ((2,) * 32, torch.int64),
        ((4096,) * 5 + (8,), torch.int64),  # exactly 2**63 codes
    ],
)
def test_packing_is_exact_integer_arithmetic(levels: tuple[int, ...], dtype: torch.dtype) -> None:
    assert fsq.token_dtype(math.prod(levels)) == dtype
    rng = random.Random(0)
    rows = [[rng.randrange(n) for n in levels] for _ in range(200)]
    rows += [[0] * len(levels), [n - 1 for n in levels]]
    digit = torch.tensor(rows).t()
    code = fsq.pack_digits(digit, levels, dtype)
    want = []
    for row in rows:
        value, base = 0, 1
        for n, level in zip(row, levels, strict=True):
            value += n * base
            base *= level
        want.append(value)
    assert code.dtype == dtype
    assert code.tolist() == want
    assert code[-1] == math.prod(levels) - 1
    assert torch.equal(fsq.unpack_digits(code, levels).long(), digit)


def test_dim_zero_lies_in_the_low_place() -> None:
    code = fsq.pack_digits(torch.tensor([[1], [2], [0]]), (4, 4, 4), torch.int32)
    assert code.tolist() == [1 + 2 * 4]


@pytest.mark.parametrize(("levels", "bound"), [(1, "tanh"), (4, "sigmoid")])
def test_bad_arguments_are_named(levels: int, bound: str) -> None:
    with pytest.raises(ValueError, match="levels|bound"):
        fsq.thresholds(levels, bound)
