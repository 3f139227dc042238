# SPDX-License-Identifier: Apache-2.0
"""Clocks that know nothing of real time, so that no figure depends on load."""

from __future__ import annotations

import itertools

_COUNT = itertools.count(1)


def tick() -> float:
    """A millisecond later at every call."""
    return next(_COUNT) * 1e-3


class Clock:
    """A clock that calls move on: ``clock.work(s)`` is a call that takes ``s`` seconds."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def work(self, seconds: float, result: object = None):
        def call() -> object:
            self.now += seconds
            return result

        return call


class FakeBenchmark:
    """What the contest uses of the fixture of pytest-benchmark."""

    class _Data:
        def __init__(self) -> None:
            self.stats = self
            self.data: list[float] = []

    def __init__(self, clock: Clock) -> None:
        self.clock, self.stats = clock, self._Data()

    def pedantic(self, target, *, teardown, rounds: int, iterations: int) -> None:
        for _ in range(rounds):
            start = self.clock()
            for _ in range(iterations):
                target()
            self.stats.data.append((self.clock() - start) / iterations)
            teardown()
        if iterations > 1:  # as pytest-benchmark does
            target()
            teardown()
