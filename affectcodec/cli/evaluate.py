# SPDX-License-Identifier: Apache-2.0
"""``affectcodec evaluate``: what codecs do to emotion, prosody, words and quality."""

from __future__ import annotations

from pathlib import Path

import click

from affectcodec.cli.batch import set_threads


@click.command(short_help="Measure codecs on a corpus.")
@click.argument(
    "manifests",
    metavar="MANIFEST...",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, path_type=Path),
)
@click.option(
    "--codec",
    "codecs",
    multiple=True,
    metavar="NAME",
    help="A codec, may be repeated: affectcodec:KBPS[@compact|@lead|@native|@native-bfloat16], "
    "LABEL:KBPS (see --weights), codec2:MODE, opus:KBPS, speex:KBPS, amrwb:KBPS; "
    "controls: original, narrowband, lowpass:KHZ, mulaw, world, "
    "flat-f0. Default: affectcodec at 0.75, 1.5, 3 and 6 kbit/s.",
)
@click.option(
    "--weights",
    multiple=True,
    metavar="[LABEL=]FOLDER",
    help="Weights of LABEL (default affectcodec). May be repeated: several checkpoints in one run.",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for results.json, results.md and report.html.",
)
@click.option("--split", default="test", show_default=True, help="Split to measure.")
@click.option(
    "--train-split", default="train", show_default=True, help="Split that the judges learn from."
)
@click.option("--dataset", "datasets", multiple=True, help="Only this one. May be repeated.")
@click.option(
    "--measure",
    "measures",
    multiple=True,
    metavar="NAME",
    help="Only this measure, may be repeated: reconstruction (F0, energy, PESQ, STOI, mel), "
    "egemaps and whisper (the judges), transcript (WER), speaker, visqol, dnsmos. Default: all "
    "whose packages are installed.",
)
@click.option(
    "--matched",
    multiple=True,
    metavar="NAME",
    help="Also train the judges on speech coded by this codec (UAR-M). Codes the whole training "
    "split. May be repeated.",
)
@click.option(
    "--compare",
    multiple=True,
    metavar="NAME=NAME",
    help="Paired difference between two codecs. May be repeated.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    help="At most this many clips of each manifest, evenly spread.",
)
@click.option(
    "--train-limit", type=click.IntRange(min=1), help="The same for the judges' training clips."
)
@click.option(
    "--cache",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for measured values, shared by runs. Default: affectcodec in the user's cache.",
)
@click.option(
    "--jobs",
    "-j",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Clips at a time, each in a process of its own.",
)
@click.option("--quiet", "-q", is_flag=True, help="No progress bar.")
def evaluate(
    manifests: tuple[Path, ...],
    codecs: tuple[str, ...],
    weights: tuple[str, ...],
    out: Path,
    split: str,
    train_split: str,
    datasets: tuple[str, ...],
    measures: tuple[str, ...],
    matched: tuple[str, ...],
    compare: tuple[str, ...],
    limit: int | None,
    train_limit: int | None,
    cache: Path | None,
    jobs: int,
    quiet: bool,
) -> None:
    """Measure codecs on the clips of MANIFEST: emotion by two judges, F0 and energy, words,
    quality, all with intervals over speakers, at the bits really used.

    MANIFEST is a CSV with the columns path, dataset, speaker, split, and where known emotion,
    gender, language, transcript; paths are relative to it. Or it is the folder of a corpus that
    names its files as RAVDESS, EMO-DB, CREMA-D, ESD, IEMOCAP, nEMO, TESS, SAVEE or MEAD do. The
    judges learn from the original recordings of the training split, whose speakers must not be in
    the split that is measured.

    Every value is kept in the cache under all that it depends on: a run that was interrupted goes
    on where it was, and another codec costs only itself.

    \b
    Examples:
      affectcodec evaluate data/manifest.csv --out results/
      affectcodec evaluate data/manifest.csv --codec affectcodec:1.5 --codec opus:6 \\
          --compare affectcodec:1.5=opus:6 --jobs 2 --out results/
      affectcodec evaluate data/manifest.csv --weights mine=runs/mine --codec mine:1.5 \\
          --measure egemaps --measure whisper --out results/

    A folder given with --weights may also hold EnCodec, DAC, Mimi, X-Codec or X-Codec 2 in the
    format of transformers (pip install 'affectcodec[transformers]').

    Needs: pip install 'affectcodec[judges]', pip install --no-deps resemblyzer; the Debian packages
    codec2, opus-tools, speex, libvo-amrwbenc0 and libopencore-amrwb0 for those baselines.
    """
    from affectcodec.evaluation.evaluate import Plan, run

    set_threads(1)
    plan = Plan(
        manifests=manifests,
        out=out,
        codecs=codecs,
        weights=weights,
        split=split,
        train_split=train_split,
        datasets=datasets,
        measures=measures,
        matched=matched,
        compare=compare,
        limit=limit,
        train_limit=train_limit,
        cache=cache,
        jobs=jobs,
        quiet=quiet,
    )
    click.echo(run(plan))
