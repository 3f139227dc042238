# SPDX-License-Identifier: Apache-2.0
"""``affectcodec stream``: live coding over pipes, and over a network that loses packets."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO, cast

import click

from affectcodec.cli.options import checked_codec, coder_finder, rate_options, resolve_rate
from affectcodec.cli.outputs import binary_stdin, binary_stdout, replacing

if TYPE_CHECKING:
    from affectcodec.bitstream import PayloadCoder
    from affectcodec.streaming import StreamingDecoder, StreamingEncoder
    from affectcodec.streaming.meter import Meter

# As streaming.engine.ENGINES, which would import torch before --help is printed.
ENGINES = ("auto", "native", "native-bfloat16", "torch", "torch-compiled")

_weights = click.option(
    "--weights",
    metavar="NAME|FOLDER",
    help="Weights: the name of shipped ones, or a folder. Default: the shipped ones.",
)
_engine = click.option(
    "--engine",
    type=click.Choice(ENGINES),
    default="auto",
    show_default=True,
    help="What computes: native kernels, with weights of half the size, or PyTorch; compiled "
    "takes up to a minute to start.",
)
_meter = click.option("--meter", is_flag=True, help="Rate and frame times on standard error.")
_concealment = click.option(
    "--concealment",
    type=click.Choice(("predict", "repeat", "silence")),
    default="predict",
    show_default=True,
    help="What is played for lost packets.",
)


@click.group(short_help="Live audio through pipes or UDP.")
def stream() -> None:
    """Code live audio: 16 kHz, one channel, 16-bit little-endian PCM.

    \b
    Examples:
      arecord -q -f S16_LE -r 16000 -c 1 -t raw | affectcodec stream encode --kbps 3 \\
        | affectcodec stream decode | aplay -q -f S16_LE -r 16000 -c 1
      affectcodec stream udp speech.wav -o heard.wav --loss 0.1 --burst 4 --jitter-ms 30
    """


@stream.command()
@rate_options
@click.option(
    "--frames-per-packet",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Frames of 20 ms a packet; each one more adds as much latency.",
)
@click.option("--dtx", is_flag=True, help="Send little while there is silence.")
@_engine
@_weights
@_meter
def encode(
    kbps: float | None,
    stages: int | dict[str, int] | None,
    frames_per_packet: int,
    dtx: bool,
    engine: str,
    weights: str | None,
    meter: bool,
) -> None:
    """PCM on standard input to an .afc stream on standard output, packet by packet."""
    from affectcodec.streaming import StreamingEncoder

    source, target = binary_stdin(), binary_stdout()
    codec = _single_threaded(weights)
    encoder = StreamingEncoder(
        codec,
        stages=resolve_rate(codec, stages, kbps),
        frames_per_packet=frames_per_packet,
        dtx=dtx,
        engine=engine,
    )
    _encode_pipe(encoder, source, target, meter)


def _single_threaded(weights: str | None):  # type: ignore[no-untyped-def]
    import torch

    codec = checked_codec(weights)
    torch.set_num_threads(1)  # a frame is too small to share
    return codec


def _encode_pipe(
    encoder: StreamingEncoder, source: IO[bytes], target: IO[bytes], show: bool
) -> None:
    import numpy as np

    from affectcodec.streaming.meter import Meter

    hop = encoder.config.hop_length
    meter = Meter(hop / encoder.config.sample_rate)
    target.write(encoder.header.to_bytes())
    target.flush()
    odd = b""
    last = time.monotonic()
    read = getattr(source, "read1", source.read)
    while data := read(2 * hop):  # whatever is there, so that no sample waits for others
        data = odd + data
        size = len(data) // 2 * 2
        odd = data[size:]
        with meter.step(size // 2 / hop):  # type: ignore[arg-type]
            packets = encoder.push(np.frombuffer(data[:size], "<i2").astype(np.int16))
        _write(target, packets, meter)
        last = _show(meter, last, show)
    if odd:
        click.echo("warning: standard input ended inside a sample", err=True)
    _write(target, encoder.flush(), meter)
    _show(meter, 0.0, show, end=True)


def _write(target: IO[bytes], packets: list[bytes], meter: Meter) -> None:
    for packet in packets:
        target.write(packet)
        meter.packet(len(packet))
    if packets:
        target.flush()


def _show(meter: Meter, last: float, show: bool, end: bool = False) -> float:
    now = time.monotonic()
    if show and (end or now - last > 0.25):
        click.echo(f"\r{meter.line()}", err=True, nl=end)
        return now
    return last


@stream.command()
@_concealment
@_engine
@_weights
@_meter
def decode(concealment: str, engine: str, weights: str | None, meter: bool) -> None:
    """An .afc stream on standard input to PCM on standard output, as it comes."""
    from affectcodec.streaming import StreamingDecoder

    source, target = binary_stdin(), binary_stdout()
    codec = _single_threaded(weights)
    decoder = StreamingDecoder(codec, concealment=concealment, engine=engine)
    _decode_pipe(decoder, source, target, meter, coder_finder(weights))


def _decode_pipe(
    decoder: StreamingDecoder,
    source: IO[bytes],
    target: IO[bytes],
    show: bool,
    find: Callable[[str], PayloadCoder],
) -> None:
    from affectcodec.audio import pcm16_bytes
    from affectcodec.bitstream import AfcReader
    from affectcodec.streaming.meter import Meter

    meter = Meter(decoder.config.hop_length / decoder.config.sample_rate)
    last = time.monotonic()
    clipped = 0
    # A pipe is read no further than the packet at hand.
    with AfcReader(
        cast(BinaryIO, source), expected_hash=decoder.header.config_hash, coder=find
    ) as reader:
        for packet in reader:
            with meter.step(packet.frames):
                audio = decoder.push(packet)
            meter.lost += packet.frames if packet.status == "lost" else 0
            data, over = pcm16_bytes(audio)
            clipped += over
            target.write(data)
            target.flush()
            last = _show(meter, last, show)
    _show(meter, 0.0, show, end=True)
    if clipped:
        click.echo(f"warning: {clipped} samples were cut at full scale", err=True)


@stream.command()
@click.argument("source", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where the audio goes that was played (wav). Default: nowhere.",
)
@click.option("--kbps", type=click.FloatRange(min=0, min_open=True), help="Bit rate of the codes.")
@click.option("--loss", default=0.0, show_default=True, help="Share of packets lost, 0 to 0.9.")
@click.option("--burst", default=1.0, show_default=True, help="Mean length of a burst of losses.")
@click.option("--jitter-ms", default=0.0, show_default=True, help="Largest delay of a packet.")
@click.option(
    "--jitter-buffer-ms", default=60.0, show_default=True, help="What the receiver waits for it."
)
@click.option("--seed", default=0, show_default=True, help="Of loss and jitter.")
@click.option("--fast", is_flag=True, help="As fast as it goes, without jitter.")
@_concealment
@_engine
@_weights
def udp(
    source: Path,
    output: Path | None,
    kbps: float | None,
    loss: float,
    burst: float,
    jitter_ms: float,
    jitter_buffer_ms: float,
    seed: int,
    fast: bool,
    concealment: str,
    engine: str,
    weights: str | None,
) -> None:
    """Send a file over UDP on loopback to a receiver that loses packets, and meter both ends."""
    from affectcodec.audio import load_audio, save_audio
    from affectcodec.streaming import StreamingDecoder, StreamingEncoder
    from affectcodec.streaming.loss import LossModel
    from affectcodec.streaming.udp import Network, run_pair

    codec = _single_threaded(weights)
    wav, _ = load_audio(source, sample_rate=codec.config.sample_rate)
    encoder = StreamingEncoder(codec, kbps=kbps, engine=engine)
    decoder = StreamingDecoder(codec, concealment=concealment, engine=engine)

    def tick(sent: Meter, heard: Meter) -> None:
        if sys.stderr.isatty():
            click.echo(f"\rsent {sent.line()} | heard {heard.line()}", err=True, nl=False)

    audio, sent, heard = run_pair(
        encoder,
        decoder,
        wav.astype("float32"),
        Network(LossModel(loss, burst), jitter_ms, seed),
        jitter_buffer_ms=jitter_buffer_ms,
        realtime=not fast,
        on_tick=tick,
    )
    click.echo(f"sent   {sent.line()}")
    click.echo(f"heard  {heard.line()}")
    if output is not None:
        with replacing(output) as place:
            save_audio(place, audio, codec.config.sample_rate)
