# SPDX-License-Identifier: Apache-2.0
"""Mutations of ``.afc`` streams: each must end in an AfcError or in codes within range.

    python -m tests.bitstream.fuzz --mutations 10000 --seed 0

prints how often each happened, the slowest read and the peak of memory that a read allocated.
"""

from __future__ import annotations

import argparse
import io
import resource
import time
import tracemalloc
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from affectcodec.bitstream import (
    AfcError,
    AfcReader,
    AfcWriter,
    BlockLayout,
    StreamHeader,
    coded_payload_bits,
)
from affectcodec.bitstream.wire import crc8, crc16, write_varint
from tests.bitstream.coders import CODER_ID, DeflateCoder

HASH = "0123456789abcdef"
MAX_SECONDS = 1.0
MAX_BYTES = 200 * 2**20


def random_codes(
    rng: np.random.Generator, header: StreamHeader, stages: list[int], frames: int
) -> list[npt.NDArray[Any]]:
    """Random codes [K_b, T] of each block."""
    return [
        rng.integers(0, block.codebook_size, (count, frames), np.int64)
        for block, count in zip(header.blocks, stages, strict=True)
    ]


def coder_for(header: StreamHeader) -> DeflateCoder | None:
    """A coder that fits the header; it fails where it is asked for more frames than it takes."""
    if header.coder is None:
        return None
    return DeflateCoder(header.blocks, header.num_stages, max_frames=100)


def random_stream(rng: np.random.Generator) -> bytes:
    """A stream with random blocks, stages, packet sizes, gaps, metadata and trailer; half of all
    are coded, with stage counts that change from frame to frame."""
    blocks: tuple[BlockLayout, ...] = StreamHeader(HASH).blocks
    if rng.random() < 0.5:
        blocks = tuple(
            BlockLayout(f"block{i}", tuple(int(n) for n in rng.integers(2, 9, rng.integers(1, 6))))
            for i in range(rng.integers(1, 5))
        )
    header = StreamHeader(
        HASH,
        blocks=blocks,
        num_stages=int(rng.choice([1, 2, 8, 64])),
        num_samples=int(rng.integers(0, 10**6)) if rng.random() < 0.5 else None,
        loudness_dbfs=-23.0 if rng.random() < 0.5 else None,
        metadata={"title": "a clip", "n": [1, 2.5, None]} if rng.random() < 0.3 else {},
        coder=CODER_ID if rng.random() < 0.5 else None,
    )
    file = io.BytesIO()
    with AfcWriter(
        file,
        header,
        frames_per_packet=int(rng.choice([1, 3, 10, 50])),
        seek_table=bool(rng.random() < 0.5),
        coder=coder_for(header),
    ) as writer:
        for _ in range(rng.integers(0, 6)):
            stages = [int(k) for k in rng.integers(0, header.num_stages + 1, len(blocks))]
            stages[0] = max(1, stages[0])
            frames, counts = int(rng.integers(0, 60)), None
            if header.coder is not None and rng.random() < 0.8:
                counts = rng.integers(0, np.array(stages)[:, None] + 1, (len(blocks), frames))
            writer.write(random_codes(rng, header, stages, frames), counts)
            if rng.random() < 0.1:
                writer.skip(int(rng.integers(0, 5000)))
    return file.getvalue()


def _with_valid_checks(rng: np.random.Generator, data: bytes, low: int) -> bytes:
    """Forge: hostile values under checksums that hold, which random flips never reach."""
    kind = rng.integers(0, 3)
    if kind == 0 and low == 0:  # a header with flipped bytes and the right CRC
        head = bytearray(data[:40])
        size = 5 + head[4] if len(head) > 4 else len(data) + 1
        if 8 < size <= len(data) and head[4] < 0x80:
            head = bytearray(data[: size - 2])
            head[int(rng.integers(3, len(head)))] = int(rng.integers(0, 256))
            return bytes(head) + crc16(head).to_bytes(2, "little") + data[size:]
        return data
    fields = b"".join(
        write_varint(int(n)) for n in (2 ** rng.uniform(0, 41), 2 ** rng.uniform(0, 13))
    ) + bytes([int(rng.choice([0, 1, 2, 8, 64, 255]))])
    payload = rng.bytes(int(rng.integers(0, 100)))
    if rng.random() < 0.5:  # as coded packets have it: a size, which need not be the right one
        fields += write_varint(int(rng.choice([len(payload), rng.integers(0, 70_000)])))
    forged = bytes([0xAC, crc8(fields)]) + fields
    forged += crc16(fields + payload).to_bytes(2, "little") + payload
    place = int(rng.integers(low, len(data) + 1))
    return data[:place] + forged * int(rng.choice([1, 1, 20])) + data[place:]


