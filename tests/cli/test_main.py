# SPDX-License-Identifier: Apache-2.0
"""The command group: help, version, errors."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

import affectcodec
from affectcodec.cli.errors import OneLineErrors, describe


def test_version(run):
    assert run("--version").stdout.strip() == f"affectcodec {affectcodec.__version__}"


@pytest.mark.parametrize("command", ["encode", "decode", "info", "train"])
def test_every_command_teaches_with_examples_and_exit_codes(run, command):
    done = run(command, "--help")
    assert done.exit_code == 0
    assert "Examples:" in done.stdout and f"  affectcodec {command} " in done.stdout
    assert "Exit code: 0" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_unknown_command_is_wrong_use(run):
    assert run("enkode").exit_code == 2


@click.group(cls=OneLineErrors)
def group() -> None: ...


@group.command()
@click.argument("what")
def fail(what: str) -> None:
    if what == "value":
        raise ValueError("first line\n   second line")
    if what == "interrupt":
        raise KeyboardInterrupt
    if what == "missing":
        open("/does/not/exist")
    raise RuntimeError("odd")


@pytest.mark.parametrize(
    ("what", "code", "text"),
    [
        ("value", 1, "Error: first line second line\n"),
        ("missing", 1, "Error: /does/not/exist: No such file or directory\n"),
        ("odd", 1, "Error: RuntimeError: odd (AFFECTCODEC_DEBUG=1 shows where)\n"),
        ("interrupt", 130, "Interrupted.\n"),
    ],
)
def test_errors_are_one_line(what, code, text):
    done = CliRunner().invoke(group, ["fail", what])
    assert (done.exit_code, done.stderr) == (code, text)


def test_debug_adds_the_traceback(monkeypatch, capsys):
    monkeypatch.setenv("AFFECTCODEC_DEBUG", "1")
    assert describe(ValueError("x"), "file") == "file: x"
    assert "ValueError: x" in capsys.readouterr().err


def test_a_name_is_not_said_twice():
    assert describe(ValueError("a.wav: broken"), "a.wav") == "a.wav: broken"
