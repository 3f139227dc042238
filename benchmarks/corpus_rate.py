# SPDX-License-Identifier: Apache-2.0
"""How fast a corpus becomes tokens, and what 100,000 hours cost at that rate.

    python -m benchmarks.corpus_rate                    # one process, then both engines
    python -m benchmarks.corpus_rate --engine local --minutes 30

Clips of 2 to 15 s are generated. One process works on them first, without any engine; then each
engine with a process a core. Rates are taken between the first parts and the last, so that the
start of processes, which a long run pays once, is left out; ``with start`` has it. The rate of one
process is also given by its processor time, which other work on the machine hardly disturbs.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

from benchmarks import corpus_watch, machine
from benchmarks.corpus_clips import make_corpus

HOURS = 100_000
SECONDS = (2.0, 15.0)
BAR = 0.85  # of cores x the rate of one process

# What a worker does, without an engine: a line of JSON with wall-clock and processor seconds.
ALONE = """
import json, sys, time, torch
from pathlib import Path
from affectcodec.codec import AffectCodec
from affectcodec.corpus.finish import finish
from affectcodec.corpus.plan import Plan, Settings
from affectcodec.corpus.work import do_part
torch.set_num_threads(1)
codec = AffectCodec.from_pretrained()
stages = codec.config.quantizer.resolve_stages(None)
settings = Settings(sys.argv[1], None, codec.fingerprint, stages, clips_per_part=int(sys.argv[3]))
plan = Plan.make(Path(sys.argv[2]), settings)
wall = cpu = None
for number, part in plan.parts():
    do_part(plan.folder, number, part, settings, codec)
    if number == 0:
        wall, cpu = time.perf_counter(), time.process_time()
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
samples = [p["samples"] for p in finish(plan, codec.config.sample_rate)["files"]]
print(json.dumps({"wall": wall, "cpu": cpu, "seconds": sum(samples[1:]) / 16000}))
"""


def alone(source: Path, target: Path, clips_per_part: int) -> tuple[float, float]:
    """Audio seconds a second, and a second of processor time, of one process of one thread."""
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(source), str(target), str(clips_per_part)],
        check=True,
        capture_output=True,
        text=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    return found["seconds"] / found["wall"], found["seconds"] / found["cpu"]


def cost(rate: float) -> str:
    """The table of the cost model for a rate of one core."""
    core_hours = HOURS / rate
    lines = [
        f"{HOURS:,} hours at {rate:.0f} s of audio a core-second: {core_hours:,.0f} core-hours"
    ]
    for cores in (2, 16, 64, 512):
        hours = core_hours / (BAR * cores)
        lines.append(f"  {cores:4} cores at {BAR:.0%}: {hours:,.1f} h ({hours / 24:,.1f} days)")
    return "\n".join(lines)


@click.command()
@click.option("--engine", type=click.Choice(["none", "local", "ray", "both"]), default="both")
@click.option("--minutes", type=click.FloatRange(min=1), default=20.0, show_default=True)
@click.option("--clips-per-part", type=click.IntRange(min=1), default=8, show_default=True)
def main(engine: str, minutes: float, clips_per_part: int) -> None:
    """Rates of one process and of the engines, and the cost of a large corpus."""
    cores = machine.cores()
    about = machine.describe()
    click.echo(
        f"{about['processor']}, {cores} cores, torch {about['packages'].get('torch')}, "
        f"load at start {about['load_at_start']}"
    )
    work = Path(tempfile.mkdtemp(prefix="corpus-rate-"))
    try:
        count = round(minutes * 60 * 2 / sum(SECONDS))
        make_corpus(work / "corpus", count, seconds=SECONDS, broken_share=0)
        wall, processor = alone(work / "corpus", work / "alone", clips_per_part)
        click.echo(
            f"one process: {wall:.1f} s of audio a second, {processor:.1f} a processor second"
        )
        for name in {"none": [], "both": ["local", "ray"]}.get(engine, [engine]):
            target = work / name
            more = ("--engine", name, "-j", str(cores), "--clips-per-part", str(clips_per_part))
            run = corpus_watch.start(corpus_watch.tokenize(work / "corpus", target, *more), target)
            if run.wait(3600):
                raise click.ClickException(run.log.read_text()[-3000:])
            seconds = json.loads((target / "manifest.json").read_text())["hours"] * 3600
            steady = corpus_watch.steady_rate(target, cores)
            share = steady / (cores * wall)
            click.echo(
                f"{name}: {steady:.1f} s of audio a second, {share:.0%} of {cores} x one process "
                f"({'met' if share >= BAR else 'not met'}: {BAR:.0%}); with start "
                f"{seconds / (time.monotonic() - run.started):.1f}; memory x "
                f"{corpus_watch.growth(run.memory, -(-count // clips_per_part)):.2f}"
            )
        click.echo(cost(processor))
        click.echo(f"load at end {machine.describe()['load_at_start']}")
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
