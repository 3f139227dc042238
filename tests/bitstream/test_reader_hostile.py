# SPDX-License-Identifier: Apache-2.0
"""Reader on bytes that were made to harm: neither memory nor time is to be had from it."""

from __future__ import annotations

import os
import time
import tracemalloc

import pytest

from affectcodec.bitstream import (
    AfcLimitError,
    AfcReader,
    BlockLayout,
    StreamHeader,
    serialize_packet,
)
from affectcodec.bitstream.framer import MAX_GAP_FRAMES
from affectcodec.bitstream.head import parse_head
from affectcodec.bitstream.wire import crc8, crc16, write_varint
from tests.bitstream import fuzz
from tests.bitstream.streams import HASH, make_codes, make_stream, packet_offsets

HEADER = StreamHeader(HASH)


def _peak_and_seconds(data: bytes) -> tuple[float, float]:
    # Time of this process: other work on the machine must not fail the test.
    tracemalloc.start()
    begin = time.process_time()
    try:
        AfcReader(data).read_all()
    finally:
        seconds = time.process_time() - begin
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak, seconds


def _forged_head(start: int, frames: int, stages: bytes) -> bytes:
    fields = write_varint(start) + write_varint(frames) + stages
    return bytes([0xAC, crc8(fields)]) + fields


@pytest.mark.parametrize(
    "data",
    [
        _forged_head(0, 4096, b"\x08") + b"\0\0",
        _forged_head(0, 2**40, b"\x08"),
        _forged_head(2**39, 1, b"\x08"),
        b"\xac" + b"\xff" * 40,
        b"AFCT\xff\xff\xff\xff",
        b"AFCT" + bytes(4) + b"\xff\xff\xff\x7fTCFA",
    ],
)
def test_length_fields_alone_cost_no_memory(data: bytes) -> None:
    peak, _ = _peak_and_seconds(HEADER.to_bytes() + data)
    assert peak < 2**20


def test_forged_gaps_buy_no_memory() -> None:
    codes = make_codes(HEADER, 1, 1)
    packets = b"".join(serialize_packet(codes, HEADER, i * 3001) for i in range(200))
    _, mask, report = AfcReader(HEADER.to_bytes() + packets).read_all()
    assert len(mask) <= 200 + 200 + MAX_GAP_FRAMES
    assert report.discontinuities >= 198 and report.frames_lost == 199 * 3000


def test_many_frames_of_many_stages_hit_the_limit() -> None:
    header = StreamHeader(HASH, num_stages=64)
    one = make_codes(header, (1, 0), 4096)
    packets = serialize_packet(make_codes(header, 64, 1), header, 0)
    packets += b"".join(serialize_packet(one, header, 1 + i * 4096) for i in range(20))
    data = header.to_bytes() + packets
    with pytest.raises(AfcLimitError, match="max_codes"):
        AfcReader(data).read_all(max_codes=10**6)
    assert AfcReader(data).read_all()[2].frames_recovered == 81921
    assert sum(packet.frames for packet in AfcReader(data)) == 81921


@pytest.mark.parametrize("kind", ["sync", "heads", "trailers", "zeros"])
def test_searching_is_linear(kind: str) -> None:
    """Bytes made to look like packets everywhere: twice the bytes, about twice the time."""
    head = _forged_head(5, 2000, b"\x08")  # 30 kB a packet, every one with a wrong checksum
    unit = {
        "sync": b"\xac",
        "heads": head + b"\1\1",
        "trailers": b"AFCT\0\xff\0\0",
        "zeros": b"\0",
    }
    data = HEADER.to_bytes() + unit[kind] * (200_000 // len(unit[kind]))
    peak, seconds = _peak_and_seconds(data)
    assert peak < 8 * 2**20
    assert seconds < 20  # a quadratic search takes minutes


def test_a_head_that_lies_about_its_length_hides_no_packet_behind_it() -> None:
    data = make_stream(HEADER, make_codes(HEADER, 2, 30), frames_per_packet=10)
    lie = _forged_head(0, 4000, b"\x08") + b"\0\0"
    first = packet_offsets(data, HEADER)[0]
    _, mask, report = AfcReader(data[:first] + lie + data[first:]).read_all()
    assert mask.all() and len(mask) == 30 and report.damaged_packets == 1


def test_a_damaged_head_that_passes_its_check_does_not_swallow_the_rest() -> None:
    """A frame index far ahead, under an 8-bit check that happens to hold."""
    data = make_stream(HEADER, make_codes(HEADER, 2, 30), frames_per_packet=10)
    first, second, *_ = packet_offsets(data, HEADER)
    size = parse_head(data[first:], HEADER).head_size
    lie = _forged_head(10**9, 10, b"\x02") + b"\0\0" + data[first + size : second]
    _, mask, _ = AfcReader(data[:first] + lie + data[second:]).read_all()
    assert mask.tolist() == [False] * 10 + [True] * 20


def test_a_packet_of_unknown_codes_under_a_good_checksum_is_concealed() -> None:
    header = StreamHeader(HASH, blocks=(BlockLayout("a", (5,)),), num_stages=1)
    fields = write_varint(0) + write_varint(2) + b"\x01"
    payload = bytes([0b111_100])
    data = header.to_bytes() + bytes([0xAC, crc8(fields)]) + fields
    data += crc16(fields + payload).to_bytes(2, "little") + payload
    codes, mask, report = AfcReader(data).read_all()
    assert report.damaged_packets == 1 and not mask.any() and codes["a"].max(initial=0) < 5


@pytest.mark.parametrize("seed", range(4))
def test_mutations(seed: int) -> None:
    """AFC_FUZZ_MUTATIONS=10000 runs as many, spread over the seeds."""
    count = int(os.environ.get("AFC_FUZZ_MUTATIONS", "1000")) // 4
    result = fuzz.run(count, seed, measure_memory=False)
    assert sum(result.outcomes.values()) == count
    assert result.max_seconds < fuzz.MAX_SECONDS
    assert {"error", "reported"} <= set(result.outcomes)


def test_memory_of_mutations() -> None:
    assert fuzz.run(60, 99).max_bytes < fuzz.MAX_BYTES
