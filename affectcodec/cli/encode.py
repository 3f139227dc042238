# SPDX-License-Identifier: Apache-2.0
"""``affectcodec encode``: audio to ``.afc``."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from affectcodec.cli.batch import Done, conclude, run_batch, standard_streams
from affectcodec.cli.inputs import STREAM, make_plan
from affectcodec.cli.options import (
    check_existing_options,
    checked_codec,
    checked_coder,
    load_codec,
    load_coder,
    rate_options,
    resolve_rate,
    shared_options,
    split_output,
)
from affectcodec.cli.outputs import replacing

if TYPE_CHECKING:
    import numpy as np

    from affectcodec.bitstream import PayloadCoder
    from affectcodec.codec import AffectCodec

AUDIO = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf", ".w64")
RAW_AUDIO = (".raw", ".pcm", ".s16")


@dataclass(frozen=True)
class EncodeTask:
    """One file to encode; ``data`` holds what came on standard input."""

    name: str
    target: str
    weights: str | None
    stages: Mapping[str, int] | None
    frames_per_packet: int | None
    raw_rate: int | None
    raw_channels: int
    compact: bool = False
    kbps: float | None = None  # of compact files, where stages follow the rate
    data: bytes | None = None


@click.command(short_help="Audio to .afc.")
@click.argument("inputs", nargs=-1, required=True)
@click.option(
    "--output",
    "-o",
    metavar="PATH",
    help="File ending in .afc, folder, or '-' for standard output. Default: beside each input.",
)
@rate_options
@click.option(
    "--compact",
    is_flag=True,
    help="Entropy-code the tokens. With --kbps, as many stages where there is speech as that rate "
    "then allows: at 1.5 the sound of about 2.5 kbit/s. With --stages, the same tokens in 60 to "
    "71 % of the bits. Takes longer.",
)
@click.option(
    "--raw-rate",
    type=click.IntRange(1, 768_000),
    metavar="HZ",
    help="Inputs are headerless 16-bit little-endian PCM at this rate.",
)
@click.option(
    "--raw-channels",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Interleaved channels of such inputs.",
)
@click.option(
    "--frames-per-packet",
    type=click.IntRange(min=1),
    metavar="N",
    help="Frames of 20 ms a packet: few survive damage better, many cost fewer bytes. "
    "Default: even packets of about two seconds, or five with --compact.",
)
@shared_options
def encode(
    inputs: tuple[str, ...],
    output: str | None,
    kbps: float | None,
    stages: int | dict[str, int] | None,
    compact: bool,
    raw_rate: int | None,
    raw_channels: int,
    frames_per_packet: int | None,
    weights: str | None,
    overwrite: bool,
    skip_existing: bool,
    jobs: int,
    threads: int | None,
    quiet: bool,
) -> None:
    """Encode audio files to .afc.

    INPUTS are audio files (wav, flac, ogg, opus, mp3, ...), folders, which are searched through,
    quoted patterns, or '-' for standard input. Any sample rate and number of channels will do;
    channels are mixed to mono.

    \b
    Examples:
      affectcodec encode speech.wav                      speech.afc beside it
      affectcodec encode speech.wav small.afc --kbps 1.5
      affectcodec encode recordings/ -o coded/ -j 4      keeps the folder structure
      affectcodec encode 'day?/*.flac' -o coded/ --skip-existing
      affectcodec encode speech.wav --stages emotion=8,acoustic=2
      affectcodec encode speech.wav --compact --kbps 3
      ffmpeg -i talk.mp4 -f wav - | affectcodec encode - > talk.afc
      arecord -f S16_LE -r 16000 -d 5 -t raw | affectcodec encode --raw-rate 16000 - -o me.afc

    The rate can be lowered after the fact: `affectcodec decode --kbps` takes fewer stages out of
    the same file.

    Existing files stay unless --overwrite is given. A file that cannot be encoded does not stop
    the others; all failures are listed at the end. Exit code: 0 all done, 1 some failed, 2 wrong
    use, 130 interrupted.
    """
    check_existing_options(overwrite, skip_existing)
    read = RAW_AUDIO if raw_rate else AUDIO
    inputs, output = split_output(inputs, output, read, (".afc",))
    plan = make_plan(
        inputs,
        output,
        read=read,
        write=(".afc",),
        extension=".afc",
        overwrite=overwrite,
        skip_existing=skip_existing,
    )
    source, target = standard_streams(plan)
    tasks = []
    if plan.jobs:
        codec = checked_codec(weights)
        by_rate = compact and kbps is not None and stages is None
        counts = None if by_rate else resolve_rate(codec, stages, kbps)
        _check_packet(codec, frames_per_packet, checked_coder(weights) if compact else None)
        tasks = [
            EncodeTask(
                name="standard input" if job.source == STREAM else job.source,
                target=job.target,
                weights=weights,
                stages=counts,
                frames_per_packet=frames_per_packet,
                raw_rate=raw_rate,
                raw_channels=raw_channels,
                compact=compact,
                kbps=kbps if by_rate else None,
                data=source.read() if source is not None else None,
            )
            for job in plan.jobs
        ]
    outcome = run_batch(
        tasks, encode_file, jobs=jobs, threads=threads, quiet=quiet, failures=plan.failures
    )
    conclude(outcome, plan, target, verb="Encoded", quiet=quiet)


def encode_file(task: EncodeTask) -> Done:
    """Read, encode and write one file.

    Raises:
        ValueError, OSError: it cannot be read, encoded or written.
    """
    from affectcodec.bitstream import coded_payload_bits, write_tokens

    codec = load_codec(task.weights)
    wave, rate, channels = _read(task)
    coder = load_coder(task.weights) if task.compact else None
    if coder is not None and task.kbps is not None:
        from affectcodec.entropy.coder import PACKET_FRAMES
        from affectcodec.entropy.rate import encode_to_rate

        packet = task.frames_per_packet or PACKET_FRAMES
        tokens = encode_to_rate(
            codec, wave, task.kbps, sample_rate=rate, coder=coder, packet_frames=packet
        )
    else:
        tokens = codec.encode(wave, rate, stages=task.stages)
    coded = io.BytesIO()
    write_tokens(
        coded,
        tokens,
        frames_per_packet=task.frames_per_packet,
        loudness_dbfs=_loudness(wave),
        coder=coder,
    )
    data = coded.getvalue()
    if task.target != STREAM:
        with replacing(task.target) as path:
            path.write_bytes(data)
    seconds = len(wave) / rate
    kbps = f"{tokens.kbps:.3g} kbit/s"
    notes = [f"{channels} channels mixed to mono"] if channels > 1 else []
    if task.compact and seconds:
        real = coded_payload_bits(data) / seconds / 1000
        kbps = (
            f"{real:.3g} kbit/s" if task.kbps is not None else f"{kbps} coded as {real:.3g} kbit/s"
        )
        if task.kbps is not None and max(tokens.stages.values()) == 1 and real > task.kbps:
            notes.append(
                f"one stage, the least, takes more than the {task.kbps:g} kbit/s asked for"
            )
    target = "standard output" if task.target == STREAM else task.target
    return Done(
        text=f"{task.name} -> {target}: {seconds:.2f} s, {kbps}, "
        f"{len(data)} bytes ({len(data) * 8 / seconds / 1000:.2f} kbit/s with the container)",
        seconds=seconds,
        size=len(data),
        notes=tuple(notes),
        data=data if task.target == STREAM else b"",
    )


def _read(task: EncodeTask) -> tuple[np.ndarray, int, int]:
    """Mono wave, its rate, and the channels it had."""
    import soundfile

    from affectcodec.audio import load_audio, load_pcm16

    if task.raw_rate is not None:
        data = task.data if task.data is not None else Path(task.name).read_bytes()
        wave, rate = load_pcm16(data, sample_rate_in=task.raw_rate, channels=task.raw_channels)
        return wave, rate, task.raw_channels
    source = task.name if task.data is None else _Named(task.data, task.name)
    wave, rate = load_audio(source)
    if not isinstance(source, str):
        source.seek(0)
    with soundfile.SoundFile(source) as file:
        return wave, rate, file.channels


class _Named(io.BytesIO):
    """Bytes that error messages can call by name."""

    def __init__(self, data: bytes, name: str) -> None:
        super().__init__(data)
        self.name = name


def _loudness(wave: np.ndarray) -> float | None:
    """Level in dB re full scale; None for digital silence."""
    import numpy as np

    power = float(np.mean(np.square(wave, dtype=np.float64)))
    return max(-128.0, 10 * math.log10(power)) if power > 0 else None


def _check_packet(codec: AffectCodec, frames: int | None, coder: PayloadCoder | None) -> None:
    from affectcodec.bitstream import BlockLayout, StreamHeader
    from affectcodec.bitstream.writer import max_frames_per_packet

    if frames is None:
        return
    quantizer = codec.config.quantizer
    header = StreamHeader(
        config_hash=codec.fingerprint,
        sample_rate=codec.config.sample_rate,
        hop_length=codec.config.hop_length,
        blocks=tuple(BlockLayout(block.name, block.levels) for block in quantizer.blocks),
        num_stages=quantizer.num_stages,
    )
    most = max_frames_per_packet(header, coder)
    if frames > most:
        raise click.BadParameter(
            f"{frames} is more than a packet holds; wanted 1 to {most}",
            param_hint="--frames-per-packet",
        )
