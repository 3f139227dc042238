# SPDX-License-Identifier: Apache-2.0
"""What ``affectcodec train`` is given to train on, found and prepared."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from affectcodec.training.cache import Clip, ClipCache
    from affectcodec.training.config import TrainConfig
    from affectcodec.training.data_report import DataReport


@dataclass(frozen=True)
class Sources:
    """Where clips come from, as the user named it."""

    manifests: Sequence[Path] = ()
    folders: Sequence[Path] = ()
    hubs: Sequence[str] = ()
    shards: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.manifests or self.folders or self.hubs or self.shards)

    def clips(self, split: str, report: DataReport) -> tuple[list[Clip], list[str]]:
        """Clips of a split, and why some sources have none."""
        from affectcodec.training.data import folder_clips, hub_clips, manifest_clips

        clips: list[Clip] = []
        reasons: list[str] = []
        for manifest in self.manifests:
            try:
                clips += manifest_clips(manifest, split, report)
            except ValueError as error:
                reasons.append(str(error))
        for folder in self.folders:
            found = folder_clips(folder, split, report)
            clips += found
            if not found:
                reasons.append(f"folder {folder}: no clip in split {split!r}")
        for hub in self.hubs:
            rows = hub_clips(hub, split, report)
            clips += rows
            if not rows:
                reasons.append(f"data set {hub}: no clip in split {split!r}")
        return clips, reasons


@dataclass(frozen=True)
class Prepared:
    """Caches of a run, and its shards."""

    train: ClipCache | None
    dev: ClipCache | None
    shards: dict[str, list[str]]


def named_shards(given: Sequence[str]) -> dict[str, list[str]]:
    """``NAME=PATTERN`` of the command line by name, patterns expanded.

    Raises:
        click.BadParameter: on another form, or a pattern that names nothing.
    """
    from affectcodec.training.data_shards import expand_shards

    patterns: dict[str, list[str]] = {}
    for text in given:
        name, separator, pattern = text.partition("=")
        if not separator or not name or not pattern:
            raise click.BadParameter(f"{text!r}: wanted NAME=PATTERN", param_hint="--shards")
        patterns.setdefault(name, []).append(pattern)
    try:
        return {name: expand_shards(found) for name, found in patterns.items()}
    except (ValueError, ImportError) as error:
        raise click.BadParameter(str(error), param_hint="--shards") from error


def prepare(
    sources: Sources,
    splits: tuple[str, str],
    config: TrainConfig,
    cache: Path,
    report: DataReport,
    *,
    workers: int | None,
    leads: bool,
) -> Prepared:
    """Open the caches of a run, made first if they are not there.

    Of the processes of one machine the first makes them, and the others wait.

    Raises:
        click.ClickException: if there is nothing to train on.
    """
    train_split, dev_split = splits
    clips, reasons = sources.clips(train_split, report)
    if not clips and not sources.shards:
        raise click.ClickException("; ".join(reasons) or "no clips: name --manifest or --folder")
    dev_clips: list[Clip] = []
    if dev_split != "none":
        dev_clips, more = sources.clips(dev_split, report)
        reasons += more
    if leads:
        for reason in reasons:
            click.echo(f"Note: {reason}", err=True)
    opened = []
    for name, chosen, speeds in (
        ("training", clips, config.speeds),
        ("evaluation", dev_clips, (1.0,)),
    ):
        built = _cache(chosen, config, cache, speeds, workers) if chosen else None
        opened.append(built)
        if built is not None:
            built.describe(report)
            if leads:
                click.echo(
                    f"{name}: {len(built.clips)} clips, {built.seconds / 60:.1f} minutes", err=True
                )
    if leads:
        for shards, found in sources.shards.items():
            click.echo(f"{shards}: {len(found)} shards, read as a stream", err=True)
        for line in report.summary():
            click.echo(line, err=True)
    shard_lists = {name: list(found) for name, found in sources.shards.items()}
    return Prepared(opened[0], opened[1], shard_lists)


def _cache(
    clips: Sequence[Clip],
    config: TrainConfig,
    root: Path,
    speeds: Sequence[float],
    workers: int | None,
) -> ClipCache:
    from affectcodec.training.cache import ClipCache

    first = int(os.environ.get("LOCAL_RANK", "0")) == 0
    while not first:
        found = ClipCache.find(clips, config.codec, root, speeds)
        if found is not None:
            return found
        time.sleep(1)  # the first process makes it; if that fails, the launcher ends this one
    return ClipCache.build(
        clips,
        config.codec,
        root,
        speeds=speeds,
        progress=sys.stderr.isatty(),
        workers=workers,
    )
