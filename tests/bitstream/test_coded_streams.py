# SPDX-License-Identifier: Apache-2.0
"""Streams of coded packets: written, read, cut, damaged, followed while they grow."""

from __future__ import annotations

import dataclasses
import io
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from affectcodec.bitstream import (
    AfcCoderError,
    AfcError,
    AfcHashMismatch,
    AfcLimitError,
    AfcReader,
    AfcSizeError,
    AfcWriter,
    BlockLayout,
    StreamHeader,
    coded_payload_bits,
    read_tokens,
    serialize_packet,
    write_tokens,
)
from affectcodec.tokens import Tokens
from tests.bitstream.coders import CODER_ID, DeflateCoder
from tests.bitstream.streams import HASH, Pipe, make_codes, packet_offsets
from tests.bitstream.test_coded import cut, random_stages
from tests.bitstream.test_tokens_io import CONFIG, _assert_equal, make_tokens

CODER = DeflateCoder()
HEADER = StreamHeader(HASH, coder=CODER_ID, num_samples=29 * 320)


def make_coded(
    frames: int = 30, per_packet: int = 10, seek_table: bool | None = None
) -> tuple[bytes, list[npt.NDArray[Any]], npt.NDArray[Any]]:
    """A stream, its codes [K_b, T] and stage counts [G, T] from 0 to 3 and 0 to 2."""
    codes, stages = make_codes(HEADER, (3, 2), frames), random_stages((3, 2), frames)
    stages[:, :1] = [[3], [2]]
    file = io.BytesIO()
    with AfcWriter(
        file, HEADER, frames_per_packet=per_packet, seek_table=seek_table, coder=CODER
    ) as writer:
        writer.write(codes, stages)
    return file.getvalue(), cut(codes, stages), stages


def with_varying_stages(tokens: Tokens, most: int = 4, seed: int = 0) -> Tokens:
    """Tokens whose counts change from frame to frame, some of them to 0."""
    frames = tokens.num_frames
    stages = torch.from_numpy(random_stages((most, most), frames, seed))[None]
    if frames:
        stages[:, :, 0] = most
    codes = torch.zeros_like(tokens.codes)
    for block, (name, base) in enumerate(tokens.quantizer.token_bases().items()):
        digits = tokens.block_codes(name)
        there = torch.arange(most)[None, :, None] < stages[:, block, None]
        codes += torch.where(there, digits, 0).to(codes.dtype) * base
    return dataclasses.replace(tokens, codes=codes, frame_stages=stages)


def written(tokens: Tokens, coder: DeflateCoder = CODER, **options: Any) -> bytes:
    file = io.BytesIO()
    write_tokens(file, tokens, coder=coder, **options)
    return file.getvalue()


# ---- writing --------------------------------------------------------------------------------


def test_counts_that_change_begin_no_packet() -> None:
    data, codes, stages = make_coded()
    reader = AfcReader(data, coder=CODER)
    back, mask, report = reader.read_all()
    assert report.ok and mask.all() and report.frame_stages is not None
    np.testing.assert_array_equal(report.frame_stages, stages)
    for array, wanted in zip(back.values(), codes, strict=True):
        np.testing.assert_array_equal(array, wanted)
    assert [packet.frames for packet in AfcReader(data, coder=CODER)] == [10, 10, 10]


def test_parts_with_more_and_fewer_stages_share_a_packet() -> None:
    file, parts = io.BytesIO(), [make_codes(HEADER, k, 3, seed=3) for k in ((1, 0), (0, 2), (4, 4))]
    with AfcWriter(file, HEADER, coder=CODER) as writer:
        for part in parts:
            writer.write(part)
        writer.write(make_codes(HEADER, 0, 2))
        assert writer.frames == 11
    (packet,) = AfcReader(file.getvalue(), coder=CODER)
    assert packet.frame_stages.tolist() == [
        [1] * 3 + [0] * 3 + [4] * 3 + [0] * 2,
        [0] * 3 + [2] * 3 + [4] * 3 + [0] * 2,
    ]
    np.testing.assert_array_equal(packet.codes[1][:2, 3:6], parts[1][1])


def test_a_writer_with_a_coder_names_it_in_the_header() -> None:
    file = io.BytesIO()
    AfcWriter(file, StreamHeader(HASH), coder=CODER).close()
    assert AfcReader(file.getvalue()).header.coder == CODER_ID
    with pytest.raises(AfcCoderError, match="0{16}"):
        AfcWriter(io.BytesIO(), HEADER, coder=DeflateCoder(id="0" * 16))


