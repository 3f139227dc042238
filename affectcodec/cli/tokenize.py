# SPDX-License-Identifier: Apache-2.0
"""``affectcodec tokenize``: tokens of a whole corpus."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from affectcodec.cli.options import Stages, checked_codec, rate_options, resolve_rate

if TYPE_CHECKING:
    from affectcodec.corpus.parts import PartSummary
    from affectcodec.corpus.plan import Plan


_MOST_ACTORS = 4096


@click.command()
@click.argument("source", type=click.Path(exists=True))
@click.argument("target", type=click.Path(file_okay=False, path_type=Path))
@rate_options
@click.option(
    "--format",
    "file_format",
    type=click.Choice(["parquet", "tar"]),
    default="parquet",
    show_default=True,
    help="Parquet for datasets and pyarrow, tar for WebDataset loaders.",
)
@click.option(
    "--clips-per-part",
    type=click.IntRange(min=1),
    default=256,
    show_default=True,
    help="Clips of an output file; what is lost, at most, when a worker is killed.",
)
@click.option(
    "--max-seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=3600.0,
    show_default=True,
    help="Longer clips are set aside: cut them first, or raise this and mind the memory.",
)
@click.option("--jobs", "-j", type=click.IntRange(min=1), help="Processes. Default: a core each.")
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Threads a process. Many processes of one thread beat one of many.",
)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--weights", metavar="NAME|FOLDER", help="Weights. Default: the shipped ones.")
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="This machine, or a Ray cluster.",
)
@click.option("--address", help="Ray cluster: auto, HOST:6379 or ray://HOST:10001.")
@click.option("--quiet", "-q", is_flag=True, help="Only warnings and errors.")
def tokenize(
    source: str,
    target: Path,
    kbps: float | None,
    stages: Stages,
    file_format: str,
    clips_per_part: int,
    max_seconds: float,
    jobs: int | None,
    threads: int,
    device: str,
    weights: str | None,
    engine: str,
    address: str | None,
    quiet: bool,
) -> None:
    """Make tokens of every clip of SOURCE in the folder TARGET.

    SOURCE is a folder of audio files, of WebDataset tar shards or of Parquet files with audio
    bytes; a manifest (.csv, .tsv, .jsonl) with a column path; or a folder that datasets saved.

    Stop it anywhere, or kill it: the same command goes on where it was, and no clip is lost or
    done twice. Clips that cannot be read are listed in TARGET/quarantine.parquet with the reason
    and stop nothing. TARGET/manifest.json, written at the end, has checksums.

    \b
    Examples:
      affectcodec tokenize talks/ tokens/ --kbps 1.5
      affectcodec tokenize corpus.csv tokens/ -j 32
      affectcodec tokenize shards/ tokens/ --engine ray --address auto
      python -c "import datasets; print(datasets.load_dataset('tokens/tokens'))"
    """
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise click.ClickException(
            "tokenize needs pyarrow: pip install 'affectcodec[corpus]'"
        ) from None
    from affectcodec.corpus.engines import EngineError
    from affectcodec.corpus.finish import finish, missing_parts
    from affectcodec.corpus.parts import remove_leftovers
    from affectcodec.corpus.plan import Plan, PlanError, Settings
    from affectcodec.corpus.sources import SourceError
    from affectcodec.tokens import Vocabulary

    codec = checked_codec(weights)
    counts = resolve_rate(codec, stages, kbps) or codec.config.quantizer.resolve_stages(None)
    if address is not None and engine != "ray":
        raise click.UsageError("--address is for --engine ray.")
    settings = Settings(
        source=os.path.abspath(source),
        weights=os.path.abspath(weights) if weights and os.path.exists(weights) else weights,
        fingerprint=codec.fingerprint,
        stages=dict(counts),
        format=file_format,
        clips_per_part=clips_per_part,
        max_seconds=max_seconds,
    )
    target.mkdir(parents=True, exist_ok=True)
    with _alone(target):
        try:
            remove_leftovers(target)
            plan = Plan.make(target, settings)
            missing = missing_parts(plan)
            Vocabulary.of(codec, "split").save(target / "vocabulary.json")
            if missing:
                run = _engine(engine, plan, missing, jobs, threads, device, address)
                _follow(run, plan, len(missing), codec.config.sample_rate, quiet)
            manifest = finish(plan, codec.config.sample_rate)
        except (SourceError, PlanError, EngineError) as error:
            raise click.ClickException(str(error)) from None
    if not quiet:
        click.echo(
            f"{manifest['clips']} clips, {manifest['hours']:.2f} hours, "
            f"{manifest['frames']} frames in {plan.count} files"
        )
    if manifest["rejected"]:
        click.echo(
            f"{manifest['rejected']} clips were set aside: {target / 'quarantine.parquet'}",
            err=True,
        )


def _engine(
    engine: str,
    plan: Plan,
    missing: list[int],
    jobs: int | None,
    threads: int,
    device: str,
    address: str | None,
) -> Iterator[PartSummary]:
    from affectcodec.corpus.engines import run_local, run_ray

    workers = jobs or max(1, (os.cpu_count() or 1) // threads)
    if engine == "ray":
        # On a cluster the pool may grow to whatever Ray finds room for, unless told otherwise.
        most = workers if jobs or not address else _MOST_ACTORS
        return run_ray(plan, missing, address=address, workers=most, threads=threads, device=device)
    return run_local(plan, missing, jobs=min(workers, len(missing)), threads=threads, device=device)


def _follow(
    run: Iterator[PartSummary], plan: Plan, count: int, sample_rate: int, quiet: bool
) -> None:
    import time

    from tqdm import tqdm

    started, samples, rejected = time.monotonic(), 0, 0
    bar = tqdm(
        run, total=plan.count, initial=plan.count - count, unit="part", disable=quiet, desc="parts"
    )
    for part in bar:
        samples += part.samples
        rejected += part.rejected
        seconds = samples / sample_rate
        speed = seconds / max(1e-9, time.monotonic() - started)
        bar.set_postfix_str(
            f"{seconds / 3600:.2f} h done, {speed:.0f} s/s, {rejected} set aside", refresh=False
        )


@contextlib.contextmanager
def _alone(target: Path) -> Iterator[None]:
    """One run a folder: the lock goes with the process, however it ends."""
    with (target / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise click.ClickException(f"{target}: another run is writing here") from None
        yield