def mutate(rng: np.random.Generator, data: bytes) -> bytes:
    """One to six random changes: flips, cuts, insertions, repeats, swaps and forgeries.

    Four in five leave the first bytes alone: behind a damaged header nothing else is reached.
    """
    low = 0 if rng.random() < 0.2 else 100
    for _ in range(int(rng.integers(1, 7))):
        if len(data) <= low:
            low = 0
        if not data:
            return rng.bytes(8)
        a, b = sorted(int(n) for n in rng.integers(low, len(data) + 1, 2))
        kind = int(rng.integers(0, 9))
        if kind <= 2:
            place = int(rng.integers(low, len(data)))
            flipped = data[place] ^ (1 << int(rng.integers(0, 8)))
            data = data[:place] + bytes([flipped]) + data[place + 1 :]
        elif kind == 3:
            data = data[:a]
        elif kind == 4:
            data = data[:a] + data[b:]
        elif kind == 5:
            data = data[:a] + rng.bytes(int(rng.integers(1, 64))) + data[a:]
        elif kind == 6:
            data = data[:b] + data[a:b] + data[b:]
        elif kind == 7:
            data = data[:a] + rng.choice([b"\xff", b"\x00", b"\xac", b"AFCT"]) * (b - a) + data[b:]
        else:
            data = _with_valid_checks(rng, data, low)
    return data


def read_untrusted(data: bytes) -> str:
    """Read ``data`` in every way there is; returns what became of it.

    Raises:
        AssertionError: codes out of range or shapes that disagree.
        Exception: anything that is no AfcError is a defect of the reader.
    """
    try:
        header = AfcReader(data).header
        coder = coder_for(header)
        with AfcReader(data, coder=coder) as reader:
            codes, mask, report = reader.read_all()
    except AfcError:
        return "error"
    frames = len(mask)
    assert report.frame_stages is not None
    assert report.frame_stages.shape == (len(header.blocks), frames)
    assert report.frames_recovered == int(mask.sum())
    for block, stages in zip(header.blocks, report.frame_stages, strict=True):
        array = codes[block.name]
        assert array.shape[1] == frames
        assert array.shape[0] <= header.num_stages
        assert not len(stages) or stages.max() <= array.shape[0]
        assert not array.size or 0 <= array.min() <= array.max() < block.codebook_size
    _seek_untrusted(data, frames, coder)
    _read_as_live(data, coder)
    assert coded_payload_bits(data) <= 8 * len(data)
    return "ok" if report.ok else "reported"


def _seek_untrusted(data: bytes, frames: int, coder: DeflateCoder | None) -> None:
    reader = AfcReader(data, coder=coder)
    for frame in (frames // 2, 0, 2 * frames):
        try:
            start = reader.seek(frame)
        except AfcError:
            continue
        packet = reader.next_packet()
        assert packet is None or packet.start == start or reader.report.discontinuities


def _read_as_live(data: bytes, coder: DeflateCoder | None) -> None:
    """The same bytes from a source that cannot seek, with the end not known to be the end."""
    reader = AfcReader(Pipe(data), coder=coder)
    while reader.next_packet(final=False) is not None:
        pass
    while reader.next_packet() is not None:
        pass


class Pipe:
    """A source that can only be read."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    def read(self, size: int) -> bytes:
        return self._file.read(size)


@dataclass
class Result:
    """Figures of a run."""

    outcomes: dict[str, int] = field(default_factory=dict)
    max_seconds: float = 0.0
    max_bytes: int = 0
    slowest: int = 0


def run(mutations: int, seed: int, *, measure_memory: bool = True) -> Result:
    """Read ``mutations`` random mutations; mutation ``i`` of a seed is always the same."""
    result = Result()
    streams: list[bytes] = []
    for index in range(mutations):
        rng = np.random.default_rng([seed, index])
        if index % 50 == 0:
            streams = [random_stream(rng) for _ in range(4)]
        data = mutate(rng, streams[int(rng.integers(0, len(streams)))])
        if measure_memory:
            tracemalloc.start()
        begin = time.process_time()
        try:
            outcome = read_untrusted(data)
        except Exception as error:
            raise AssertionError(f"mutation {index} of seed {seed}: {error!r}") from error
        finally:
            seconds = time.process_time() - begin
            if measure_memory:
                result.max_bytes = max(result.max_bytes, tracemalloc.get_traced_memory()[1])
                tracemalloc.stop()
        result.outcomes[outcome] = result.outcomes.get(outcome, 0) + 1
        if seconds > result.max_seconds:
            result.max_seconds, result.slowest = seconds, index
    return result


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutations", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    begin = time.process_time()
    result = run(args.mutations, args.seed)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{args.mutations} mutations in {time.process_time() - begin:.0f} s: {result.outcomes}")
    print(f"slowest: mutation {result.slowest}, {result.max_seconds * 1000:.1f} ms of CPU, traced")
    print(
        f"most memory of a read {result.max_bytes / 2**20:.2f} MiB, of the process {peak:.0f} MiB"
    )


if __name__ == "__main__":
    main()
