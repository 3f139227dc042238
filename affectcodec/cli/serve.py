# SPDX-License-Identifier: Apache-2.0
"""``affectcodec serve``: a local page to hear the codec."""

from __future__ import annotations

import click

from affectcodec.cli.options import checked_codec


@click.command(short_help="A local web page to hear the codec.")
@click.option("--port", type=click.IntRange(0, 65535), default=8765, show_default=True)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--allow-remote",
    is_flag=True,
    help="Needed to listen on anything but this machine: whoever reaches it may use it.",
)
@click.option(
    "--engine",
    type=click.Choice(("auto", "native", "torch")),
    default="auto",
    show_default=True,
    help="What computes.",
)
@click.option(
    "--weights",
    metavar="NAME|FOLDER",
    help="Weights: the name of shipped ones, or a folder. Default: the shipped ones.",
)
def serve(port: int, host: str, allow_remote: bool, engine: str, weights: str | None) -> None:
    """Serve a page on this machine: speak or drop a file, hear original and coded side by side at
    any rate, see the tokens, swap or strip the emotion codes.

    Nothing is stored and no file is read for a client. Needs `pip install 'affectcodec[serve]'`.
    """
    try:
        from affectcodec.serve.app import LOOPBACK
        from affectcodec.serve.app import serve as run
    except ImportError as error:
        raise click.ClickException(f"{error}; pip install 'affectcodec[serve]'") from error
    local = host in LOOPBACK
    if not local and not allow_remote:
        raise click.UsageError(f"--host {host} is reachable from elsewhere; add --allow-remote.")
    import torch

    from affectcodec.serve.session import Coder, Limits

    codec = checked_codec(weights)
    torch.set_num_threads(1)
    coder = Coder(codec, Limits(), engine)

    def ready(chosen: int) -> None:
        shown = f"[{host}]" if ":" in host else host
        click.echo(f"http://{shown}:{chosen}/  (Ctrl-C ends it)")

    run(coder, host, port, LOOPBACK if local else (), ready)
