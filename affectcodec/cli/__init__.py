# SPDX-License-Identifier: Apache-2.0
"""The command line: ``affectcodec COMMAND``; ``affectcodec --help`` lists the commands.

To add one, write its file and add it below. torch is imported inside the
commands that compute, so that ``--help`` and ``info`` answer at once.
"""

from __future__ import annotations

import click

from affectcodec import __version__
from affectcodec.cli.ablate import ablate
from affectcodec.cli.decode import decode
from affectcodec.cli.encode import encode
from affectcodec.cli.errors import OneLineErrors
from affectcodec.cli.evaluate import evaluate
from affectcodec.cli.export import export
from affectcodec.cli.info import info
from affectcodec.cli.probe import probe
from affectcodec.cli.serve import serve
from affectcodec.cli.stream import stream
from affectcodec.cli.tokenize import tokenize
from affectcodec.cli.train import train

__all__ = ["main"]


@click.group(
    cls=OneLineErrors,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, message="affectcodec %(version)s", help="Show the version.")
def main() -> None:
    """Speech codec that keeps emotion: 0.75 to 6 kbit/s.

    \b
    Examples:
      affectcodec encode speech.wav                    makes speech.afc, 6 kbit/s
      affectcodec encode --kbps 1.5 talks/ -o coded/   a whole folder
      affectcodec decode speech.afc -o again.wav
      affectcodec tokenize corpus/ tokens/             tokens for a language model
      affectcodec info speech.afc
      affectcodec info                                 what is installed and why the rest is off

    `affectcodec COMMAND --help` explains each command with examples. Hear it all with
    `python -m affectcodec.demo`.

    \b
    Exit codes:
      0    all done
      1    an error; of several files the others are done
      2    wrong use
      3    all done, but some .afc input is damaged or cut
      130  interrupted; no half-written file is left
    """


for _command in (
    encode, decode, info, stream, serve, tokenize, train, evaluate, probe, ablate, export,
):  # fmt: skip
    main.add_command(_command)
