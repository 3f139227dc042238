# SPDX-License-Identifier: Apache-2.0
"""Digits on which two implementations differ, and whether float32 rounding explains each of them.

Sums in another order differ by rounding, so a value that lies within rounding of a threshold may
fall on either side. What follows in later stages of the same block and frame is no news: only the
first stage that differs is judged. There all earlier digits agree, so its exact value is known:

    x = W z + offset - sum of G v over the earlier stages

and float32 sums of its ``n`` terms, in any order, miss it by at most ``n 2^-24`` times the sum of
their sizes (Higham, Accuracy and Stability of Numerical Algorithms, chapter 3).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from affectcodec.nn import BDRFSQ
from affectcodec.ops import fsq

UNIT_ROUNDOFF = 2.0**-24


@dataclass(frozen=True)
class Flips:
    """Comparison of two token tensors.

    Attributes:
        digits: all that were compared.
        flipped: that differ at the first stage that differs in their block and frame.
        outside: those of them that rounding does not explain. Anything but 0 is a fault.
        worst: largest distance of a flipped value from its threshold, in parts of what rounding
            allows; 0 where nothing flipped.
    """

    digits: int
    flipped: int
    outside: int
    worst: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def compare_tokens(q: BDRFSQ, z: Tensor, tokens: Tensor, others: Tensor) -> Flips:
    """Compare tokens of two implementations of ``q.encode``.

    Args:
        z: the latent ``[B, D, T]`` that both encoded, any float dtype, without NaN.
        tokens, others: ``[B, K, T]``.

    Raises:
        ValueError: if shapes differ.
    """
    if tokens.shape != others.shape:
        raise ValueError(f"tokens: {list(tokens.shape)} against {list(others.shape)}")
    z, tokens, others = (x.detach().cpu() for x in (z, tokens, others))
    tokens, others = tokens.long(), others.long()
    count = tokens.numel() * sum(block.code_dim for block in q.config.blocks)
    invalid = int(((tokens < 0) != (others < 0)).sum())
    flipped, outside, worst = invalid, invalid, 0.0
    for block in q.config.blocks:
        a = fsq.unpack_digits(tokens.clamp_min(0) % block.codebook_size, block.levels)
        b = fsq.unpack_digits(others.clamp_min(0) % block.codebook_size, block.levels)
        tokens, others = tokens // block.codebook_size, others // block.codebook_size
        differs = (a != b).any(2)  # [B, K, T]
        first = differs & (differs.cumsum(1) == 1)
        for batch, stage, frame in first.nonzero().tolist():
            column = z[batch, q.config.block_slices()[block.name], frame].double()
            history = a[batch, :stage, :, frame]
            ratios = _distances(
                q, block.name, column, history, a[batch, stage, :, frame], b[batch, stage, :, frame]
            )
            flipped += len(ratios)
            outside += sum(ratio > 1 for ratio in ratios)
            worst = max(worst, *ratios)
    return Flips(count, flipped, outside, worst)


def _distances(
    q: BDRFSQ, name: str, z: Tensor, history: Tensor, first: Tensor, second: Tensor
) -> list[float]:
    """Distance of each value whose digits differ, in parts of what rounding allows.

    Args:
        z: float64 ``[D]``; ``history [k, d]`` digits of the earlier stages; ``first`` and
            ``second [d]`` those of stage ``k``.
    """
    block = next(b for b in q.config.blocks if b.name == name)
    params = q.block_params(name, torch.float64)
    W, c, O, e, logit, shift = (p.detach().cpu() for p in params)  # noqa: E741
    k = len(history)
    scale = torch.nn.functional.softplus(logit) + 0.1
    level = torch.tensor(block.levels, dtype=torch.float64)
    v = (2 * history - (level - 1)) / (level - 1) / scale[:k] + shift[:k]
    taken = torch.einsum("id,jde,je->ije", W[k], O[:k], v)  # [d, k, d]
    bias = W[k] @ e[:k].sum(0)
    x = W[k] @ z + c[k] - shift[k] - bias - taken.sum((1, 2))
    size = W[k].abs() @ z.abs() + (c[k] - shift[k] - bias).abs() + taken.abs().sum((1, 2))
    band = (len(z) + k * block.code_dim + 2) * UNIT_ROUNDOFF * (size + x.abs())
    table = fsq.threshold_table(block.levels, q.config.bound, dtype=torch.float64)
    ratios = []
    for i in (first != second).nonzero().flatten().tolist():
        low, high = sorted((int(first[i]), int(second[i])))
        distance = (table[i, low:high] / scale[k, i] - x[i]).abs().max()
        ratios.append(float(distance / band[i]))
    return ratios
