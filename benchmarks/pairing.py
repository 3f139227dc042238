# SPDX-License-Identifier: Apache-2.0
"""Pairs of timings: two calls by turns, so that both see the same state of the machine.

A clock that drifts, a neighbour that wakes up or a processor that warms up moves both sides of a
pair alike. The ratio of a row is therefore the median over the rounds of the ratio within a round,
not the ratio of two medians.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Call = Callable[[], object]
Timer = Callable[[], float]


@dataclass(frozen=True)
class Plan:
    """How often each side is called.

    Attributes:
        rounds: pairs of timings.
        loops: calls a round of the contender.
        reference_loops: calls a round of the reference.
    """

    rounds: int
    loops: int
    reference_loops: int


def loops_for(seconds: float, at_least: float) -> int:
    """Calls of ``seconds`` each that fill a round of ``at_least`` seconds, 1 to 100,000."""
    if seconds <= 0:
        return 100_000
    return max(1, min(100_000, math.ceil(at_least / seconds)))


def plan(
    seconds: float,
    reference_seconds: float,
    *,
    budget: float,
    round_seconds: float = 0.005,
    fewest: int = 5,
    most: int = 60,
) -> Plan:
    """Rounds and loops that take about ``budget`` seconds.

    Args:
        seconds: time of one call of the contender.
        reference_seconds: time of one call of the reference.
        budget: seconds for all rounds of both sides.
        round_seconds: shortest round that the clock resolves well.
        fewest: rounds that are made even where the budget is passed.
        most: rounds that are enough.
    """
    loops = loops_for(seconds, round_seconds)
    reference_loops = loops_for(reference_seconds, round_seconds)
    a_round = loops * seconds + reference_loops * reference_seconds
    rounds = most if a_round <= 0 else int(budget / a_round)
    return Plan(max(fewest, min(most, rounds)), loops, reference_loops)


def timed(call: Call, loops: int, timer: Timer) -> float:
    """Seconds a call, over ``loops`` calls."""
    start = timer()
    for _ in range(loops):
        call()
    return (timer() - start) / loops


def probe(call: Call, timer: Timer, repeats: int = 3, enough: float = 1.0) -> float:
    """Quick estimate of the seconds a call: the best of a few, after one to warm up.

    Stops early once ``enough`` seconds have passed. Calls shorter than a millisecond are looped.
    """
    first = timed(call, 1, timer)
    if first >= enough:
        return first
    loops = loops_for(first, 0.002)
    best = math.inf
    for _ in range(repeats):
        best = min(best, timed(call, loops, timer))
        if best * loops >= enough:
            break
    return best


@dataclass(frozen=True)
class Pairs:
    """Seconds a call of both sides, one entry a round."""

    contender: tuple[float, ...]
    reference: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.contender or len(self.contender) != len(self.reference):
            raise ValueError(
                "Pairs: wanted as many timings of the contender as of the reference, at least "
                f"one, got {len(self.contender)} and {len(self.reference)}"
            )

    @property
    def seconds(self) -> float:
        """Median time of a call of the contender."""
        return statistics.median(self.contender)

    @property
    def reference_seconds(self) -> float:
        """Median time of a call of the reference."""
        return statistics.median(self.reference)

    def costs(self, work: float = 1.0) -> list[float]:
        """Time of the contender over that of the reference, one a round.

        Args:
            work: work of a call of the reference over that of a call of the contender.
        """
        pairs = zip(self.contender, self.reference, strict=True)
        return [work * own / other for own, other in pairs]

    def ratio(self, work: float = 1.0) -> float:
        """How many times as fast as the reference: the median over the rounds."""
        return 1 / statistics.median(self.costs(work))


def spread(values: Sequence[float]) -> float:
    """Interquartile range over the median, 0 for fewer than two values."""
    if len(values) < 2:
        return 0.0
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return (high - low) / statistics.median(values)
