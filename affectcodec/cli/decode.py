# SPDX-License-Identifier: Apache-2.0
"""``affectcodec decode``: ``.afc`` to audio."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from affectcodec.cli.batch import Done, conclude, run_batch, standard_streams
from affectcodec.cli.inputs import STREAM, make_plan
from affectcodec.cli.options import (
    StagesType,
    check_existing_options,
    checked_codec,
    coder_finder,
    load_codec,
    resolve_rate,
    shared_options,
    split_output,
)
from affectcodec.cli.outputs import replacing

if TYPE_CHECKING:
    import torch

    from affectcodec.bitstream import ReadReport
    from affectcodec.tokens import Tokens

FORMATS = ("wav", "flac", "ogg", "opus", "mp3", "raw")


@dataclass(frozen=True)
class DecodeTask:
    """One file to decode; ``data`` holds what came on standard input."""

    name: str
    target: str
    weights: str | None
    stages: Mapping[str, int] | None
    format: str
    data: bytes | None = None


@click.command(short_help=".afc to audio.")
@click.argument("inputs", nargs=-1, required=True)
@click.option(
    "--output",
    "-o",
    metavar="PATH",
    help="File ending in .wav, .flac, .ogg, .opus, .mp3 or .raw, folder, or '-' for standard "
    "output. Default: beside each input.",
)
@click.option(
    "--format",
    "audio_format",
    type=click.Choice(FORMATS),
    help="Format where the output has no name that says it. raw is 16-bit little-endian PCM. "
    "Default: wav.",
)
@click.option(
    "--kbps",
    type=click.FloatRange(min=0, min_open=True),
    help="Use only the stages that fit this rate.",
)
@click.option(
    "--stages",
    type=StagesType(),
    help="Use only these stages: 4, or for each block emotion=8,acoustic=1.",
)
@shared_options
def decode(
    inputs: tuple[str, ...],
    output: str | None,
    audio_format: str | None,
    kbps: float | None,
    stages: int | dict[str, int] | None,
    weights: str | None,
    overwrite: bool,
    skip_existing: bool,
    jobs: int,
    threads: int | None,
    quiet: bool,
) -> None:
    """Decode .afc files to audio.

    INPUTS are .afc files, folders, which are searched through, quoted patterns, or '-' for
    standard input. The output is mono at the rate of the codec, 16 kHz.

    \b
    Examples:
      affectcodec decode speech.afc                      speech.wav beside it
      affectcodec decode speech.afc speech.flac
      affectcodec decode coded/ -o audio/ --format ogg -j 4
      affectcodec decode speech.afc -o rough.wav --kbps 1.5
      affectcodec decode speech.afc -o flat.wav --stages emotion=0
      affectcodec decode - --format raw < speech.afc | aplay -f S16_LE -r 16000

    Cut or damaged input is decoded as far as it goes, lost frames are concealed, and a warning
    says what is missing. Input made with other weights is an error: its tokens mean nothing here.

    Existing files stay unless --overwrite is given. A file that cannot be decoded does not stop
    the others; all failures are listed at the end. Exit code: 0 all done, 1 some failed, 2 wrong
    use, 3 all done but some input was damaged or cut, 130 interrupted.
    """
    check_existing_options(overwrite, skip_existing)
    write = tuple(f".{name}" for name in FORMATS)
    inputs, output = split_output(inputs, output, (".afc",), write)
    plan = make_plan(
        inputs,
        output,
        read=(".afc",),
        write=write,
        extension=f".{audio_format or 'wav'}",
        overwrite=overwrite,
        skip_existing=skip_existing,
    )
    source, target = standard_streams(plan)
    tasks = []
    if plan.jobs:
        codec = checked_codec(weights)
        counts = resolve_rate(codec, stages, kbps)
        tasks = [
            DecodeTask(
                name="standard input" if job.source == STREAM else job.source,
                target=job.target,
                weights=weights,
                stages=counts,
                format=_format(job.target, audio_format),
                data=source.read() if source is not None else None,
            )
            for job in plan.jobs
        ]
    outcome = run_batch(
        tasks, decode_file, jobs=jobs, threads=threads, quiet=quiet, failures=plan.failures
    )
    conclude(outcome, plan, target, verb="Decoded", quiet=quiet)


def decode_file(task: DecodeTask) -> Done:
    """Read, decode and write one file.

    Raises:
        ValueError, OSError: it cannot be read, decoded or written.
    """
    from affectcodec.bitstream import AfcHashMismatch, read_tokens

    codec = load_codec(task.weights)
    # A regular file is read piece by piece: one that only claims to be .afc may be huge.
    source: str | bytes = task.name
    if task.data is not None:
        source = task.data
    elif not Path(task.name).is_file():
        source = Path(task.name).read_bytes()
    try:
        tokens, report = read_tokens(
            source,
            quantizer=codec.config.quantizer,
            expected_hash=codec.fingerprint,
            coder=coder_finder(task.weights),
        )
    except AfcHashMismatch as error:
        from affectcodec.bitstream import AfcReader

        with AfcReader(source) as reader:
            made_by = reader.header.config_hash
        raise ValueError(
            f"made with other weights (fingerprint {made_by}, the weights at hand are "
            f"{codec.fingerprint}); name those that made it with --weights"
        ) from error
    if task.stages is not None:
        tokens = _truncate(tokens, task.stages)
    if not int(tokens.num_samples[0]):
        found = "it holds no frame" if report.ok else f"nothing of it can be decoded: {report}"
        raise ValueError(found)
    wave = codec.decode(tokens)[0, 0]
    audio, clipped = _write(task, wave, codec.config.sample_rate)
    seconds = float(tokens.duration[0])
    target = "standard output" if task.target == STREAM else task.target
    return Done(
        text=f"{task.name} -> {target}: {seconds:.2f} s at {codec.config.sample_rate} Hz"
        + (f", from {_kbps(tokens, report, task.stages):.3g} kbit/s" if report.ok else ""),
        seconds=seconds,
        size=len(source) if isinstance(source, bytes) else Path(source).stat().st_size,
        notes=(f"{clipped} samples clipped to full scale",) if clipped else (),
        warnings=_damage(report, seconds),
        data=audio,
    )


def _format(target: str, audio_format: str | None) -> str:
    suffix = "" if target == STREAM else Path(target).suffix.lower().lstrip(".")
    if audio_format and suffix and suffix != audio_format:
        raise click.UsageError(f"-o {target!r} and --format {audio_format} contradict each other.")
    return suffix or audio_format or "wav"


def _truncate(tokens: Tokens, stages: Mapping[str, int]) -> Tokens:
    left = {name: min(count, tokens.stages[name]) for name, count in stages.items()}
    if not any(left.values()):
        raise ValueError(
            f"nothing is left of it: it has stages {_listed(tokens.stages)}, asked for are "
            f"{_listed(stages)}"
        )
    return tokens.truncate(left)


def _kbps(tokens: Tokens, report: ReadReport, cut: Mapping[str, int] | None) -> float:
    """Rate of what was decoded; of a whole stream whose stage counts vary, that of its payloads."""
    if tokens.frame_stages is None or cut is not None:
        return tokens.kbps
    return report.payload_bytes * 8 / float(tokens.duration[0]) / 1000


def _listed(stages: Mapping[str, int]) -> str:
    return ",".join(f"{name}={count}" for name, count in stages.items())


def _damage(report: ReadReport, seconds: float) -> tuple[str, ...]:
    if report.ok:
        return ()
    return (f"damaged: {report}; decoded {seconds:.2f} s, lost frames are concealed",)


def _write(task: DecodeTask, wave: torch.Tensor, rate: int) -> tuple[bytes, int]:
    """Bytes for standard output (none where a file was written) and the clipped samples."""
    from affectcodec.audio import pcm16_bytes, save_audio

    if task.format == "raw":
        data, clipped = pcm16_bytes(wave)
        if task.target != STREAM:
            with replacing(task.target) as path:
                path.write_bytes(data)
            data = b""
        return data, clipped
    if task.target == STREAM:
        buffer = io.BytesIO()
        clipped = save_audio(buffer, wave, rate, format=f".{task.format}")
        return buffer.getvalue(), clipped
    with replacing(task.target) as path:
        # By path: an interrupt inside a write to a Python file object would be swallowed.
        return b"", save_audio(path, wave, rate, format=f".{task.format}")
