# SPDX-License-Identifier: Apache-2.0
"""The floor under a time: what the machine needs at least to move the bytes and do the products.

Both rates are measured in the run they are used in, with the same threads: the bandwidth of a copy
of memory that fits no cache, and the rate of a bare ``torch.mm`` of the fastest among several
shapes. Neither is a hard limit: a product that is cut for its shape can beat ``torch.mm``, and data
that lies in a cache beats the bandwidth. A share above 1 says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from benchmarks.pairing import Timer, timed

COPY_BYTES = 256 << 20
# Square ones, which libraries are tuned for, and the skinny ones of the quantizer.
MM_SHAPES = (
    (1024, 1024, 1024),
    (2048, 2048, 2048),
    (8000, 1024, 72),
    (72, 1024, 8000),
    (8000, 768, 48),
)


@dataclass(frozen=True)
class Floor:
    """Rates of the machine at one number of threads.

    Attributes:
        copy_bytes_per_second: bytes read plus bytes written by a copy, a second.
        mm_flops_per_second: rate of the fastest product, a multiply-add counted as two.
        mm_shape: ``(m, k, n)`` of that product.
        mm_rates: rate of every shape tried, ``"m x k x n"`` to flops a second.
    """

    threads: int
    copy_bytes_per_second: float
    mm_flops_per_second: float
    mm_shape: tuple[int, int, int]
    mm_rates: dict[str, float]

    def seconds(self, num_bytes: float, flops: float) -> float:
        """Time below which a call that moves so much and computes so much is not expected."""
        return max(num_bytes / self.copy_bytes_per_second, flops / self.mm_flops_per_second)


def _best(call: Callable[[], object], timer: Timer, repeats: int) -> float:
    call()
    return min(timed(call, 1, timer) for _ in range(repeats))


def _copy_rate(num_bytes: int, timer: Timer, repeats: int) -> float:
    source = torch.ones(num_bytes // 4)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _best(lambda: target.copy_(source), timer, repeats)


def measure(
    threads: int,
    timer: Timer,
    *,
    copy_bytes: int = COPY_BYTES,
    mm_shapes: tuple[tuple[int, int, int], ...] = MM_SHAPES,
    repeats: int = 7,
) -> Floor:
    """Measure both rates; the best of ``repeats`` counts, so that the floor is a low one."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        copy = _copy_rate(copy_bytes, timer, repeats)
        rates = {}
        for m, k, n in mm_shapes:
            a, b, out = torch.randn(m, k), torch.randn(k, n), torch.empty(m, n)

            def product(a: torch.Tensor = a, b: torch.Tensor = b, out: torch.Tensor = out) -> None:
                torch.mm(a, b, out=out)

            rates[m, k, n] = 2 * m * k * n / _best(product, timer, repeats)
    finally:
        torch.set_num_threads(before)
    best = max(rates, key=lambda shape: rates[shape])
    named = {f"{m} x {k} x {n}": rate for (m, k, n), rate in rates.items()}
    return Floor(threads, copy, rates[best], best, named)
