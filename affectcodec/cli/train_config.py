# SPDX-License-Identifier: Apache-2.0
"""The configuration of a run, laid together from preset, file, settings and options."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click


def base_of(preset: str | None, weights: str | None) -> dict[str, Any]:
    """Defaults of a run that trains a preset, or goes on from weights.

    Raises:
        click.BadParameter: on an unknown preset, or one that is not that of the weights.
    """
    import dataclasses

    from affectcodec import checkpoint
    from affectcodec.config import CodecConfig
    from affectcodec.training.config import TrainConfig

    config = TrainConfig()
    if weights is not None:
        if preset is not None:
            raise click.BadParameter(
                "the codec is that of --weights; leave --preset out", param_hint="--preset"
            )
        return dataclasses.replace(config, codec=checkpoint.load(weights)[0]).to_dict()
    try:
        codec = CodecConfig.preset(preset or "stream")
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--preset") from error
    return dataclasses.replace(config, codec=codec).to_dict()


def stored_run(out: Path, resume: bool, restarted: bool = False) -> dict[str, Any] | None:
    """Configuration of the run in ``out``, None if there is none.

    Args:
        resume: the user wants to go on with it; without it a run that is there is an error.
        restarted: a launcher starts the command again after a failure.

    Raises:
        click.ClickException: if there is nothing to resume, or something that must not be lost.
    """
    from affectcodec.training.run_state import latest_checkpoint

    checkpoint = latest_checkpoint(out) if out.is_dir() else None
    if checkpoint is None and restarted:
        return None  # it was killed before its first checkpoint
    resume = resume or restarted
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


def layered(
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


_FREE = ("dataset_weights", "dataset_weights_end")


def _merge(values: dict[str, Any], given: Mapping[str, Any], prefix: str, option: str) -> None:
    for key, value in given.items():
        name = f"{prefix}{key}"
        if key not in values:
            near = difflib.get_close_matches(key, values, 1, 0.5)
            hint = f"; did you mean {prefix}{near[0]}?" if near else ""
            raise click.BadParameter(
                f"unknown key {name!r}{hint} There are {', '.join(values)}.", param_hint=option
            )
        if isinstance(values[key], dict) and name not in _FREE:
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
