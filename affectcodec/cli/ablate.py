# SPDX-License-Identifier: Apache-2.0
"""``affectcodec ablate``: train what differs in one choice, and compare."""

from __future__ import annotations

import dataclasses
import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from affectcodec.cli.batch import set_threads
from affectcodec.cli.errors import EXIT_INTERRUPTED

if TYPE_CHECKING:
    from affectcodec.evaluation.ablation import Run
    from affectcodec.evaluation.evaluate import Plan

_PROBE_CLIPS = 240  # of each split; what a probe hears is kept in memory for all runs


@click.command(short_help="Train and compare ablations.")
@click.argument(
    "manifests",
    metavar="MANIFEST...",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of all runs and of the comparison.",
)
@click.option(
    "--config",
    "config_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="JSON with any part of the training configuration that all runs share.",
)
@click.option("--steps", type=click.IntRange(min=1), help="Optimizer steps of each run.")
@click.option(
    "--only", "names", multiple=True, metavar="NAME", help="Only this one. May be repeated."
)
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="Of the headline pair.",
)
@click.option(
    "--other-seeds", type=click.IntRange(min=1), default=1, show_default=True, help="Of the others."
)
@click.option("--hours", type=float, help="End this sitting after these; the next one goes on.")
@click.option("--kbps", type=float, default=1.5, show_default=True, help="Rate to compare at.")
@click.option("--split", default="dev", show_default=True, help="Split to compare on.")
@click.option(
    "--dataset",
    "datasets",
    multiple=True,
    help="Compare on clips of this one only. May be repeated.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    help="Compare on at most this many clips of each manifest, evenly spread.",
)
@click.option(
    "--measure",
    "measures",
    multiple=True,
    metavar="NAME",
    help="As of `affectcodec evaluate`. Default: egemaps, whisper, reconstruction.",
)
@click.option(
    "--evaluation-cache",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for measured values. Default: affectcodec in the user's cache.",
)
@click.option("--threads", type=click.IntRange(min=1), help="Threads in training.")
@click.option("--jobs", "-j", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--no-train", is_flag=True, help="Compare what is finished and stop.")
@click.option("--dry-run", is_flag=True, help="State the budget and stop.")
@click.option("--quiet", "-q", is_flag=True, help="No progress bars.")
def ablate(
    manifests: tuple[Path, ...],
    out: Path,
    config_file: Path | None,
    steps: int | None,
    names: tuple[str, ...],
    seeds: int,
    other_seeds: int,
    hours: float | None,
    kbps: float,
    split: str,
    datasets: tuple[str, ...],
    limit: int | None,
    measures: tuple[str, ...],
    evaluation_cache: Path | None,
    threads: int | None,
    jobs: int,
    no_train: bool,
    dry_run: bool,
    quiet: bool,
) -> None:
    """Residual VQ, dense residual FSQ, BD-RFSQ, + several rates, + conditioning: at equal bits and
    equal budget, trained one after the other, then compared: emotion kept by both judges, leakage.
    Runs with blocks are also compared with emotion one stage ahead at the same bits.

    A sitting can be cut off at any time (or by --hours): the same command goes on. What it will
    cost is stated first.

    \b
    Examples:
      affectcodec ablate data/manifest.csv --out runs/ablation --steps 3000 --dry-run
      affectcodec ablate data/manifest.csv --out runs/ablation --steps 3000 --hours 8

    Exit code: 0 all trained and compared, 130 there is more to train.
    """
    from affectcodec.evaluation.ablation import (
        Ledger,
        budget,
        check_equal,
        is_done,
        plan_runs,
        train_all,
    )
    from affectcodec.evaluation.evaluate import Plan
    from affectcodec.training.config import TrainConfig

    values: dict[str, Any] = {}
    if config_file is not None:
        values = json.loads(config_file.read_text(encoding="utf-8"))
    if steps is not None:
        values["steps"] = steps
    runs = plan_runs(
        TrainConfig.from_dict(values), names=names, seeds=seeds, other_seeds=other_seeds
    )
    check_equal(runs)
    if not no_train:
        out.mkdir(parents=True, exist_ok=True)
    ledger = Ledger(out, runs)
    click.echo(budget(out, runs, ledger), err=True)
    if dry_run:
        return
    if not no_train:
        ledger.write()

    def say(text: str) -> None:
        click.echo(text, err=True)

    if no_train:
        runs = [run for run in runs if is_done(out, run)]
        if not runs:
            raise click.UsageError(f"--no-train: no run in {out} is finished; train some first")
        finished = True
    else:
        finished = train_all(runs, out, manifests, ledger, hours=hours, threads=threads, say=say)
    stated = budget(out, runs, ledger)
    if not finished:
        click.echo(stated, err=True)
        click.get_current_context().exit(EXIT_INTERRUPTED)
    set_threads(1)
    plan = Plan(
        manifests=manifests,
        out=out,
        split=split,
        datasets=datasets,
        limit=limit,
        measures=measures or ("egemaps", "whisper", "reconstruction"),
        cache=evaluation_cache,
        jobs=jobs,
        quiet=quiet,
    )
    page = _compare(runs, plan, kbps, stated, config_file)
    click.echo(page)


def _compare(
    runs: list[Run], plan: Plan, kbps: float, stated: str, config_file: Path | None
) -> str:
    """The page of runs that are finished, written into their folder."""
    from affectcodec.evaluation.ablation import WEIGHTS
    from affectcodec.evaluation.ablation_report import codecs_of, compare, markdown
    from affectcodec.evaluation.evaluate import collect
    from affectcodec.evaluation.runs import shown_path, write_results

    out, codecs = plan.out, codecs_of(runs, kbps)
    plan = dataclasses.replace(
        plan,
        codecs=list(codecs.values()),
        weights=[f"{run.label}={out / run.label / WEIGHTS}" for run in runs],
    )
    found = collect(plan)
    compared = compare(found, codecs, kbps, plan.measures)
    leakage = _leakage({run.label: out / run.label / WEIGHTS for run in runs}, found, plan.quiet)
    command = ["affectcodec", "ablate", *(shown_path(path) for path in plan.manifests)]
    command += ["--out", shown_path(out), "--steps", str(runs[0].config.steps)]
    command += ["--config", shown_path(config_file)] if config_file else []
    command += ["--kbps", f"{kbps:g}", "--split", plan.split]
    command += [part for name in plan.datasets for part in ("--dataset", name)]
    command += ["--limit", str(plan.limit)] if plan.limit else []
    command += [part for name in plan.measures for part in ("--measure", name)]
    page = markdown(compared, leakage, stated, shlex.join(command))
    results = {"budget": stated, "compared": compared, "leakage": leakage, "all": found.results}
    write_results(out, "comparison", results, page)
    return page


def _leakage(weights: dict[str, Path], found: Any, quiet: bool) -> dict[str, Any]:
    """Probes of every run at all stages, on evenly spread clips of both splits; none of a quantizer
    whose digits are no parts of a token."""
    from tqdm import tqdm

    from affectcodec.codec import AffectCodec
    from affectcodec.evaluation.probes import PROSODY, Heard, Probed, hear, look_at, probe
    from affectcodec.manifest import evenly

    sides = [evenly(some, _PROBE_CLIPS) for some in (found.train, found.clips)]
    heard: dict[Path, Heard] = {}
    out = {}
    for label, folder in tqdm(weights.items(), unit="run", desc="leakage", disable=quiet):
        codec = AffectCodec.from_pretrained(str(folder))
        if codec.config.quantizer.kind == "rvq":
            continue
        seen: list[list[Probed]] = []
        for side in sides:
            for clip in side:
                if clip.file not in heard:
                    heard[clip.file] = hear(clip, codec.config.hop_length)
            seen.append([look_at(codec, clip, None, heard[clip.file])[0] for clip in side])
        results = probe(seen[0], seen[1], codec.config.quantizer.names)
        first, *others = codec.config.quantizer.names
        recalls = [own["blocks"][others[0]] for own in results["uar"].values()] if others else []
        out[label] = {
            "r2": results["r2"][first],
            "prosody": results["r2"][PROSODY],
            "uar": sum(recalls) / len(recalls) if recalls else float("nan"),
        }
    return out
