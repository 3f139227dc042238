# SPDX-License-Identifier: Apache-2.0
"""Reader: whole streams, cut ones, damaged ones, random access."""

from __future__ import annotations

import io
import itertools
import os
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from affectcodec.bitstream import (
    AfcError,
    AfcHashMismatch,
    AfcReader,
    AfcSeekError,
    AfcWriter,
    BlockLayout,
    StreamHeader,
    serialize_packet,
    truncate_packet,
)
from tests.bitstream.streams import HASH, Pipe, make_codes, make_stream, packet_offsets

HEADER = StreamHeader(HASH)


def _flip(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :]


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_round_trip_of_ragged_streams(data: st.DataObject) -> None:
    levels = st.lists(st.integers(2, 9), min_size=1, max_size=4)
    blocks = data.draw(st.lists(levels, min_size=1, max_size=4))
    header = StreamHeader(
        HASH,
        blocks=tuple(BlockLayout(f"b{i}", tuple(block)) for i, block in enumerate(blocks)),
        num_stages=data.draw(st.integers(1, 10)),
    )
    file, parts, stages = io.BytesIO(), [], []
    with AfcWriter(file, header, frames_per_packet=data.draw(st.integers(1, 12))) as writer:
        for index in range(data.draw(st.integers(0, 4))):
            one = st.integers(0, header.num_stages)
            counts = data.draw(st.lists(one, min_size=len(blocks), max_size=len(blocks)))
            counts[0] = max(1, counts[0])
            part = make_codes(header, counts, data.draw(st.integers(0, 30)), seed=index)
            writer.write(part)
            parts.append(part)
            stages += [counts] * part[0].shape[1]
    codes, mask, report = AfcReader(file.getvalue()).read_all()
    assert report.ok and mask.all() and len(mask) == len(stages)
    assert report.frame_stages is not None and report.frame_stages.T.tolist() == stages
    start = 0
    for part in parts:
        end = start + part[0].shape[1]
        for block, array in zip(header.blocks, part, strict=True):
            if end > start:
                np.testing.assert_array_equal(codes[block.name][: len(array), start:end], array)
                assert not codes[block.name][len(array) :, start:end].any()
        start = end


@pytest.mark.parametrize("seek_table", [False, True])
def test_an_empty_clip(seek_table: bool) -> None:
    header = StreamHeader(HASH, num_samples=0)
    data = make_stream(header, make_codes(header, 2, 0), seek_table=seek_table)
    codes, mask, report = AfcReader(data).read_all()
    assert report.ok and report.frames_missing == 0 and len(mask) == 0
    assert {name: array.shape for name, array in codes.items()} == {
        "emotion": (0, 0),
        "acoustic": (0, 0),
    }


def test_packets_of_one_frame_and_sources_that_cannot_seek() -> None:
    codes = make_codes(HEADER, 3, 40)
    data = make_stream(HEADER, codes, frames_per_packet=1)
    for step in (1, 7, 1 << 20):
        reader = AfcReader(Pipe(data, step))
        back, _, report = reader.read_all()
        assert report.ok and report.trailer == "ok" and report.frames_recovered == 40
        np.testing.assert_array_equal(back["acoustic"], codes[1])


def test_a_pipe_is_read_no_further_than_the_packet() -> None:
    data = make_stream(HEADER, make_codes(HEADER, 2, 30), frames_per_packet=10)
    pipe, offsets = Pipe(data), packet_offsets(data, HEADER)
    reader = AfcReader(pipe)
    assert pipe.taken == offsets[0]
    for end in offsets[1:]:
        assert reader.next_packet() is not None
        assert pipe.taken == end


