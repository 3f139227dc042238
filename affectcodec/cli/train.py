# SPDX-License-Identifier: Apache-2.0
"""``affectcodec train``: a training run from manifests to exported weights."""

from __future__ import annotations

import difflib
import functools
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from affectcodec.cli.batch import set_threads
from affectcodec.cli.errors import EXIT_INTERRUPTED

if TYPE_CHECKING:
    from affectcodec.training.cache import Clip
    from affectcodec.training.config import TrainConfig


@click.command(short_help="Train a codec.")
@click.option(
    "--manifest",
    "manifests",
    multiple=True,
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="CSV with the columns path, split and, where known, dataset, speaker, emotion. Paths are "
    "relative to it. May be repeated.",
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
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the run: configuration, checkpoints, curves.",
)
@click.option(
    "--cache",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for prepared clips, shared by runs. Default: OUT/cache.",
)
@click.option("--steps", type=click.IntRange(min=1), help="Optimizer steps in all.")
@click.option(
    "--config",
    "config_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
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
    "--threads",
    type=click.IntRange(min=1),
    help="Threads; when clips are prepared, processes. Default: all cores.",
)
@click.option(
    "--export",
    type=click.Path(file_okay=False, path_type=Path),
    help="At the end write weights here, for --weights of the other commands.",
)
@click.option("--show-config", is_flag=True, help="Print the configuration and stop.")
def train(
    manifests: tuple[Path, ...],
    train_split: str,
    dev_split: str,
    out: Path,
    cache: Path | None,
    steps: int | None,
    config_file: Path | None,
    settings: tuple[str, ...],
    dataset_weights: tuple[str, ...],
    resume: bool,
    threads: int | None,
    export: Path | None,
    show_config: bool,
) -> None:
    """Train a codec on the clips of one or more manifests.

    The first run on a manifest prepares its clips (resampling, F0), later ones reuse them. Ctrl-C
    saves a checkpoint; --resume goes on from it to the step. Follow the curves with
    `tensorboard --logdir OUT`. Needs the extra: pip install 'affectcodec[train]'.

    \b
    Examples:
      affectcodec train --manifest data/manifest.csv --out runs/first --export weights/first
      affectcodec train --manifest data/manifest.csv --out runs/first --resume
      affectcodec train --manifest a.csv --manifest b.csv --out runs/small --steps 5000 \\
          --set batch_size=8 --set loss.f0=0.3 --datasets-weights a=2 --datasets-weights b=1
      affectcodec train --manifest a.csv --out runs/x --show-config > base.json
      affectcodec encode speech.wav --weights weights/first

    Exit code: 0 done, 1 error, 2 wrong use, 130 interrupted (a checkpoint is saved).
    """
    from affectcodec.training.config import TrainConfig

    stored = _stored_run(out, resume)
    base = TrainConfig().to_dict() if stored is None else stored
    values = _configuration(base, config_file, settings, dataset_weights, steps)
    try:
        config = TrainConfig.from_dict(values)
    except (KeyError, TypeError, ValueError) as error:
        raise click.UsageError(f"the configuration is not valid: {error}") from error
    if show_config:
        click.echo(json.dumps(config.to_dict(), indent=2))
        return
    _need("tensorboard", "training curves")
    _need("pyworld", "fundamental frequency as a training target")
    set_threads(threads)
    clips = _clips(manifests, train_split, required=True)
    dev_clips = [] if dev_split == "none" else _clips(manifests, dev_split, required=False)
    _run(config, clips, dev_clips, out, cache or out / "cache", threads, resume, export)


def _run(
    config: TrainConfig,
    clips: Sequence[Clip],
    dev_clips: Sequence[Clip],
    out: Path,
    cache: Path,
    threads: int | None,
    resume: bool,
    export: Path | None,
) -> None:
    from affectcodec.training.cache import ClipCache
    from affectcodec.training.trainer import Trainer

    progress = sys.stderr.isatty()
    build = functools.partial(
        ClipCache.build, config=config.codec, root=cache, progress=progress, workers=threads
    )
    train_cache = build(clips, speeds=config.speeds)
    dev_cache = build(dev_clips, speeds=(1.0,)) if dev_clips else None
    for name, built in (("training", train_cache), ("evaluation", dev_cache)):
        if built is not None:
            click.echo(
                f"{name}: {len(built.clips)} clips, {built.seconds / 60:.1f} minutes", err=True
            )
            for path, reason in built.skipped[:5]:
                click.echo(f"  skipped {path}: {reason}", err=True)
            if len(built.skipped) > 5:
                click.echo(f"  skipped {len(built.skipped) - 5} more", err=True)
    trainer = Trainer(config, train_cache, dev_cache, out)
    if resume:
        trainer.resume()
        click.echo(f"going on from step {trainer.step}", err=True)
    trainer.run(progress=progress)
    if trainer.step < config.steps:
        click.echo(
            f"Interrupted at step {trainer.step} of {config.steps}; a checkpoint is saved, "
            "--resume goes on from it.",
            err=True,
        )
        click.get_current_context().exit(EXIT_INTERRUPTED)
    click.echo(f"trained {trainer.step} steps into {out}", err=True)
    if export is not None:
        trainer.export(export)
        click.echo(f"weights: {export}", err=True)


