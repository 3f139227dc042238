# SPDX-License-Identifier: Apache-2.0
"""From the arguments of a command to pairs of source and target."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

STREAM = "-"  # standard input or output


@dataclass(frozen=True)
class Input:
    """One file to read; ``relative`` is its place below an output folder."""

    source: Path
    relative: Path


@dataclass(frozen=True)
class Job:
    """One file to make; ``source`` or ``target`` may be "-"."""

    source: str
    target: str


@dataclass(frozen=True)
class Plan:
    """What a command is to do.

    Attributes:
        jobs: files to make.
        failures: arguments that gave no file, with the reason.
        skipped: files left alone because their target exists.
    """

    jobs: tuple[Job, ...]
    failures: tuple[str, ...] = ()
    skipped: int = 0


def find_inputs(
    arguments: Sequence[str], extensions: Sequence[str]
) -> tuple[list[Input], list[str]]:
    """Files behind files, folders and patterns, each once, and what could not be found.

    Args:
        arguments: paths; a folder stands for all its files with one of ``extensions``, a pattern
            (``*``, ``?``, ``[]``, ``**``) for what it matches where no file has that name.
        extensions: lower case, with dot.
    """
    found: dict[Path, Input] = {}
    failures: list[str] = []
    for argument in arguments:
        path = Path(argument)
        if path.is_dir():
            inputs = [Input(p, p.relative_to(path)) for p in _walk(path, extensions)]
            if not inputs:
                failures.append(f"{argument}: no {' '.join(extensions)} file in this folder")
        elif path.exists() or not glob.has_magic(argument):
            inputs = [Input(path, Path(path.name))]
        else:
            matches = sorted(Path(p) for p in glob.glob(argument, recursive=True))
            inputs = [Input(p, Path(p.name)) for p in matches if p.is_file()]
            if not inputs:
                failures.append(f"{argument}: the pattern matches no file")
        for item in inputs:
            found.setdefault(Path(os.path.abspath(item.source)), item)
    return list(found.values()), failures


def make_plan(
    arguments: Sequence[str],
    output: str | None,
    *,
    read: Sequence[str],
    write: Sequence[str],
    extension: str,
    overwrite: bool,
    skip_existing: bool,
) -> Plan:
    """Decide what is read and written, before anything is.

    Args:
        arguments: inputs as given, or exactly ``("-",)``.
        output: file, folder, ``"-"``, or None for a place beside each input.
        read: extensions that are looked for in folders.
        write: extensions that name an output file.
        extension: extension of outputs that the command names itself.
        overwrite: whether existing targets are replaced.
        skip_existing: whether jobs with an existing target are left out.

    Raises:
        click.UsageError: the arguments contradict each other.
    """
    if STREAM in arguments:
        if len(arguments) > 1:
            raise click.UsageError("'-' (standard input) cannot be combined with other inputs.")
        return _plan_stdin(output, write, overwrite, skip_existing)
    inputs, failures = find_inputs(arguments, read)
    several = len(inputs) > 1 or any(Path(a).is_dir() for a in arguments)
    if output == STREAM:
        if len(inputs) != 1:
            raise click.UsageError(
                f"'-o -' (standard output) takes one input, {len(inputs)} were found."
            )
        return Plan((Job(str(inputs[0].source), STREAM),), tuple(failures))
    jobs: list[Job] = []
    owners: dict[Path, Path] = {}
    skipped = 0
    for item in inputs:
        target = _target(item, output, several, write, extension)
        place = Path(os.path.abspath(target))
        if place in owners:
            raise click.UsageError(
                f"{owners[place]} and {item.source} would both be written to {target}; "
                "convert them in separate calls with different outputs."
            )
        owners[place] = item.source
        if place == Path(os.path.abspath(item.source)):
            failures.append(f"{item.source}: input and output are the same file; use -o")
        elif target.exists() and skip_existing:
            skipped += 1
        elif target.is_file() and not overwrite:
            failures.append(
                f"{target}: exists; add --overwrite to replace or --skip-existing to keep it"
            )
        else:
            jobs.append(Job(str(item.source), str(target)))
    return Plan(tuple(jobs), tuple(failures), skipped)


def _plan_stdin(
    output: str | None, write: Sequence[str], overwrite: bool, skip_existing: bool
) -> Plan:
    if output is None or output == STREAM:
        return Plan((Job(STREAM, STREAM),))
    target = Path(output)
    if _is_folder(output) or target.suffix.lower() not in write:
        raise click.UsageError(
            f"-o {output!r}: with standard input name a file ending in {' '.join(write)}, or '-'."
        )
    if target.exists() and skip_existing:
        return Plan((), (), 1)
    if target.is_file() and not overwrite:
        return Plan((), (f"{output}: exists; add --overwrite to replace it",))
    return Plan((Job(STREAM, output),))


def _target(
    item: Input, output: str | None, several: bool, write: Sequence[str], extension: str
) -> Path:
    if output is None:
        return item.source.with_suffix(extension)
    named_file = Path(output).suffix.lower() in write and not _is_folder(output)
    if named_file and several:
        raise click.UsageError(
            f"-o {output!r} names one file, but there are several inputs; name a folder."
        )
    if named_file:
        return Path(output)
    if not several and not _is_folder(output):
        raise click.UsageError(
            f"-o {output!r}: end it in {' '.join(write)} for a file, or in '/' for a folder."
        )
    return Path(output) / item.relative.with_suffix(extension)


def _is_folder(output: str) -> bool:
    return output.endswith(("/", os.sep)) or Path(output).is_dir()


def _walk(folder: Path, extensions: Sequence[str]) -> list[Path]:
    """Files below ``folder``, in a stable order; hidden ones are left out."""
    files: list[Path] = []
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files += [
            Path(root) / name
            for name in sorted(names)
            if not name.startswith(".") and Path(name).suffix.lower() in extensions
        ]
    return files
