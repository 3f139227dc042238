# SPDX-License-Identifier: Apache-2.0
"""Tasks in processes of their own, results as they come."""

from __future__ import annotations

import multiprocessing
import queue
from collections.abc import Callable, Iterator, Sequence
from typing import Any

_POLL_S = 5.0


def run_tasks(
    tasks: Sequence[Any], build: Callable[..., Callable[[Any], Any]], arguments: tuple, jobs: int
) -> Iterator[Any]:
    """`build(*arguments)(task)` for every task, in no fixed order.

    Each process builds its function once: models are loaded there, not sent. With one job all of it
    happens in this process.

    Args:
        build: a function at the top of a module; `arguments` and tasks must be picklable.
        jobs: processes.

    Raises:
        RuntimeError: a process failed or died; its message.
    """
    if jobs == 1 or len(tasks) < 2:
        if tasks:
            function = build(*arguments)
            for task in tasks:
                yield function(task)
        return
    # spawn: forking a process in which torch has started threads can deadlock
    context = multiprocessing.get_context("spawn")
    inbox, outbox = context.Queue(), context.Queue()
    for task in [*tasks, *[None] * jobs]:
        inbox.put(task)
    workers = [
        context.Process(target=_work, args=(inbox, outbox, build, arguments), daemon=True)
        for _ in range(min(jobs, len(tasks)))
    ]
    for worker in workers:
        worker.start()
    try:
        for _ in tasks:
            yield _next(outbox, workers)
    finally:
        for worker in workers:
            if worker.is_alive():
                worker.terminate()
            worker.join()


def _next(outbox: Any, workers: Sequence[Any]) -> Any:
    while True:
        try:
            good, answer = outbox.get(timeout=_POLL_S)
        except queue.Empty:
            if any(worker.exitcode not in (None, 0) for worker in workers):
                codes = [worker.exitcode for worker in workers]
                raise RuntimeError(f"a worker died (exit codes {codes})") from None
            continue
        if not good:
            raise RuntimeError(f"a worker failed: {answer}")
        return answer


def _work(inbox: Any, outbox: Any, build: Callable[..., Any], arguments: tuple) -> None:
    """Body of a worker: None ends it; an exception goes back as text."""
    import torch

    torch.set_num_threads(1)
    try:
        function = build(*arguments)
        while (task := inbox.get()) is not None:
            outbox.put((True, function(task)))
    except Exception as error:  # noqa: BLE001 - the parent must hear of any failure
        outbox.put((False, f"{type(error).__name__}: {error}"))
