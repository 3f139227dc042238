# SPDX-License-Identifier: Apache-2.0
"""Results and failures of processes."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from affectcodec.evaluation.workers import run_tasks


def build(factor: int) -> Callable[[int], int]:
    def work(task: int) -> int:
        if task == 13:
            raise ValueError("unlucky")
        if task == 99:
            os._exit(7)
        return factor * task

    return work


def fail_to_build() -> Callable[[int], int]:
    raise ImportError("nothing there")


@pytest.mark.parametrize("jobs", [1, 2])
def test_every_task_is_done_once(jobs: int) -> None:
    assert sorted(run_tasks(range(7), build, (3,), jobs)) == [0, 3, 6, 9, 12, 15, 18]
    assert list(run_tasks([], build, (3,), jobs)) == []


def test_a_failure_is_told_and_ends_the_run() -> None:
    with pytest.raises(RuntimeError, match="ValueError: unlucky"):
        list(run_tasks([1, 13, 2], build, (1,), 2))
    with pytest.raises(ValueError, match="unlucky"):
        list(run_tasks([13], build, (1,), 1))


def test_a_worker_that_cannot_start_is_told() -> None:
    with pytest.raises(RuntimeError, match="nothing there"):
        list(run_tasks([1, 2], fail_to_build, (), 2))


def test_a_dead_worker_is_noticed() -> None:
    with pytest.raises(RuntimeError, match="died"):
        list(run_tasks([99, 99, 99], build, (1,), 2))
