# SPDX-License-Identifier: Apache-2.0
"""A long stream through the pair: memory, speed and allocations over time.

    python -m benchmarks.soak --minutes 60

Speech is repeated for so long, cut into pieces of random length, coded to packets of which some
are lost, and decoded, as fast as it goes. Each minute of audio is a row: resident memory, median
time of a frame there and back, allocator calls a frame. Prints JSON lines and a verdict: resident
memory must stay within 1 MB after the first five minutes of audio, and the median frame of the
last third must not be 10 % slower than that of the first. Linux only.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence

import numpy as np
import torch

from affectcodec import AffectCodec
from affectcodec.streaming import StreamingDecoder, StreamingEncoder
from benchmarks import allocations
from benchmarks.memory import _resident
from benchmarks.streaming import speech

WARM_MINUTES = 5
MOST_GROWTH = 2**20
MOST_SLOWDOWN = 1.10


def soak(minutes: int, engine: str, loss: float) -> list[dict[str, float]]:
    """Rows of every minute of audio."""
    torch.set_num_threads(1)
    codec = AffectCodec.from_pretrained()
    encoder = StreamingEncoder(codec, kbps=3, engine=engine)
    decoder = StreamingDecoder(codec, engine=engine)
    wav = speech(codec).reshape(-1)
    hop, rate = codec.config.hop_length, codec.config.sample_rate
    generator = np.random.default_rng(0)
    counted = allocations.counter()
    rows, at = [], 0
    for minute in range(minutes):
        calls = counted() if counted else 0
        # Kept as numbers of fixed size: what is measured must not grow by being measured.
        times, frames, samples = np.zeros(60 * rate // hop + 8), 0, 0
        while samples < 60 * rate and frames < len(times):
            size = min(int(generator.integers(1, 2 * hop)), len(wav) - at)
            piece = wav[at : at + size]
            at = (at + size) % len(wav)
            samples += size
            start = time.perf_counter()
            packets = encoder.push(piece)
            for packet in packets:
                decoder.push(None if generator.random() < loss else packet)
            if packets:
                times[frames] = (time.perf_counter() - start) / len(packets)
                frames += 1
        row = {
            "minute": minute + 1,
            "resident_bytes": _resident("VmRSS"),
            "frame_ms": 1000 * float(np.median(times[:frames])),
            "frames": frames,
        }
        if counted:
            row["allocator_calls_a_frame"] = (counted() - calls) / max(1, 60 * rate // hop)
        rows.append(row)
        print(json.dumps(row), flush=True)
    return rows


def verdict(rows: list[dict[str, float]]) -> dict[str, float | bool]:
    """Growth after the warm-up, and the last third against the first."""
    warm = rows[min(WARM_MINUTES, len(rows)) - 1 :]
    resident = [row["resident_bytes"] for row in warm]
    third = max(1, len(rows) // 3)
    first, last = (
        statistics.median(row["frame_ms"] for row in part) for part in (rows[:third], rows[-third:])
    )
    growth = max(resident) - resident[0]
    return {
        "growth_bytes": growth,
        "slowdown": last / first,
        "flat": growth <= MOST_GROWTH,
        "steady": last / first <= MOST_SLOWDOWN,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; 1 if memory grew or frames became slower."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak",
        description=(__doc__ or "").strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=int, default=60, help="of audio (default: %(default)s)")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--loss", type=float, default=0.05, help="share of packets lost")
    parser.add_argument("--count", action="store_true", help="count allocations as well")
    args = parser.parse_args(argv)
    if args.count and allocations.counter() is None:
        command = ["-m", "benchmarks.soak", "--minutes", str(args.minutes), "--count"]
        command += ["--engine", args.engine, "--loss", str(args.loss)]
        print(allocations.run_counted(command, 24 * 3600), end="")
        return 0
    found = verdict(soak(args.minutes, args.engine, args.loss))
    print(json.dumps(found))
    return 0 if found["flat"] and found["steady"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
