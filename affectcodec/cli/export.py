# SPDX-License-Identifier: Apache-2.0
"""``affectcodec export``: the codec for other runtimes."""

from __future__ import annotations

from pathlib import Path

import click

from affectcodec.cli.options import checked_codec


@click.group(short_help="The codec for other runtimes.")
def export() -> None:
    """Write the codec in a form that other runtimes load."""


@export.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--weights",
    metavar="NAME|FOLDER",
    help="Weights: the name of shipped ones, or a folder. Default: the shipped ones.",
)
def onnx(folder: Path, weights: str | None) -> None:
    """Write encoder.onnx and decoder.onnx into FOLDER: one frame a call, explicit state.

    The graphs begin and end at the latent; tokens are made of it by the codec's quantizer. Names
    and shapes of inputs and outputs are in docs/streaming.md. Needs `pip install
    'affectcodec[export]'`.

    \b
    Example:
      affectcodec export onnx graphs/
    """
    from affectcodec.export.onnx import ExportUnavailable, export_codec

    codec = checked_codec(weights)
    try:
        written = export_codec(codec, folder)
    except ExportUnavailable as error:
        raise click.ClickException(str(error)) from error
    for path in written.values():
        click.echo(f"{path}  {path.stat().st_size / 1e6:.1f} MB")
