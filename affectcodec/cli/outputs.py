# SPDX-License-Identifier: Apache-2.0
"""Writing so that a target holds its old content or all of the new, never half of it."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import click


@contextmanager
def replacing(target: str | Path) -> Iterator[Path]:
    """A path beside ``target`` that takes its place when the block ends well.

    Missing folders are made. Whatever ends the block early, Ctrl-C too, leaves ``target`` as it
    was. Devices and pipes, which cannot be replaced, are given out as they are.
    """
    place = Path(os.path.realpath(target))
    if place.exists() and not place.is_file():
        yield place
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = place.with_name(f".{place.stem[:64]}.{secrets.token_hex(6)}{place.suffix}")
    try:
        yield temporary
        os.replace(temporary, place)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def binary_stdout() -> IO[bytes]:
    """Standard output for bytes.

    Raises:
        click.UsageError: it is a terminal.
    """
    stream = sys.stdout.buffer
    if stream.isatty():
        raise click.UsageError("not writing bytes to a terminal: name a file with -o, or pipe on.")
    return stream


def binary_stdin() -> IO[bytes]:
    """Standard input for bytes.

    Raises:
        click.UsageError: it is a terminal.
    """
    stream = sys.stdin.buffer
    if stream.isatty():
        raise click.UsageError("'-' reads standard input: pipe a file in, or name one.")
    return stream
