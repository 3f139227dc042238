# SPDX-License-Identifier: Apache-2.0
"""Doing the same to many files: progress, processes, failures that do not end the rest, Ctrl-C."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any, Protocol

import click
from tqdm import tqdm

from affectcodec.cli.errors import EXIT_DAMAGED, EXIT_FAILED, EXIT_INTERRUPTED, describe
from affectcodec.cli.inputs import STREAM, Plan
from affectcodec.cli.outputs import binary_stdin, binary_stdout


class Task(Protocol):
    """What a worker gets; it must survive pickling."""

    @property
    def name(self) -> str:
        """The file it is about."""


@dataclass(frozen=True)
class Done:
    """A file that was made.

    Attributes:
        text: what was made of what, for a line on its own.
        seconds: of audio.
        size: bytes on the coded side.
        notes: good to know; left out with ``--quiet``.
        warnings: always shown.
        data: the output where it goes to standard output.
    """

    text: str
    seconds: float
    size: int
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    data: bytes = b""


@dataclass
class Outcome:
    """What came of a batch."""

    done: list[Done] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    interrupted: bool = False
    elapsed: float = 0.0

    @property
    def exit_code(self) -> int:
        if self.interrupted:
            return EXIT_INTERRUPTED
        if self.failures:
            return EXIT_FAILED
        return EXIT_DAMAGED if any(done.warnings for done in self.done) else 0


def set_threads(threads: int | None, jobs: int = 1) -> None:
    """Threads of torch in this process; by default the cores are shared among ``jobs``."""
    import torch

    if threads is None and jobs > 1:
        threads = max(1, (os.cpu_count() or 1) // jobs)
    if threads is not None:
        torch.set_num_threads(threads)


def run_batch(
    tasks: Sequence[Task],
    work: Callable[[Any], Done],
    *,
    jobs: int,
    threads: int | None,
    quiet: bool,
    failures: Sequence[str] = (),
) -> Outcome:
    """Call ``work`` on every task, in ``jobs`` processes.

    Args:
        tasks: picklable where ``jobs`` is above 1.
        work: function of a module; what it raises is a failure of its task alone.
        jobs: processes.
        threads: of torch, in each process.
        quiet: whether notes and the progress bar are left out.
        failures: what failed before.
    """
    outcome = Outcome(failures=list(failures))
    jobs = max(1, min(jobs, len(tasks)))
    started = time.monotonic()
    show = not quiet and len(tasks) > 1 and sys.stderr.isatty()
    results = _in_processes if jobs > 1 else _one_by_one
    with tqdm(total=len(tasks), unit="file", disable=not show, file=sys.stderr) as bar:
        try:
            for task, result in results(tasks, work, jobs, threads):
                bar.update()
                if isinstance(result, str):
                    outcome.failures.append(result)
                    continue
                outcome.done.append(result)
                for text in result.warnings:
                    bar.write(f"Warning: {task.name}: {text}", file=sys.stderr)
                for text in () if quiet else result.notes:
                    bar.write(f"{task.name}: {text}", file=sys.stderr)
        except KeyboardInterrupt:
            outcome.interrupted = True
    outcome.elapsed = time.monotonic() - started
    return outcome


def standard_streams(plan: Plan) -> tuple[IO[bytes] | None, IO[bytes] | None]:
    """Standard input and output, each where a job of the plan names it.

    Raises:
        click.UsageError: it is a terminal.
    """
    target = binary_stdout() if any(job.target == STREAM for job in plan.jobs) else None
    source = binary_stdin() if any(job.source == STREAM for job in plan.jobs) else None
    return source, target


def conclude(
    outcome: Outcome, plan: Plan, target: IO[bytes] | None, *, verb: str, quiet: bool
) -> None:
    """Write what goes to standard output, say what was done, and end the command."""
    if target is not None:
        for done in outcome.done:
            target.write(done.data)
        target.flush()
    total = len(plan.jobs) + len(plan.failures)
    finish(outcome, total=total, skipped=plan.skipped, verb=verb, quiet=quiet)


def finish(outcome: Outcome, *, total: int, skipped: int, verb: str, quiet: bool) -> None:
    """Say what was done and end the command with its exit code."""
    done = outcome.done
    if not quiet:
        if len(done) == 1 and total == 1:
            click.echo(done[0].text, err=True)
        elif done:
            seconds, size = sum(d.seconds for d in done), sum(d.size for d in done)
            rate = f", {size * 8 / seconds / 1000:.2f} kbit/s" if seconds else ""
            click.echo(
                f"{verb} {len(done)} files: {seconds:.1f} s of audio, {size} bytes of .afc{rate}, "
                f"in {outcome.elapsed:.1f} s",
                err=True,
            )
        if skipped:
            click.echo(f"Skipped {skipped} that existed already.", err=True)
    if outcome.interrupted:
        left = total - len(done) - len(outcome.failures)
        click.echo(
            f"Interrupted: {len(done)} of {total} files are done and whole, {left} not started or "
            "given up; --skip-existing goes on from here.",
            err=True,
        )
    if outcome.failures and total == 1 and not done:
        click.echo(f"Error: {outcome.failures[0]}", err=True)
    elif outcome.failures:
        click.echo(f"Error: {len(outcome.failures)} of {total} files failed:", err=True)
        for line in outcome.failures:
            click.echo(f"  {line}", err=True)
    if outcome.exit_code:
        click.get_current_context().exit(outcome.exit_code)


Results = Iterator[tuple[Any, Done | str]]


def _guarded(work: Callable[[Any], Done], task: Any) -> Done | str:
    try:
        return work(task)
    except Exception as error:  # noqa: BLE001 - one bad file must not end the others
        return describe(error, task.name)


def _one_by_one(
    tasks: Sequence[Task], work: Callable[[Any], Done], jobs: int, threads: int | None
) -> Results:
    set_threads(threads)
    for task in tasks:
        yield task, _guarded(work, task)


def _in_processes(
    tasks: Sequence[Task], work: Callable[[Any], Done], jobs: int, threads: int | None
) -> Results:
    import multiprocessing

    # spawn: forking a process in which torch has started threads can deadlock
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, context, initializer=_start_worker, initargs=(threads, jobs))
    futures: dict[Future[Done | str], Task] = {}
    try:
        # Ctrl-C reaches every process of a terminal. Workers finish the file they are at; they
        # inherit deafness to it, because they could be hit before their first line runs.
        with _deaf_to_interrupts():
            for task in tasks:
                futures[pool.submit(_guarded, work, task)] = task
        try:
            for future in as_completed(futures):
                task = futures.pop(future)
                yield task, _result(future, task)
        except KeyboardInterrupt:
            pool.shutdown(wait=True, cancel_futures=True)
            for future, task in futures.items():
                if not future.cancelled():
                    yield task, _result(future, task)
            raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _result(future: Future[Done | str], task: Task) -> Done | str:
    try:
        return future.result()
    except Exception as error:  # noqa: BLE001 - a worker that died, e.g. out of memory
        return describe(error, task.name)


def _start_worker(threads: int | None, jobs: int) -> None:
    set_threads(threads, jobs)


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
