# SPDX-License-Identifier: Apache-2.0
"""Work on many items in processes that a single bad item may kill."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

DIED = "the process that read it died (a crash of the decoder, or no memory left)"


def map_isolated(
    work: Callable[[Item], Result], items: Sequence[Item], workers: int
) -> Iterator[tuple[Item, Result | None, str]]:
    """``work`` of every item, in order, in ``workers`` processes; 1 works in this process.

    Yields:
        (item, result, ""); for an item on which a process dies (item, None, reason).
    """
    if workers <= 1:
        for item in items:
            yield item, work(item), ""
        return
    at = 0
    while at < len(items):
        given = at
        try:
            for result in _ahead(work, items[at:], workers):
                yield items[at], result, ""
                at += 1
        except BrokenProcessPool:
            # Who killed the pool is among those that were under way: one by one, it shows.
            given = min(len(items), at + _window(workers))
        while at < given:
            try:
                for result in _ahead(work, items[at:given], 1):
                    yield items[at], result, ""
                    at += 1
            except BrokenProcessPool:
                yield items[at], None, DIED
                at += 1


def _window(workers: int) -> int:
    return 4 * workers


def _ahead(work: Callable[[Item], Result], items: Sequence[Item], workers: int) -> Iterator[Result]:
    """Results in order; a single worker has one item at a time."""
    # Spawned workers: forking a process that already runs torch threads can deadlock.
    context = multiprocessing.get_context("spawn")
    window = _window(workers) if workers > 1 else 1
    pool = ProcessPoolExecutor(min(workers, len(items)), mp_context=context)
    waiting: deque[Future[Result]] = deque()
    rest = iter(items)
    try:
        while True:
            while len(waiting) < window:
                item = next(rest, None)
                if item is None:
                    break
                waiting.append(pool.submit(work, item))
            if not waiting:
                return
            yield waiting[0].result()
            waiting.popleft()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