def test_packets_hold_five_seconds_or_what_the_coder_takes() -> None:
    tokens = make_tokens(1000)
    assert [p.frames for p in AfcReader(written(tokens), coder=CODER)] == [250] * 4
    small = DeflateCoder(max_frames=64)
    frames = [p.frames for p in AfcReader(written(tokens, small), coder=small)]
    assert max(frames) <= 64 and sum(frames) == 1000
    with pytest.raises(AfcError, match=r"frames_per_packet: expected 1\.\.64"):
        AfcWriter(io.BytesIO(), HEADER, frames_per_packet=65, coder=small)


def test_packets_whose_payload_grows_too_large_are_halved() -> None:
    class Wide(DeflateCoder):
        def encode(self, codes: Any, stages: Any) -> bytes:
            data = super().encode(codes, stages)
            return data + bytes(0 if stages.shape[1] <= 30 else 65536)

        def decode(self, data: bytes, frames: int, most: tuple[int, ...]) -> Any:
            return super().decode(data, frames, most)

    tokens = with_varying_stages(make_tokens(101, 4))
    data = written(tokens, Wide(), frames_per_packet=101)
    assert [p.frames for p in AfcReader(data, coder=CODER)] == [26, 19, 28, 28]
    _assert_equal(read_tokens(data, quantizer=CONFIG, coder=CODER)[0], tokens)

    class Hopeless(DeflateCoder):
        def encode(self, codes: Any, stages: Any) -> bytes:
            return bytes(65536)

    with pytest.raises(AfcSizeError):
        written(make_tokens(9), Hopeless())


def test_a_plain_writer_takes_no_counts() -> None:
    with (
        AfcWriter(io.BytesIO(), StreamHeader(HASH)) as writer,
        pytest.raises(AfcError, match="coder"),
    ):
        writer.write(make_codes(HEADER, 1, 2), np.ones((2, 2), int))


def test_bad_counts_leave_the_stream_as_it_was() -> None:
    file = io.BytesIO()
    with AfcWriter(file, HEADER, coder=CODER) as writer:
        writer.write(make_codes(HEADER, 1, 4))
        with pytest.raises(AfcError, match="frame_stages"):
            writer.write(make_codes(HEADER, 1, 2), np.full((2, 2), 2))
    assert AfcReader(file.getvalue(), coder=CODER).read_all()[2].frames_recovered == 4


# ---- tokens ---------------------------------------------------------------------------------


@pytest.mark.parametrize("frames", [0, 1, 2, 249, 801])
@pytest.mark.parametrize("varying", [False, True])
def test_tokens_come_back_as_they_were(tmp_path: Path, frames: int, varying: bool) -> None:
    tokens = make_tokens(frames, 4 if frames else None)
    if varying and frames > 1:
        tokens = with_varying_stages(tokens)
    path = tmp_path / "clip.afc"
    write_tokens(path, tokens, coder=CODER)
    back, report = read_tokens(path, quantizer=CONFIG, expected_hash=HASH, coder=CODER)
    assert report.ok
    _assert_equal(back, tokens)


def test_a_clip_without_any_stage_comes_back() -> None:
    tokens = dataclasses.replace(
        make_tokens(600, 8),
        codes=torch.zeros(1, 8, 600, dtype=torch.int32),
        frame_stages=torch.zeros(1, 2, 600, dtype=torch.int64),
    )
    coder = DeflateCoder()
    back, report = read_tokens(written(tokens, coder), quantizer=CONFIG, coder=coder)
    assert report.ok and coder.decoded == 0
    _assert_equal(back, tokens)


def test_stages_are_cut_by_reading_and_writing_again() -> None:
    tokens = with_varying_stages(make_tokens(60, 4))
    whole, _ = read_tokens(written(tokens), quantizer=CONFIG, coder=CODER)
    small = whole.truncate({"emotion": 4, "acoustic": 1})
    data = written(small)
    assert coded_payload_bits(data) < coded_payload_bits(written(tokens))
    _assert_equal(read_tokens(data, quantizer=CONFIG, coder=CODER)[0], small)


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "clip.afc"
    path.write_bytes(b"old")
    with pytest.raises(AfcCoderError):
        write_tokens(path, make_tokens(5), coder=DeflateCoder(num_stages=2))
    other = (BlockLayout("emotion", (2, 2)), BlockLayout("acoustic", (4,) * 6))
    with pytest.raises(AfcCoderError):
        write_tokens(path, make_tokens(5), coder=DeflateCoder(other))
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


