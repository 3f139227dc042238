# SPDX-License-Identifier: Apache-2.0
"""Scalar pieces of finite scalar quantization: thresholds, grid values, mixed-radix tokens.

A digit is defined by thresholds, not by rounding a tanh: it is the number of thresholds that the
pre-bound value reaches. The thresholds are constants computed in float64, so that encoding needs
no tanh and every implementation that holds the same value makes the same digit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def thresholds(levels: int, bound: str = "tanh") -> list[float]:
    """Ascending thresholds of one code dim, ``levels - 1`` of them, in float64.

    ``tau_l = atanh((2 l + 1) / (levels - 1) - 1)`` for the tanh bound, without the atanh for the
    hard clamp. They invert ``digit = floor((levels - 1) * (t + 1) / 2 + 1/2)``.

    Raises:
        ValueError: if ``levels < 2`` or the bound is unknown.
    """
    if levels < 2:
        raise ValueError(f"levels must be at least 2, got {levels}")
    if bound not in ("tanh", "clamp"):
        raise ValueError(f"bound must be 'tanh' or 'clamp', got {bound!r}")
    grid = [(2 * i + 1 - (levels - 1)) / (levels - 1) for i in range(levels - 1)]
    return [math.atanh(g) for g in grid] if bound == "tanh" else grid


def threshold_table(
    levels: Sequence[int], bound: str, *, dtype: torch.dtype, device: torch.device | str = "cpu"
) -> Tensor:
    """Thresholds of several code dims as ``[code_dim, max(levels) - 1]``, padded with NaN.

    NaN, because nothing reaches it: an infinite value would reach a padding of +inf.
    """
    width = max(levels) - 1
    rows = [thresholds(n, bound) + [math.nan] * (width - (n - 1)) for n in levels]
    return torch.tensor(rows, dtype=torch.float64).to(device=device, dtype=dtype)


def digits(y: Tensor, table: Tensor) -> Tensor:
    """Digits of pre-bound values, by counting the thresholds they reach.

    Args:
        y: ``[..., code_dim, T]`` pre-bound values.
        table: ``[code_dim, n]`` thresholds in the dtype of ``y``.

    Returns:
        int32 ``[..., code_dim, T]``, each in ``0..levels-1``; a NaN reaches no threshold.
    """
    count = torch.zeros(y.shape, dtype=torch.int32, device=y.device)
    for column in table.unbind(-1):
        count += y >= column.unsqueeze(-1)
    return count


def grid_values(digit: Tensor, levels: Tensor) -> Tensor:
    """Symmetric grid ``2 n / (L - 1) - 1`` of digits ``[..., code_dim, T]``, ``levels`` float
    ``[code_dim, 1]``; both ends of [-1, 1] are reachable."""
    return (2 * digit.to(levels.dtype) - (levels - 1)) / (levels - 1)


def token_dtype(codebook_size: int) -> torch.dtype:
    """int32 where a composite token fits, else int64."""
    return torch.int32 if codebook_size <= 2**31 else torch.int64


def pack_digits(digit: Tensor, levels: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Mixed-radix code of digits ``[..., code_dim, T]`` -> ``[..., T]``, dim 0 in the low place.

    Integer multiply-add only: floats cannot hold every index above 2**24.
    """
    code = torch.zeros(digit.shape[:-2] + digit.shape[-1:], dtype=dtype, device=digit.device)
    base = 1
    for i, level in enumerate(levels):
        code += digit[..., i, :].to(dtype) * base
        base *= level
    return code


def unpack_digits(code: Tensor, levels: Sequence[int]) -> Tensor:
    """Inverse of :func:`pack_digits`: ``[..., T]`` -> int ``[..., code_dim, T]``."""
    out = []
    for level in levels:
        out.append(code % level)
        code = code // level
    return torch.stack(out, dim=-2)