def _stored_run(out: Path, resume: bool) -> dict[str, Any] | None:
    """Configuration of the run in ``out``, None if there is none."""
    from affectcodec.training.run_state import latest_checkpoint

    checkpoint = latest_checkpoint(out) if out.is_dir() else None
    if checkpoint is None:
        if resume:
            raise click.UsageError(f"--resume: no checkpoint in {out}; start without it.")
        return None
    if not resume:
        raise click.UsageError(
            f"--out: {out} holds a run ({checkpoint.name}); add --resume to go on with it, or name "
            "another folder."
        )
    try:
        stored: dict[str, Any] = json.loads((out / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise click.ClickException(f"{out / 'config.json'}: cannot be read: {error}") from error
    return stored


def _configuration(
    base: dict[str, Any],
    config_file: Path | None,
    settings: Sequence[str],
    dataset_weights: Sequence[str],
    steps: int | None,
) -> dict[str, Any]:
    """``base`` with everything laid over it, the more specific the later."""
    values: dict[str, Any] = json.loads(json.dumps(base))
    if config_file is not None:
        try:
            given = json.loads(config_file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise click.BadParameter(
                f"{config_file}: not JSON: {error}", param_hint="--config"
            ) from error
        if not isinstance(given, dict):
            raise click.BadParameter(
                f"{config_file}: wanted a JSON object, got {type(given).__name__}",
                param_hint="--config",
            )
        _merge(values, given, "", "--config")
    for setting in settings:
        key, separator, text = setting.partition("=")
        if not separator:
            raise click.BadParameter(f"{setting!r}: wanted KEY=VALUE", param_hint="--set")
        nested: Any = _value(text)
        for part in reversed(key.strip().split(".")):
            nested = {part: nested}
        _merge(values, nested, "", "--set")
    if dataset_weights:
        values["dataset_weights"] = dict(_weight(pair) for pair in dataset_weights)
    if steps is not None:
        values["steps"] = steps
    return values


def _merge(values: dict[str, Any], given: Mapping[str, Any], prefix: str, option: str) -> None:
    for key, value in given.items():
        name = f"{prefix}{key}"
        if key not in values:
            near = difflib.get_close_matches(key, values, 1, 0.5)
            hint = f"; did you mean {prefix}{near[0]}?" if near else ""
            raise click.BadParameter(
                f"unknown key {name!r}{hint} There are {', '.join(values)}.", param_hint=option
            )
        if isinstance(values[key], dict) and name != "dataset_weights":
            if not isinstance(value, Mapping):
                raise click.BadParameter(
                    f"{name!r} is a group of {', '.join(values[key])}; set {name}.NAME=VALUE",
                    param_hint=option,
                )
            _merge(values[key], value, f"{name}.", option)
        else:
            values[key] = value


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _weight(pair: str) -> tuple[str, float]:
    name, separator, text = pair.partition("=")
    try:
        weight = float(text)
    except ValueError:
        weight = -1.0
    if not separator or not name or not 0 <= weight < float("inf"):
        raise click.BadParameter(
            f"{pair!r}: wanted NAME=WEIGHT with a weight of 0 or more",
            param_hint="--datasets-weights",
        )
    return name, weight


def _clips(manifests: Sequence[Path], split: str, *, required: bool) -> list[Clip]:
    from affectcodec.training.cache import read_manifest

    clips: list[Clip] = []
    reasons: list[str] = []
    for manifest in manifests:
        try:
            clips += read_manifest(manifest, split)
        except ValueError as error:
            reasons.append(str(error))
    if required and not clips:
        raise click.ClickException("; ".join(reasons))
    for reason in reasons:
        click.echo(f"Note: {reason}", err=True)
    return clips


def _need(package: str, purpose: str) -> None:
    import importlib
    import warnings

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pyworld complains about its own imports
            importlib.import_module(package)
    except ImportError as error:
        raise click.ClickException(
            f"training needs {package} ({purpose}), which does not import ({error}): "
            "pip install 'affectcodec[train]'"
        ) from error