def test_a_real_pipe_delivers_packets_as_they_come() -> None:
    inlet, outlet = os.pipe()
    codes, got = make_codes(HEADER, 2, 5), threading.Semaphore(0)

    def write() -> None:
        with os.fdopen(outlet, "wb") as file, AfcWriter(file, HEADER, frames_per_packet=1) as out:
            for frame in range(5):
                out.write([a[:, frame : frame + 1] for a in codes])
                assert got.acquire(timeout=10)  # the reader must not need the next packet

    thread = threading.Thread(target=write)
    thread.start()
    with os.fdopen(inlet, "rb") as file:
        for frame, packet in enumerate(AfcReader(file)):
            assert packet.start == frame
            got.release()
    thread.join()
    assert frame == 4


def test_truncation_at_every_byte() -> None:
    header = StreamHeader(HASH, num_samples=29 * 320)
    codes = make_codes(header, 2, 30)
    data = make_stream(header, codes, frames_per_packet=10)
    offsets = packet_offsets(data, header)
    for size in range(offsets[0], len(data)):
        back, mask, report = AfcReader(data[:size]).read_all()
        whole = sum(size >= end for end in offsets[1:]) * 10
        bits = max(0, size - offsets[whole // 10] - 7) * 8
        frames = whole + min(10, bits // 3)
        assert mask.all() and len(mask) == frames == report.frames_recovered
        assert report.truncated and report.frames_missing == 30 - frames
        assert report.frame_stages is not None
        assert report.frames_partial == int((report.frame_stages < 2).any(axis=0).sum())
        for array, wanted, stages in zip(back.values(), codes, report.frame_stages, strict=True):
            there = np.arange(len(array))[:, None] < stages
            np.testing.assert_array_equal(array, np.where(there, wanted[: len(array), :frames], 0))
    assert AfcReader(data).read_all()[2].ok


def test_a_cut_trailer_costs_no_frame() -> None:
    data = make_stream(HEADER, make_codes(HEADER, 2, 30), seek_table=True)
    end = packet_offsets(data, HEADER)[-1]
    for size in range(end + 1, len(data)):
        report = AfcReader(data[:size]).read_all()[2]
        assert report.frames_recovered == 30 and report.trailer == "damaged", size
        assert report.damaged_packets == 0 and not report.truncated


@pytest.mark.parametrize("make", [lambda data: data, Pipe])
def test_a_damaged_trailer_fools_nobody(make: type) -> None:
    data = make_stream(HEADER, make_codes(HEADER, 2, 30), frames_per_packet=3, seek_table=True)
    end = packet_offsets(data, HEADER)[-1]
    for place in range(end, len(data)):
        reader = AfcReader(make(_flip(data, place)))
        assert reader.seek(17) == 15
        packet = reader.next_packet()
        assert packet is not None and packet.start == 15
        report = reader.read_all()[2]
        assert reader.report.trailer == "damaged" or place < end + 4
        assert not report.ok and report.frames_recovered >= 12


def test_a_lying_seek_table_is_not_believed() -> None:
    from affectcodec.bitstream.trailer import Trailer

    data = make_stream(HEADER, make_codes(HEADER, 2, 30), frames_per_packet=3)
    for offset in (1, 10**6, 2**59, len(data) - 30):
        lie = Trailer(30, None, ((0, 0), (9, offset))).to_bytes()
        assert AfcReader(data + lie).seek(20) == 18


@pytest.mark.parametrize("conceal", ["repeat", "zero"])
def test_a_damaged_payload_is_concealed(conceal: str) -> None:
    codes = make_codes(HEADER, (2, 1), 60)
    data = make_stream(HEADER, codes, frames_per_packet=20)
    place = packet_offsets(data, HEADER)[1] + 12
    back, mask, report = AfcReader(_flip(data, place)).read_all(conceal=conceal)
    assert mask.tolist() == [True] * 20 + [False] * 20 + [True] * 20
    assert (report.damaged_packets, report.frames_lost, report.skipped_bytes) == (1, 20, 0)
    assert report.frame_stages is not None
    held = 10 if conceal == "repeat" else 0
    for array, wanted, stages in zip(back.values(), codes, report.frame_stages, strict=True):
        np.testing.assert_array_equal(array[:, mask], wanted[:, mask])
        np.testing.assert_array_equal(array[:, 20 : 20 + held], wanted[:, [19] * held])
        assert (stages[20 : 20 + held] == len(wanted)).all()
        assert not array[:, 20 + held : 40].any() and not stages[20 + held : 40].any()


def test_repeats_end_after_10_frames_whatever_the_packets() -> None:
    data = make_stream(HEADER, make_codes(HEADER, 2, 60), frames_per_packet=4)
    for start in packet_offsets(data, HEADER)[2:9]:
        data = _flip(data, start + 9)
    report = AfcReader(data).read_all()[2]
    assert report.frames_lost == 28 and report.frame_stages is not None
    assert report.frame_stages[0].tolist() == [2] * 18 + [0] * 18 + [2] * 24


def test_losses_at_the_start_become_zeros() -> None:
    data = make_stream(HEADER, make_codes(HEADER, 2, 20), frames_per_packet=10)
    back, mask, report = AfcReader(_flip(data, 40)).read_all()
    assert not mask[:10].any() and mask[10:].all() and report.frame_stages is not None
    assert not back["emotion"][:, :10].any() and not report.frame_stages[:, :10].any()


@pytest.mark.parametrize("make", [lambda data: data, Pipe])
def test_any_damaged_byte_costs_one_packet(make: type) -> None:
    header = StreamHeader(HASH, num_samples=49 * 320)
    codes = make_codes(header, 2, 50)
    data = make_stream(header, codes, frames_per_packet=10)
    offsets = packet_offsets(data, header)
    for place in range(offsets[2], offsets[3]):
        back, mask, report = AfcReader(make(_flip(data, place))).read_all()
        assert mask.tolist() == [True] * 20 + [False] * 10 + [True] * 20, place
        assert report.damaged_packets == 1 and report.frames_missing == 0
        np.testing.assert_array_equal(back["acoustic"][:, mask], codes[1][:, mask])


def test_bytes_lost_or_added_inside_a_packet_cost_one_packet() -> None:
    data = make_stream(HEADER, make_codes(HEADER, 2, 50), frames_per_packet=10)
    start = packet_offsets(data, HEADER)[2]
    for damaged in (
        data[: start + 12] + data[start + 25 :],
        data[: start + 12] + b"\xac" * 30 + data[start + 12 :],
        data[:start] + b"AFCT" * 9 + data[start + 1 :],
        data[:start] + bytes(3000) + data[start:],
    ):
        _, mask, report = AfcReader(damaged).read_all()
        assert len(mask) == 50 and report.frames_recovered >= 40
        assert report.damaged_packets == 1 and report.skipped_bytes > 0


def test_a_damaged_last_packet_is_missed_through_the_sample_count() -> None:
    header = StreamHeader(HASH, num_samples=29 * 320)
    data = make_stream(header, make_codes(header, 2, 30), frames_per_packet=10)
    report = AfcReader(_flip(data, packet_offsets(data, header)[2])).read_all()[2]
    assert report.frames_recovered == 20 and report.frames_missing == 10 and report.truncated
    assert "10 frames missing at the end" in str(report)


def test_packets_that_come_twice_are_left_out() -> None:
    data = make_stream(HEADER, make_codes(HEADER, 2, 30), frames_per_packet=10)
    _, first, second, _ = packet_offsets(data, HEADER)
    _, mask, report = AfcReader(data[:second] + data[first:]).read_all()
    assert mask.all() and len(mask) == 30 and report.duplicate_packets == 1


def test_a_relay_lowers_the_rate_of_a_stream() -> None:
    codes = make_codes(HEADER, 8, 30)
    data = make_stream(HEADER, codes, frames_per_packet=10)
    offsets = packet_offsets(data, HEADER)
    relayed = data[: offsets[0]]
    for (start, end), stages in zip(
        itertools.pairwise(offsets), (8, {"acoustic": 2}, 1), strict=True
    ):
        relayed += truncate_packet(data[start:end], HEADER, stages)
    back, _, report = AfcReader(relayed).read_all()
    assert report.ok and report.frame_stages is not None
    assert report.frame_stages[:, ::10].tolist() == [[8, 8, 1], [8, 2, 1]]
    np.testing.assert_array_equal(back["emotion"][:, :20], codes[0][:, :20])
    np.testing.assert_array_equal(back["acoustic"][:2, 10:20], codes[1][:2, 10:20])


def test_a_hash_mismatch_names_both_and_can_be_overridden() -> None:
    data = make_stream(HEADER, make_codes(HEADER, 2, 3))
    other = "f" * 16
    with pytest.raises(AfcHashMismatch, match=f"(?s){HASH}.*{other}.*check_hash=False"):
        AfcReader(data, expected_hash=other)
    assert AfcReader(data, expected_hash=HASH).header.config_hash == HASH
    assert AfcReader(data, expected_hash=other, check_hash=False).read_all()[2].ok


@pytest.mark.parametrize("seek_table", [False, True])
def test_seek(seek_table: bool) -> None:
    codes = make_codes(HEADER, 2, 100)
    data = make_stream(HEADER, codes, frames_per_packet=7, seek_table=seek_table)
    reader = AfcReader(data)
    for frame in (50, 3, 99, 0, 51, 52, 6, 7):
        assert reader.seek(frame) == frame // 7 * 7
        packet = reader.next_packet()
        assert packet is not None and packet.status == "ok"
        np.testing.assert_array_equal(packet.codes[1], codes[1][:, packet.start : packet.end])
    for frame in (100, 10**9, -1):
        with pytest.raises(AfcSeekError):
            reader.seek(frame)
    assert reader.seek(98) == 98
    assert reader.total_frames == (100 if seek_table else None)


def test_seek_reads_heads_only() -> None:
    class Counting(io.BytesIO):
        taken = 0

        def read(self, size: int | None = -1) -> bytes:  # type: ignore[override]
            data = super().read(size)
            self.taken += len(data)
            return data

    header = StreamHeader(HASH, num_stages=64)
    data = make_stream(header, make_codes(header, 64, 8000), frames_per_packet=500, seek_table=True)
    file = Counting(data)
    assert AfcReader(file).seek(7600) == 7500
    assert file.taken < 300_000 < len(data) // 3


def test_seek_forward_without_going_back() -> None:
    data = make_stream(HEADER, make_codes(HEADER, 2, 100), frames_per_packet=7)
    reader = AfcReader(Pipe(data))
    assert reader.seek(50) == 49
    packet = reader.next_packet()
    assert packet is not None and packet.start == 49
    with pytest.raises(AfcSeekError, match="go back"):
        reader.seek(20)
    assert reader.seek(60) == 56


def test_seek_into_lost_frames_and_over_damage() -> None:
    data = make_stream(HEADER, make_codes(HEADER, 2, 100), frames_per_packet=10)
    offsets = packet_offsets(data, HEADER)
    gap = data[: offsets[3]] + data[offsets[5] :]
    assert AfcReader(gap).seek(44) == 30
    reader = AfcReader(_flip(data, offsets[3]))
    assert reader.seek(75) == 70
    packet = AfcReader(data).next_packet()
    assert packet is not None and packet.start == 0


def test_a_stream_joined_late_begins_where_it_begins() -> None:
    """A jump too long to fill is closed up and reported."""
    late = HEADER.to_bytes() + serialize_packet(make_codes(HEADER, 2, 5), HEADER, 10**6)
    _, mask, report = AfcReader(late).read_all()
    assert len(mask) == 5 and mask.all()
    assert report.discontinuities == 1 and report.frames_lost == 10**6


def test_refuses_an_unknown_concealment() -> None:
    with pytest.raises(AfcError, match="conceal"):
        AfcReader(make_stream(HEADER, make_codes(HEADER, 1, 1))).read_all(conceal="magic")


def test_a_path_that_is_not_there_says_so() -> None:
    with pytest.raises(FileNotFoundError):
        AfcReader("/nonexistent/a.afc")
