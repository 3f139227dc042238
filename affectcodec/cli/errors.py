# SPDX-License-Identifier: Apache-2.0
"""Errors as one line, exit codes, and the switch that shows tracebacks."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

EXIT_FAILED = 1
EXIT_DAMAGED = 3
EXIT_INTERRUPTED = 130

# What the package raises on purpose, with a message written for users.
_EXPECTED = (ValueError, OSError, ImportError)


def debugging() -> bool:
    """Whether tracebacks are wanted (environment variable AFFECTCODEC_DEBUG)."""
    return os.environ.get("AFFECTCODEC_DEBUG", "") not in ("", "0")


def describe(error: BaseException, name: str = "") -> str:
    """One line about an error, beginning with ``name``, the file it is about."""
    if debugging():
        traceback.print_exception(error)
    if isinstance(error, OSError) and error.strerror:
        name = name or str(error.filename or "")
        text = error.strerror
    else:
        text = " ".join(str(error).split()) or type(error).__name__
    if not isinstance(error, _EXPECTED):
        text = f"{type(error).__name__}: {text} (AFFECTCODEC_DEBUG=1 shows where)"
    return text if not name or text.startswith(name) else f"{name}: {text}"


@contextmanager
def one_line_errors(context: click.Context) -> Iterator[None]:
    """Turn whatever is raised inside into ``Error: ...`` and an exit code."""
    try:
        yield
    except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
        raise
    except KeyboardInterrupt:
        click.echo("Interrupted.", err=True)
        context.exit(EXIT_INTERRUPTED)
    except Exception as error:
        raise click.ClickException(describe(error)) from error


class OneLineErrors(click.Group):
    """A group whose commands end in one line instead of a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        with one_line_errors(ctx):
            return super().invoke(ctx)


class OneLineErrorsCommand(click.Command):
    """The same for a command that stands alone."""

    def invoke(self, ctx: click.Context) -> Any:
        with one_line_errors(ctx):
            return super().invoke(ctx)
