# SPDX-License-Identifier: Apache-2.0
"""Command: ``python -m affectcodec.gpu_check``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

_BUILT = "AFFECTCODEC_GPU_CHECK_BUILD"  # what the build said, for the process that follows it


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("affectcodec-gpu-check.json"),
    show_default=True,
    help="The report, one JSON file.",
)
@click.option("--quick", is_flag=True, help="Few and small shapes: minutes become seconds.")
@click.option("--no-build", is_flag=True, help="Build nothing, even where something is missing.")
@click.option(
    "--skip",
    multiple=True,
    metavar="NAME",
    help="Do not time this one: triton, cuda, reference, torch.compile, vector-quantize-pytorch.",
)
def main(out: Path, quick: bool, no_build: bool, skip: tuple[str, ...]) -> None:
    """Check the GPU kernels on this machine and measure them.

    Builds what is missing, checks every backend in all types and layouts against the reference,
    compares tokens with the CPU's, captures CUDA graphs, times every operator against plain
    PyTorch, torch.compile and vector-quantize-pytorch, and writes one report. Please send it back:
    nobody has measured these kernels before.

    Without a GPU it says so, checks the Triton kernels under their interpreter, compiles a few of
    them for a GPU that is not here, and goes through the timing on the CPU.

    The exit code is 1 where a check failed or a section could not be finished.

    \b
    Examples:
      python -m affectcodec.gpu_check
      python -m affectcodec.gpu_check --quick --out report.json
    """
    if not no_build and _BUILT not in os.environ:
        from affectcodec.gpu_check.build import build_missing

        built = build_missing()
        click.echo(f"build: {built.detail}", err=True)
        if built.ran:  # a module that was not there when this process looked stays away from it
            os.environ[_BUILT] = built.detail
            os.execv(sys.executable, [sys.executable, "-m", "affectcodec.gpu_check", *sys.argv[1:]])
        os.environ[_BUILT] = built.detail
    import torch

    if not torch.cuda.is_available():
        os.environ["TRITON_INTERPRET"] = "1"  # before anything imports triton
    from affectcodec.gpu_check.device import find_device
    from affectcodec.gpu_check.report import render
    from affectcodec.gpu_check.run import run_all

    device, why_no_gpu = find_device()
    if why_no_gpu:
        click.echo(f"no GPU: {why_no_gpu}", err=True)
    report = run_all(
        device,
        why_no_gpu,
        quick=quick,
        build=os.environ.get(_BUILT, "not asked for"),
        say=lambda line: click.echo(f"... {line}", err=True),
        skip=skip,
    )
    click.echo(render(report))
    report.write(out)
    click.echo(f"report: {out}", err=True)
    sys.exit(1 if report.failures else 0)


if __name__ == "__main__":
    main()