# ---- the coder of a stream ------------------------------------------------------------------


def test_the_reader_looks_the_coder_up_with_the_first_packet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = written(make_tokens(5))
    monkeypatch.setitem(sys.modules, "affectcodec.entropy", None)
    reader = AfcReader(data)  # the header needs no coder
    with pytest.raises(AfcCoderError, match=r"pip install constriction"):
        reader.next_packet()
    with pytest.raises(AfcCoderError, match=r"pip install constriction"):
        AfcReader(data).seek(3)
    with pytest.raises(AfcCoderError, match=r"pip install constriction"):
        read_tokens(data)
    with pytest.raises(AfcHashMismatch):  # said first: another coder would not help
        read_tokens(data, expected_hash="f" * 16)
    package = SimpleNamespace(find_prior={CODER_ID: CODER}.__getitem__)
    monkeypatch.setitem(sys.modules, "affectcodec.entropy", package)
    _assert_equal(read_tokens(data, quantizer=CONFIG)[0], make_tokens(5))


def test_another_coder_is_an_error_and_plain_streams_need_none() -> None:
    data = written(make_tokens(5))
    with pytest.raises(AfcCoderError, match=f"{CODER_ID}.*{'0' * 16}"):
        AfcReader(data, coder=DeflateCoder(id="0" * 16))
    file = io.BytesIO()
    write_tokens(file, make_tokens(5))
    assert read_tokens(file.getvalue(), coder=CODER)[1].ok


def test_a_reader_of_packets_without_the_coder_counts_and_measures() -> None:
    data, _, stages = make_coded(seek_table=True)
    reader = AfcReader(data, decode=False)
    for start, packet in zip((0, 10, 20), reader, strict=True):
        part = stages[:, start : start + 10]
        assert packet.status == "ok" and packet.mask.all()
        assert (packet.frame_stages == part.max(axis=1, keepdims=True)).all()
        assert [array.shape for array in packet.codes] == [(0, 10), (0, 10)]
    assert reader.report.ok and reader.report.frames_recovered == 30


@pytest.mark.parametrize("make", [lambda data: data, Pipe])
def test_payload_bits_leave_the_container_out(make: Any) -> None:
    data, codes, stages = make_coded(seek_table=True)
    payloads = [
        CODER.encode(
            [
                a[: row.max(), i : i + 10]
                for a, row in zip(codes, stages[:, i : i + 10], strict=True)
            ],
            stages[:, i : i + 10].astype(np.uint8),
        )
        for i in (0, 10, 20)
    ]
    assert coded_payload_bits(make(data)) == 8 * sum(map(len, payloads))
    file = io.BytesIO()
    write_tokens(file, make_tokens(64, 2))
    assert coded_payload_bits(file.getvalue()) == 64 * 30


# ---- damage ---------------------------------------------------------------------------------


def test_truncation_at_every_byte() -> None:
    data, codes, stages = make_coded()
    offsets = packet_offsets(data, HEADER)
    for size in range(offsets[0], len(data)):
        back, mask, report = AfcReader(data[:size], coder=CODER).read_all()
        frames = sum(size >= end for end in offsets[1:]) * 10
        assert mask.all() and len(mask) == frames == report.frames_recovered
        assert report.truncated and report.frames_missing == 30 - frames
        assert not report.frames_partial and report.frame_stages is not None
        np.testing.assert_array_equal(report.frame_stages, stages[:, :frames])
        for array, wanted in zip(back.values(), codes, strict=True):
            np.testing.assert_array_equal(array, wanted[: len(array), :frames])


@pytest.mark.parametrize("make", [lambda data: data, Pipe])
def test_any_damaged_byte_costs_one_packet(make: Any) -> None:
    data, codes, _ = make_coded()
    offsets = packet_offsets(data, HEADER)
    for place in range(offsets[1], offsets[2]):
        damaged = data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :]
        back, mask, report = AfcReader(make(damaged), coder=CODER).read_all()
        assert mask.tolist() == [True] * 10 + [False] * 10 + [True] * 10, place
        assert report.damaged_packets == 1 and report.frames_missing == 0
        np.testing.assert_array_equal(back["acoustic"][:, mask], codes[1][:, mask])


