# SPDX-License-Identifier: Apache-2.0
"""Ten million composite tokens to flat ids and back, for each vocabulary.

    python -m benchmarks.tokens_rate
    python -m benchmarks.tokens_rate --tokens 1000000 --threads 1

Printed are the least and the median of the wall-clock times, and the processor time of the fastest,
which other work on the machine disturbs less. The codes that come back are compared with the first.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import TypeVar

import click
import torch

from affectcodec.config import BDRFSQConfig, Block
from affectcodec.tokens import LAYOUTS, Pattern, Tokens, Vocabulary
from benchmarks import machine

Result = TypeVar("Result")
BAR = 0.2  # seconds for ten million tokens, each way


def make_tokens(count: int, clips: int, stages: int = 8) -> Tokens:
    """Random codes of the default quantizer: ``count`` in all, in clips of equal length."""
    quantizer = BDRFSQConfig(
        blocks=(Block("emotion", 256, (2, 2, 2)), Block("acoustic", 768, (4,) * 6)),
        num_stages=stages,
    )
    frames = count // (clips * stages)
    shape = (clips, stages, frames)
    codes = torch.randint(0, quantizer.codebook_size, shape, dtype=torch.int32)
    lengths = torch.full((clips,), frames)
    counts = dict.fromkeys(quantizer.names, stages)
    return Tokens(codes, lengths, (lengths - 1) * 320, counts, quantizer, "0" * 16, 16000, 320)


def timed(work: Callable[[], Result], rounds: int) -> tuple[list[float], float, Result]:
    """Wall-clock seconds of each round, the least processor seconds, and the result."""
    walls, cpu = [], float("inf")
    result = work()
    for _ in range(rounds):
        start, start_cpu = time.perf_counter(), time.process_time()
        result = work()
        walls.append(time.perf_counter() - start)
        cpu = min(cpu, time.process_time() - start_cpu)
    return walls, cpu, result


@click.command()
@click.option("--tokens", "count", type=click.IntRange(min=800), default=10_000_000)
@click.option("--clips", type=click.IntRange(min=1), default=100, show_default=True)
@click.option("--rounds", type=click.IntRange(min=1), default=9, show_default=True)
@click.option("--threads", type=click.IntRange(min=1), help="Default: a core each.")
def main(count: int, clips: int, rounds: int, threads: int | None) -> None:
    """Time ``Pattern("flatten", ...)`` both ways."""
    torch.set_num_threads(threads or machine.cores())
    torch.manual_seed(0)
    tokens = make_tokens(count, clips)
    total = tokens.codes.numel()
    click.echo(f"{machine.processor()}, {torch.get_num_threads()} threads, {total} tokens")
    click.echo(f"load at start: {machine.describe()['load_at_start']}")
    for layout in LAYOUTS:
        pattern = Pattern("flatten", Vocabulary.of(tokens, layout))
        there, there_cpu, ids = timed(lambda p=pattern: p.encode(tokens), rounds)  # type: ignore[misc]
        back, back_cpu, codes = timed(lambda p=pattern, i=ids: p.decode(i), rounds)  # type: ignore[misc]
        if not torch.equal(codes.codes, tokens.codes):
            raise AssertionError(f"{layout}: other codes came back")
        bar = BAR * total / 1e7
        met = "met" if min(there) < bar and min(back) < bar else "not met"
        click.echo(
            f"{layout:7} flatten {min(there):.3f} s (median {statistics.median(there):.3f}, "
            f"processor {there_cpu:.3f}), unflatten {min(back):.3f} s (median "
            f"{statistics.median(back):.3f}, processor {back_cpu:.3f}); bar {bar:.3f}: {met}"
        )


if __name__ == "__main__":
    main()
