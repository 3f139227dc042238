# SPDX-License-Identifier: Apache-2.0
"""``affectcodec tokenize`` killed at random moments and resumed, beside an undisturbed run.

    python -m benchmarks.corpus_kills                         # 20,000 clips, both engines
    python -m benchmarks.corpus_kills --engine local --clips 2000 --kills 4

Clips are generated, 1 % of them broken in 16 ways. Each engine runs once undisturbed and once under
SIGKILL. All files of both outputs must have the same checksums, every clip must be in the output
once or in quarantine once, and memory must stay where it was. The exit status says whether all of
it held.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import click

from benchmarks import corpus_watch, machine
from benchmarks.corpus_clips import BROKEN, MAX_SECONDS, Corpus, make_corpus

_MOST_GROWTH = 1.10
_TIMEOUT = 3600.0


def options(engine: str, clips_per_part: int, jobs: int) -> list[str]:
    """Options of every run."""
    return [
        *("--engine", engine, "-j", str(jobs), "--clips-per-part", str(clips_per_part)),
        *("--max-seconds", f"{MAX_SECONDS:g}"),
    ]


def undisturbed(corpus: Corpus, target: Path, more: list[str], jobs: int) -> dict[str, Any]:
    """One run to its end, and its figures.

    Raises:
        RuntimeError: if the command fails.
    """
    run = corpus_watch.start(corpus_watch.tokenize(corpus.root, target, *more), target)
    code = run.wait(_TIMEOUT)
    wall = time.monotonic() - run.started
    if code:
        raise RuntimeError(f"exit status {code}:\n{run.log.read_text()[-3000:]}")
    hours = json.loads((target / "manifest.json").read_text())["hours"]
    return {
        "seconds": round(wall, 1),
        "audio_seconds": round(hours * 3600, 1),
        "audio_seconds_a_second": round(hours * 3600 / wall, 1),
        "without_start": round(corpus_watch.steady_rate(target, jobs), 1),
        "memory_mb": [round(mb) for _, mb in run.memory][:: max(1, len(run.memory) // 20)],
        "memory_growth": round(corpus_watch.growth(run.memory, _parts(corpus, more)), 3),
    }


def killed(
    corpus: Corpus, target: Path, more: list[str], kills: int, seed: int
) -> list[dict[str, Any]]:
    """Start, kill and start again, then run to the end; what happened at each kill.

    Half of the kills hit the command alone, which leaves its workers orphans; the others hit every
    process. The next start follows at once. The last kill waits for the last part and so falls
    into the end of the run: checks, quarantine table and manifest.
    """
    pick = random.Random(seed)
    parts = _parts(corpus, more)
    marks = [*sorted(pick.randrange(parts) for _ in range(kills - 1)), parts]
    events: list[dict[str, Any]] = []
    runs = []
    while len(events) < kills:
        mark, everything = marks[len(events)], len(events) % 2 == 1
        run = corpus_watch.start(corpus_watch.tokenize(corpus.root, target, *more), target)
        runs.append(run)
        if pick.random() < 0.2:
            mark = 0  # into the start: the plan is read, processes and weights are loaded
        delay = pick.uniform(0, 3.0) if mark == 0 else pick.uniform(0, 0.3)
        deadline = time.monotonic() + _TIMEOUT
        while corpus_watch.written(target) < mark and run.process.poll() is None:
            if time.monotonic() > deadline:
                run.kill(everything=True)
                raise RuntimeError(f"no part for {_TIMEOUT:g} s:\n{run.log.read_text()[-3000:]}")
            time.sleep(0.02)
        time.sleep(0 if mark == parts else delay)
        alive = run.process.poll() is None
        if not alive and run.process.returncode:
            raise RuntimeError(
                f"exit status {run.process.returncode} after {len(events)} kills:\n"
                f"{run.log.read_text()[-3000:]}"
            )
        run.kill(everything)
        events.append(
            {
                "parts": corpus_watch.written(target),
                "after": round(time.monotonic() - run.started, 2),
                "hit": ("all processes" if everything else "command") if alive else "nothing",
            }
        )
    last = corpus_watch.start(corpus_watch.tokenize(corpus.root, target, *more), target)
    code = last.wait(_TIMEOUT)
    if code:
        raise RuntimeError(f"exit status {code} at the end:\n{last.log.read_text()[-3000:]}")
    deadline = time.monotonic() + 30
    while (left := [p for run in [*runs, last] for p in run.processes()]) and (
        time.monotonic() < deadline
    ):
        time.sleep(0.5)
    events.append({"left_running": len(left)})
    return events


def compare(corpus: Corpus, whole: Path, other: Path) -> dict[str, Any]:
    """Whether two outputs are the same files, and hold every clip once."""
    a, b = corpus_watch.checksums(whole), corpus_watch.checksums(other)
    tokens, quarantine = corpus_watch.ids(other)
    counts = Counter([*tokens, *quarantine])
    return {
        "files": len(a),
        "files_that_differ": sorted(k for k in {*a, *b} if a.get(k) != b.get(k)),
        "clips": len(tokens),
        "quarantine": len(quarantine),
        "lost": len((corpus.good | set(corpus.broken)) - set(counts)),
        "doubled": sum(n > 1 for n in counts.values()),
        "broken_not_in_quarantine": sorted(set(corpus.broken) - set(quarantine)),
        "good_in_quarantine": sorted(set(quarantine) - set(corpus.broken)),
    }


def _parts(corpus: Corpus, more: list[str]) -> int:
    size = int(more[more.index("--clips-per-part") + 1])
    return -(-(len(corpus.good) + len(corpus.broken)) // size)


def _problems(result: dict[str, Any]) -> list[str]:
    found = []
    for key in ("files_that_differ", "lost", "doubled", "broken_not_in_quarantine"):
        if result["output"][key]:
            found.append(f"{key}: {result['output'][key]}")
    if result["output"]["good_in_quarantine"]:
        found.append(f"good_in_quarantine: {result['output']['good_in_quarantine']}")
    if result["undisturbed"]["memory_growth"] > _MOST_GROWTH:
        found.append(f"memory grew by {result['undisturbed']['memory_growth']}")
    if result["kills"][-1]["left_running"]:
        found.append(f"{result['kills'][-1]['left_running']} processes were left running")
    return found


@click.command()
@click.option("--engine", type=click.Choice(["local", "ray", "both"]), default="both")
@click.option("--clips", type=click.IntRange(min=len(BROKEN)), default=20_000, show_default=True)
@click.option("--kills", type=click.IntRange(min=1), default=10, show_default=True)
@click.option("--clips-per-part", type=click.IntRange(min=1), default=64, show_default=True)
@click.option("--jobs", "-j", type=click.IntRange(min=1), help="Default: a core each.")
@click.option("--seed", default=0, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), help="Default: a temporary one.")
@click.option("--record", type=click.Path(path_type=Path), help="Write the figures as JSON.")
def main(
    engine: str,
    clips: int,
    kills: int,
    clips_per_part: int,
    jobs: int | None,
    seed: int,
    folder: Path | None,
    record: Path | None,
) -> None:
    """Kill ``affectcodec tokenize`` at random moments, and compare with an undisturbed run."""
    jobs = jobs or machine.cores()
    work = folder or Path(tempfile.mkdtemp(prefix="corpus-kills-"))
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    results: dict[str, Any] = {
        "machine": machine.describe(),
        "clips": clips,
        "clips_per_part": clips_per_part,
        "jobs": jobs,
    }
    failed = False
    try:
        corpus = make_corpus(work / "corpus", clips, seed=seed)
        first: Path | None = None
        for name in ["local", "ray"] if engine == "both" else [engine]:
            more = options(name, clips_per_part, jobs)
            whole, hit = work / f"{name}-whole", work / f"{name}-killed"
            result: dict[str, Any] = {"undisturbed": undisturbed(corpus, whole, more, jobs)}
            click.echo(f"{name}: undisturbed {json.dumps(result['undisturbed'])}")
            result["kills"] = killed(corpus, hit, more, kills, seed)
            for event in result["kills"]:
                click.echo(f"{name}: {json.dumps(event)}")
            result["output"] = compare(corpus, whole, hit)
            if first is not None:
                same = corpus_watch.checksums(first) == corpus_watch.checksums(whole)
                result["output"]["same_as_the_other_engine"] = same
                failed |= not same
            first = first or whole
            click.echo(f"{name}: output {json.dumps(result['output'])}")
            problems = _problems(result)
            failed |= bool(problems)
            click.echo(f"{name}: {'FAILED: ' + '; '.join(problems) if problems else 'held'}")
            results[name] = result
    finally:
        if folder is None:
            shutil.rmtree(work, ignore_errors=True)
    results["load_at_end"] = machine.describe()["load_at_start"]
    if record is not None:
        record.write_text(json.dumps(results, indent=1) + "\n")
    sys.exit(int(failed))


if __name__ == "__main__":
    main()