def test_bytes_lost_or_added_inside_a_packet_cost_one_packet() -> None:
    data, _, _ = make_coded(50)
    start = packet_offsets(data, HEADER)[2]
    for damaged in (
        data[: start + 12] + data[start + 25 :],
        data[: start + 12] + b"\xac" * 30 + data[start + 12 :],
        data[:start] + bytes(3000) + data[start:],
    ):
        _, mask, report = AfcReader(damaged, coder=CODER).read_all()
        assert len(mask) == 50 and report.frames_recovered >= 40
        assert report.damaged_packets == 1 and report.skipped_bytes > 0


def test_a_payload_the_coder_refuses_under_good_checksums_is_lost() -> None:
    class Junk(DeflateCoder):
        def encode(self, codes: Any, stages: Any) -> bytes:
            return b"no deflate at all"

    bad = serialize_packet(make_codes(HEADER, 1, 10), HEADER, 10, coder=Junk())
    data, _, _ = make_coded(10)
    reader = AfcReader(data + bad, coder=CODER)
    _, mask, report = reader.read_all()
    assert mask.tolist() == [True] * 10 + [False] * 10
    assert (report.damaged_packets, report.frames_lost) == (1, 10)


def test_frames_beyond_the_coder_are_junk() -> None:
    small = DeflateCoder(max_frames=20)
    data, _, _ = make_coded(30, per_packet=30)
    _, mask, report = AfcReader(data, coder=small).read_all()
    assert not len(mask) and report.damaged_packets == 1 and small.decoded == 0


def test_packets_without_stages_do_not_pass_the_limit_of_memory() -> None:
    coder = DeflateCoder(max_frames=4096)
    nothing = make_codes(HEADER, 0, 4096)
    packets = b"".join(serialize_packet(nothing, HEADER, i * 4096, coder=coder) for i in range(300))
    with pytest.raises(AfcLimitError):
        AfcReader(HEADER.to_bytes() + packets, coder=coder).read_all(max_codes=10**6)


# ---- access ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seek_table", [False, True])
def test_seek_decodes_nothing_on_its_way(seek_table: bool) -> None:
    data, codes, _ = make_coded(100, per_packet=7, seek_table=seek_table)
    coder = DeflateCoder()
    reader = AfcReader(data, coder=coder)
    for count, frame in enumerate((50, 3, 99, 0, 51), 1):
        assert reader.seek(frame) == frame // 7 * 7
        packet = reader.next_packet()
        assert packet is not None and packet.status == "ok" and coder.decoded == count
        wanted = codes[1][: len(packet.codes[1]), packet.start : packet.end]
        np.testing.assert_array_equal(packet.codes[1], wanted)


def test_skipped_frames_and_packets_that_come_twice() -> None:
    file = io.BytesIO()
    with AfcWriter(file, StreamHeader(HASH), coder=CODER) as writer:
        writer.write(make_codes(HEADER, 1, 3))
        writer.skip(4)
        writer.write(make_codes(HEADER, 1, 2))
    data = file.getvalue()
    header = StreamHeader(HASH, coder=CODER_ID)
    _, second, end = packet_offsets(data, header)
    _, mask, report = AfcReader(data + data[second:end], coder=CODER).read_all()
    assert mask.tolist() == [True] * 3 + [False] * 4 + [True] * 2
    assert report.frames_lost == 4 and report.duplicate_packets == 1


def test_a_pipe_is_read_no_further_than_the_packet() -> None:
    data, _, _ = make_coded()
    pipe, offsets = Pipe(data), packet_offsets(data, HEADER)
    reader = AfcReader(pipe, coder=CODER)
    for end in offsets[1:]:
        assert reader.next_packet() is not None
        assert pipe.taken == end


def test_a_reader_follows_a_stream_that_grows() -> None:
    data, codes, _ = make_coded(seek_table=True)
    offsets = packet_offsets(data, HEADER)
    file = io.BytesIO(data[: offsets[0]])
    reader, got = AfcReader(file, coder=CODER), []
    for size in range(offsets[0] + 1, len(data) + 1):
        place = file.tell()
        file.seek(0, io.SEEK_END)
        file.write(data[size - 1 : size])
        file.seek(place)
        while (packet := reader.next_packet(final=False)) is not None:
            assert size in offsets and packet.status == "ok"
            got.append(packet.codes[0])
    assert len(got) == 3 and reader.report.ok and reader.report.trailer == "ok"
    np.testing.assert_array_equal(got[1], codes[0][: len(got[1]), 10:20])
