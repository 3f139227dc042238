# SPDX-License-Identifier: Apache-2.0
"""Options that several commands share, and what is made of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from affectcodec.bitstream import PayloadCoder
    from affectcodec.codec import AffectCodec
    from affectcodec.entropy import PriorCoder

Command = TypeVar("Command", bound=Callable[..., Any])
Stages = int | Mapping[str, int] | None


class StagesType(click.ParamType):
    """``8`` or ``emotion=8,acoustic=1``."""

    name = "stages"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | dict[str, int]:
        if isinstance(value, int | dict):
            return value
        try:
            if "=" not in value:
                return int(value)
            pairs = [part.partition("=") for part in value.split(",") if part.strip()]
            return {name.strip(): int(count) for name, _, count in pairs}
        except ValueError:
            self.fail(
                f"{value!r} is neither a number nor BLOCK=NUMBER pairs: write 4, or "
                "emotion=8,acoustic=1",
                param,
                ctx,
            )


def split_output(
    inputs: tuple[str, ...], output: str | None, read: tuple[str, ...], write: tuple[str, ...]
) -> tuple[tuple[str, ...], str | None]:
    """Take ``IN OUT`` as people type it: the second of two names is the output if its extension is
    one that the command writes and never reads, or if both are ``-``."""
    if output is not None or len(inputs) != 2:
        return inputs, output
    last = inputs[1].lower()
    is_output = last.endswith(write) and not last.endswith(read)
    if is_output or inputs == ("-", "-"):
        return inputs[:1], inputs[1]
    return inputs, output


def rate_options(command: Command) -> Command:
    """``--kbps`` and ``--stages`` of commands that encode; :func:`resolve_rate` reads them."""
    kbps = click.option(
        "--kbps",
        type=click.FloatRange(min=0, min_open=True),
        help="Bit rate: the highest one that does not exceed this. Default: the highest of all.",
    )
    stages = click.option(
        "--stages",
        type=StagesType(),
        help="Stages instead of a rate: 4, or for each block emotion=8,acoustic=1.",
    )
    return kbps(stages(command))


def shared_options(command: Command) -> Command:
    """Options of encode and decode alike, shown last in the help."""
    for option in reversed(
        (
            click.option(
                "--weights",
                metavar="NAME|FOLDER",
                help="Weights: the name of shipped ones, or a folder. Default: the shipped ones.",
            ),
            click.option("--overwrite", is_flag=True, help="Replace outputs that exist."),
            click.option(
                "--skip-existing", is_flag=True, help="Leave out files whose output exists."
            ),
            click.option(
                "--jobs",
                "-j",
                type=click.IntRange(min=1),
                default=1,
                show_default=True,
                help="Files at a time, each in a process of its own.",
            ),
            click.option(
                "--threads",
                type=click.IntRange(min=1),
                help="Threads a process. Default: all cores, shared among the jobs.",
            ),
            click.option("--quiet", "-q", is_flag=True, help="Only warnings and errors."),
        )
    ):
        command = option(command)
    return command


def check_existing_options(overwrite: bool, skip_existing: bool) -> None:
    """Refuse both at once."""
    if overwrite and skip_existing:
        raise click.UsageError("--overwrite and --skip-existing exclude each other.")


@functools.lru_cache(maxsize=1)
def load_codec(weights: str | None) -> AffectCodec:
    """The codec of these weights; a process loads it once."""
    from affectcodec.codec import AffectCodec

    return AffectCodec.from_pretrained(weights)


def checked_codec(weights: str | None) -> AffectCodec:
    """As ``load_codec``, for the first use in a command.

    Raises:
        click.UsageError: ``--weights`` names none.
    """
    from affectcodec.checkpoint import CheckpointError, resolve, shipped_names

    try:
        resolve(weights)
    except CheckpointError as error:
        if weights is None:
            raise click.ClickException(
                "this installation has no shipped weights; name a folder with --weights"
            ) from error
        raise click.BadParameter(
            f"no weights at {weights!r}; wanted a folder with config.json and model.safetensors, "
            f"or one of the shipped names {shipped_names()}",
            param_hint="--weights",
        ) from error
    return load_codec(weights)


def load_coder(weights: str | None) -> PriorCoder:
    """The entropy coder of these weights.

    Raises:
        CheckpointError: there is none beside them.
        ImportError: it needs a package that is not installed.
    """
    from affectcodec.entropy import load_coder as load

    return load(weights)


def checked_coder(weights: str | None) -> PriorCoder:
    """As ``load_coder``, for the first use in a command.

    Raises:
        click.UsageError: the weights have none, or a package is missing.
    """
    try:
        return load_coder(weights)
    except (ImportError, ValueError) as error:
        raise click.BadParameter(str(error), param_hint="--compact") from error


def coder_finder(weights: str | None) -> Callable[[str], PayloadCoder]:
    """What gives a reader the coder of an id: that of these weights, or a shipped one."""

    def find(coder_id: str) -> PayloadCoder:
        from affectcodec.checkpoint import CheckpointError
        from affectcodec.entropy import find_prior

        with suppress(CheckpointError):  # no prior beside them: it may be a shipped one
            coder = load_coder(weights)
            if coder.id == coder_id:
                return coder
        return find_prior(coder_id)

    return find


def resolve_rate(codec: AffectCodec, stages: Stages, kbps: float | None) -> dict[str, int] | None:
    """Stage counts of the options ``--stages`` and ``--kbps``; None if neither is given.

    Raises:
        click.UsageError: both are given, or this codec has no such stages or rate.
    """
    if stages is not None and kbps is not None:
        raise click.UsageError("--stages and --kbps both set the rate; give one of them.")
    if stages is None and kbps is None:
        return None
    try:
        if kbps is not None:
            stages = codec.config.stages_for_kbps(kbps)
        return codec.config.quantizer.resolve_stages(stages)
    except (TypeError, ValueError) as error:
        hint = "--kbps" if kbps is not None else "--stages"
        text = str(error).removeprefix("kbps: ").removeprefix("stages: ")
        raise click.BadParameter(text, param_hint=hint) from error
