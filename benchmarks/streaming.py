# SPDX-License-Identifier: Apache-2.0
"""Live coding: frame times, streams a core, memory and allocations.

    python -m benchmarks.streaming            # measures, prints, rewrites docs/streaming.md

A step gives every stream one frame of 20 ms and codes it there and back (``push_frames`` of
encoder and decoder), as a server that mixes live streams would. Its duration, divided by nothing,
is what the last of the streams waits for. Steps repeat until a time is up; the percentiles are of
all of them but the first few. Streams in real time are ``streams * 20 ms / median``, a core
``/ threads``. ``--smoke`` checks that all of it works; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

import affectcodec
from affectcodec import AffectCodec
from affectcodec.pages import replace_part
from affectcodec.runtime import why_unavailable
from affectcodec.streaming import StreamingDecoder, StreamingEncoder
from benchmarks import allocations, machine

DOCS = Path(__file__).resolve().parents[1] / "docs" / "streaming.md"
MARKERS = ("<!-- streaming:figures -->", "<!-- /streaming -->")
STREAMS = (1, 4, 16, 64, 256)
ENGINES = ("native", "native-bfloat16", "onnx", "torch", "torch-compiled")
_WARM_STEPS = 5
_FEWEST_STEPS = 20


@dataclass(frozen=True)
class Row:
    """Figures of one engine; times in milliseconds a step of all streams."""

    engine: str
    threads: int
    streams: int
    steps: int
    p50: float
    p99: float
    p999: float
    stream_bytes: int

    def streams_a_core(self, frame_ms: float) -> float:
        """Streams in real time for each thread."""
        return self.streams * frame_ms / self.p50 / self.threads


Pair = tuple[StreamingEncoder, StreamingDecoder]


def make_pair(codec: AffectCodec, engine: str, slots: int, threads: int, graphs: Path) -> Pair:
    """Encoder and decoder of an engine."""
    torch.set_num_threads(threads)  # also what compiled code is made for
    if engine == "onnx":
        from affectcodec.export.runtime import OnnxDecoder, OnnxEncoder

        return (
            StreamingEncoder(codec, slots=slots, engine=OnnxEncoder(codec, graphs, slots, threads)),
            StreamingDecoder(codec, slots=slots, engine=OnnxDecoder(codec, graphs, slots, threads)),
        )
    return (
        StreamingEncoder(codec, slots=slots, engine=engine, threads=threads),
        StreamingDecoder(codec, slots=slots, engine=engine, threads=threads),
    )


def speech(codec: AffectCodec) -> np.ndarray:
    """Frames ``[T, hop]`` of the samples that come with the package."""
    folder, hop = Path(affectcodec.__file__).parent / "samples", codec.config.hop_length
    clips = [soundfile.read(path, dtype="float32")[0] for path in sorted(folder.glob("*.flac"))]
    wav = np.concatenate(clips)
    return wav[: len(wav) // hop * hop].reshape(-1, hop)


def stepper(pair: Pair, frames: np.ndarray) -> Callable[[], None]:
    """One frame of every stream there and back; streams are at different places of the speech."""
    encoder, decoder = pair
    slots, place = encoder.slots, 0

    def step() -> None:
        nonlocal place
        pcm = {slot: frames[(place + 37 * slot) % len(frames)] for slot in range(slots)}
        decoder.push_frames(encoder.push_frames(pcm))
        place += 1

    return step


def stream_bytes(pair: Pair) -> int:
    """What a stream holds in both engines."""
    total = 0
    for side in pair:
        own = getattr(side.engine, "slot_bytes", None)
        total += sum(v.nbytes for v in side.engine.state(0).values()) if own is None else own
    return total


def measure(
    engine: str, threads: int, pair: Pair, frames: np.ndarray, budget: float, fewest: int
) -> Row:
    """Time steps for ``budget`` seconds, and at least ``fewest`` of them."""
    step = stepper(pair, frames)
    for _ in range(_WARM_STEPS):
        step()
    times: list[float] = []
    end = time.perf_counter() + budget
    while len(times) < fewest or time.perf_counter() < end:
        start = time.perf_counter()
        step()
        times.append(1000 * (time.perf_counter() - start))
    p50, p99, p999 = np.percentile(times, (50, 99, 99.9))
    return Row(
        engine, threads, pair[0].slots, len(times),
        float(p50), float(p99), float(p999), stream_bytes(pair),
    )  # fmt: skip


def count_allocations(engine: str, graphs: Path, steps: int) -> dict[str, float]:
    """Allocator calls a frame of one stream: of the engines alone, and of the whole step."""
    counted = allocations.counter()
    assert counted is not None
    codec = AffectCodec.from_pretrained()
    pair = make_pair(codec, engine, 1, 1, graphs)
    frames = speech(codec)
    step = stepper(pair, frames)
    found = {}
    for name, call in (("step", step), ("kernels", _kernels_of(pair, frames))):
        if call is None:
            continue
        for _ in range(_WARM_STEPS):
            call()
        before = counted()
        for _ in range(steps):
            call()
        found[name] = (counted() - before) / steps
    return found


def _kernels_of(pair: Pair, frames: np.ndarray) -> Callable[[], None] | None:
    """The calls into the native kernels with arrays that are there already."""
    encoder, decoder = (getattr(side.engine, "_impl", None) for side in pair)
    if encoder is None or decoder is None:
        return None
    quantizer = pair[0].config.quantizer
    one = np.ones(1, np.int32)
    slot, pcm = 0 * one, np.ascontiguousarray(frames[:1], np.float32)
    tokens = np.zeros((1, quantizer.num_stages), pair[0].engine.token_dtype)  # type: ignore[attr-defined]
    stages = np.full((1, len(quantizer.blocks)), quantizer.num_stages, np.int64)
    latent = np.zeros((1, quantizer.width), np.float32)
    audio = np.zeros_like(pcm)

    def call() -> None:
        encoder.encode(slot, one, pcm, tokens)
        decoder.dequantize(tokens, stages, latent)
        decoder.synthesize(slot, one, latent, audio)

    return call


def markdown(rows: list[Row], counts: dict[str, dict[str, float]], about: str) -> str:
    """The tables, as they stand in the documentation."""
    lines = [
        about,
        "",
        "| engine | threads | streams | p50 ms | p99 ms | p99.9 ms | steps | streams a core |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        lines.append(
            f"| {r.engine} | {r.threads} | {r.streams} | {r.p50:.2f} | {r.p99:.2f} | "
            f"{r.p999:.2f} | {r.steps} | {r.streams_a_core(20.0):.0f} |"
        )
    lines += [
        "",
        "| engine | bytes a stream | allocator calls a frame, whole step | of them kernels |",
        "|---|---|---|---|",
    ]
    for engine in dict.fromkeys(r.engine for r in rows):
        size = next(r.stream_bytes for r in rows if r.engine == engine)
        own = counts.get(engine, {})
        step, kernels = (f"{own[k]:.1f}" if k in own else "" for k in ("step", "kernels"))
        lines.append(f"| {engine} | {size} | {step} | {kernels} |")
    return "\n".join(lines) + "\n"


def engines_here(wanted: Sequence[str]) -> list[str]:
    """Those of ``wanted`` that can serve."""
    import importlib.util

    without_onnx = any(
        importlib.util.find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")
    )
    left_out = {
        "native": why_unavailable(),
        "native-bfloat16": why_unavailable(),
        "onnx": "affectcodec[export] is not installed" if without_onnx else "",
    }
    for name in wanted:
        if left_out.get(name):
            print(f"{name} left out: {left_out[name]}")
    return [name for name in wanted if not left_out.get(name)]


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.streaming",
        description=(__doc__ or "").strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--engines", default=",".join(ENGINES))
    parser.add_argument("--streams", default=",".join(map(str, STREAMS)))
    parser.add_argument("--seconds", type=float, default=4.0, help="a row (default: %(default)s)")
    parser.add_argument("--docs", type=Path, default=DOCS, help="file with the markers")
    parser.add_argument("--no-write", action="store_true", help="print only")
    parser.add_argument("--json", type=Path, help="all figures, as JSON")
    parser.add_argument("--smoke", action="store_true", help="few steps, few streams, print only")
    parser.add_argument("--count", nargs=2, metavar=("ENGINE", "GRAPHS"), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.count:
        steps = 5 if args.smoke else 200
        print(json.dumps(count_allocations(args.count[0], Path(args.count[1]), steps)))
        return 0

    codec = AffectCodec.from_pretrained()
    frames = speech(codec)
    sizes = [1, 2] if args.smoke else [int(n) for n in args.streams.split(",")]
    threads = (1,) if args.smoke or machine.cores() < 2 else (1, 2)
    rows: list[Row] = []
    counts: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as place:
        graphs = Path(place)
        engines = engines_here(args.engines.split(","))
        if "onnx" in engines:
            from affectcodec.export.onnx import export_codec

            export_codec(codec, graphs)
        for engine in engines:
            for count in sizes:
                for used in threads:
                    pair = make_pair(codec, engine, count, used, graphs)
                    budget, fewest = (0.0, 2) if args.smoke else (args.seconds, _FEWEST_STEPS)
                    row = measure(engine, used, pair, frames, budget, fewest)
                    rows.append(row)
                    print(json.dumps(asdict(row)), flush=True)
            if allocations.available():
                command = ["-m", "benchmarks.streaming", "--count", engine, str(graphs)]
                command += ["--smoke"] if args.smoke else []
                counts[engine] = json.loads(allocations.run_counted(command, 300).splitlines()[-1])
    described = machine.describe()
    about = (
        f"{described['processor']}, {described['cores']} cores, {described['kernels']}, torch "
        f"{described['packages']['torch']}, load at the start {described['load_at_start']}; "
        f"{described['date']}, revision {described['revision']}."
    )
    table = markdown(rows, counts, about)
    print(table)
    if args.json:
        record: dict[str, Any] = {
            "machine": described, "rows": [asdict(r) for r in rows], "allocations": counts,
        }  # fmt: skip
        args.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    if not (args.no_write or args.smoke):
        replace_part(args.docs, *MARKERS, table)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
