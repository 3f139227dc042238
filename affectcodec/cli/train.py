# SPDX-License-Identifier: Apache-2.0
"""``affectcodec train``: a training run from clips to exported weights."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from affectcodec.cli.batch import set_threads
from affectcodec.cli.errors import EXIT_INTERRUPTED
from affectcodec.cli.train_config import base_of, layered, stored_run
from affectcodec.cli.train_data import Sources, named_shards, prepare

if TYPE_CHECKING:
    from affectcodec.training.config import TrainConfig
    from affectcodec.training.distributed import World

_FOLDER = click.Path(file_okay=False, path_type=Path)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command(short_help="Train a codec.")
@click.option(
    "--manifest",
    "manifests",
    multiple=True,
    type=_FILE,
    help="CSV or JSON lines (.jsonl) with path, split and, where known, dataset, speaker, emotion, "
    "arousal, valence. Paths are relative to it. May be repeated.",
)
@click.option(
    "--folder",
    "folders",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of audio files; its subfolders train and dev are splits. May be repeated.",
)
@click.option(
    "--hub",
    "hubs",
    multiple=True,
    metavar="NAME",
    help="Hugging Face data set with a column audio: a folder saved by it, or a name. Needs the "
    "extra data. May be repeated.",
)
@click.option(
    "--shards",
    multiple=True,
    metavar="NAME=PATTERN",
    help="Corpus NAME as WebDataset tar shards, read as a stream: a folder, a pattern, a range "
    "like part-{000..031}.tar, or URLs. Needs the extra data. May be repeated.",
)
@click.option("--train-split", default="train", show_default=True, help="Split to train on.")
@click.option(
    "--dev-split",
    default="dev",
    show_default=True,
    help="Split to evaluate on during training; 'none' for no evaluation.",
)
@click.option(
    "--out",
    type=_FOLDER,
    help="Folder of the run: configuration, checkpoints, curves, data.json (what became of the "
    "data).",
)
@click.option(
    "--cache",
    type=_FOLDER,
    help="Folder for prepared clips, shared by runs. Default: OUT/cache.",
)
@click.option(
    "--preset", metavar="NAME", help="Codec to train: stream, stream-large or paper.  [stream]"
)
@click.option(
    "--weights",
    help="Start from these weights: a folder, or shipped ones by name. Discriminators and "
    "optimizers that lie beside them are taken too.",
)
@click.option("--steps", type=click.IntRange(min=1), help="Optimizer steps in all.")
@click.option(
    "--config",
    "config_file",
    type=_FILE,
    help="JSON with any part of the configuration; the rest keeps its default.",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="One value of the configuration, e.g. loss.mel=2. May be repeated.",
)
@click.option(
    "--datasets-weights",
    "dataset_weights",
    multiple=True,
    metavar="NAME=WEIGHT",
    help="How often a dataset is drawn; those not named are then left out. May be repeated.",
)
@click.option("--resume", is_flag=True, help="Go on from the newest checkpoint in OUT.")
@click.option(
    "--device",
    help="cpu, cuda or cuda:N.  [a GPU where there is one; under torchrun one each]",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    help="Threads; when clips are prepared, processes. Default: all cores.",
)
@click.option(
    "--export",
    type=_FOLDER,
    help="At the end write weights here, for --weights of the other commands.",
)
@click.option(
    "--export-warm",
    is_flag=True,
    help="Export discriminators and optimizers too, so that finetuning starts warm.",
)
@click.option("--show-config", is_flag=True, help="Print the configuration and stop.")
@click.option(
    "--dry-run",
    is_flag=True,
    help="Print shapes, parameters, memory and an estimate of the time, and stop; needs no data.",
)
@click.option(
    "--gpus",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="With --dry-run: devices to share the run. A real run has as many as torchrun starts.",
)
@click.option(
    "--tflops",
    type=click.FloatRange(min=0, min_open=True),
    help="With --dry-run: TFLOP/s that a device sustains, to estimate its time.",
)
def train(
    manifests: tuple[Path, ...],
    folders: tuple[Path, ...],
    hubs: tuple[str, ...],
    shards: tuple[str, ...],
    train_split: str,
    dev_split: str,
    out: Path | None,
    cache: Path | None,
    preset: str | None,
    weights: str | None,
    steps: int | None,
    config_file: Path | None,
    settings: tuple[str, ...],
    dataset_weights: tuple[str, ...],
    resume: bool,
    device: str | None,
    threads: int | None,
    export: Path | None,
    export_warm: bool,
    show_config: bool,
    dry_run: bool,
    gpus: int,
    tflops: float | None,
) -> None:
    """Train a codec on the clips of manifests, folders, data sets and shards.

    The first run on some clips prepares them (resampling, F0), later ones reuse that. Clips that
    cannot be used never stop a run: they are skipped, and listed in OUT/data.json with the reason.
    Ctrl-C saves a checkpoint; --resume goes on from it to the bit. Follow the curves with
    `tensorboard --logdir OUT`. Several processes or machines are started with torchrun, which may
    restart them after a failure. Needs the extra: pip install 'affectcodec[train]'.

    \b
    Examples:
      affectcodec train --manifest data/manifest.csv --out runs/first --export weights/first
      affectcodec train --manifest data/manifest.csv --out runs/first --resume
      affectcodec train --folder my/recordings --weights stream --out runs/mine --steps 4000
      affectcodec train --preset paper --dry-run --gpus 8 --set batch_size=96
      torchrun --nproc-per-node 8 --max-restarts 3 -m affectcodec train \\
          --preset paper --shards speech=shards/ --dev-split none --out runs/paper
      affectcodec train --show-config > base.json

    Recipes for whole runs lie in recipes/ of the sources; docs/training.md explains the rest.

    Exit code: 0 done, 1 error, 2 wrong use, 130 interrupted (a checkpoint is saved).
    """
    from affectcodec.training.config import TrainConfig
    from affectcodec.training.distributed import join, leave, was_restarted

    stored = None
    if out is not None and not dry_run:
        stored = stored_run(out, resume, was_restarted())
    elif resume:
        raise click.UsageError("--resume goes on with the run in --out; name it.")
    base = base_of(preset, weights) if stored is None else stored
    values = layered(base, config_file, settings, dataset_weights, steps)
    try:
        config = TrainConfig.from_dict(values)
    except (KeyError, TypeError, ValueError) as error:
        raise click.UsageError(f"the configuration is not valid: {error}") from error
    if show_config:
        click.echo(json.dumps(config.to_dict(), indent=2))
        return
    set_threads(threads)
    if dry_run:
        _print_dry_run(config, gpus, tflops)
        return
    if out is None:
        raise click.UsageError("--out: name the folder of the run.")
    sources = Sources(manifests, folders, hubs, named_shards(shards))
    if not sources:
        raise click.UsageError("name what to train on: --manifest, --folder, --hub or --shards.")
    _need("tensorboard", "training curves")
    places = (out, cache or out / "cache", export)
    try:
        _run(
            config,
            sources,
            (train_split, dev_split),
            places,
            weights=None if stored is not None else weights,
            resume=stored is not None,
            workers=threads,
            warm=export_warm,
            join=lambda: join(device),
        )
    finally:
        leave()


def _run(
    config: TrainConfig,
    sources: Sources,
    splits: tuple[str, str],
    places: tuple[Path, Path, Path | None],
    *,
    weights: str | None,
    resume: bool,
    workers: int | None,
    warm: bool,
    join: Callable[[], World],
) -> None:
    from affectcodec.training.data_report import DataReport
    from affectcodec.training.guard import TrainingError
    from affectcodec.training.trainer import Trainer

    out, cache, export = places
    report = DataReport()
    # Clips are prepared before the processes meet: that may take longer than they wait.
    leads = int(os.environ.get("RANK", "0")) == 0
    found = prepare(sources, splits, config, cache, report, workers=workers, leads=leads)
    world = join()
    trainer = Trainer(
        config, found.train, found.dev, out, shards=found.shards, world=world, report=report
    )
    if resume:
        trainer.resume()
        _say(world, f"going on from step {trainer.step}")
    elif weights is not None:
        taken = trainer.start_from(weights)
        _say(world, f"starting from {weights}{', with its ' if taken else ''}{', '.join(taken)}")
    try:
        trainer.run(progress=sys.stderr.isatty())
    except TrainingError as error:
        raise click.ClickException(str(error)) from error
    for line in report.summary() if world.leads else ():
        click.echo(line, err=True)
    if trainer.step < config.steps:
        _say(
            world,
            f"Interrupted at step {trainer.step} of {config.steps}; a checkpoint is saved, "
            "--resume goes on from it.",
        )
        click.get_current_context().exit(EXIT_INTERRUPTED)
    _say(world, f"trained {trainer.step} steps into {out}")
    if export is not None:
        trainer.export(export, warm=warm)
        _say(world, f"weights: {export}")


def _say(world: World, text: str) -> None:
    if world.leads:
        click.echo(text, err=True)


def _print_dry_run(config: TrainConfig, gpus: int, tflops: float | None) -> None:
    from affectcodec.training.dry_run import dry_run

    try:
        found = dry_run(config, gpus)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    for line in found.lines(tflops):
        click.echo(line)


def _need(package: str, purpose: str) -> None:
    import importlib

    try:
        importlib.import_module(package)
    except ImportError as error:
        raise click.ClickException(
            f"training needs {package} ({purpose}), which does not import ({error}): "
            "pip install 'affectcodec[train]'"
        ) from error
