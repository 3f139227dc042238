# SPDX-License-Identifier: Apache-2.0
"""Writer: packets, sample count, interrupts, readers alongside, overhead."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest

from affectcodec.bitstream import AfcError, AfcReader, AfcWriter, StreamHeader
from affectcodec.bitstream.writer import replace_file
from tests.bitstream.streams import HASH, make_codes, make_stream, packet_offsets

HEADER = StreamHeader(HASH)


class Sink:
    """A file that cannot seek and takes at most ``step`` bytes a write."""

    def __init__(self, step: int = 1 << 30) -> None:
        self.data, self._step = b"", step

    def write(self, data: bytes) -> int:
        self.data += data[: self._step]
        return min(len(data), self._step)


def test_frames_are_gathered_into_packets_of_the_asked_size() -> None:
    file = io.BytesIO()
    with AfcWriter(file, HEADER, frames_per_packet=10) as writer:
        for frames in (3, 0, 4, 17, 1):
            writer.write(make_codes(HEADER, 2, frames))
        assert writer.frames == 25
    assert [p.frames for p in AfcReader(file.getvalue())] == [10, 10, 5]


def test_a_change_of_stages_begins_a_packet() -> None:
    file = io.BytesIO()
    with AfcWriter(file, HEADER, frames_per_packet=10) as writer:
        for stages in (2, (4, 1), (4, 1), 8):
            writer.write(make_codes(HEADER, stages, 3))
    codes, mask, report = AfcReader(file.getvalue()).read_all()
    assert report.ok and mask.all() and report.frame_stages is not None
    assert [a.shape for a in codes.values()] == [(8, 12), (8, 12)]
    assert report.frame_stages.tolist() == [
        [2] * 3 + [4] * 6 + [8] * 3,
        [2] * 3 + [1] * 6 + [8] * 3,
    ]


def test_the_caller_may_reuse_its_buffer() -> None:
    file, codes = io.BytesIO(), make_codes(HEADER, 1, 4)
    wanted = [a.copy() for a in codes]
    with AfcWriter(file, HEADER, frames_per_packet=10) as writer:
        writer.write(codes)
        for array in codes:
            array[:] = 0
    back, _, _ = AfcReader(file.getvalue()).read_all()
    for array, want in zip(back.values(), wanted, strict=True):
        np.testing.assert_array_equal(array, want)


def test_bad_codes_leave_the_stream_as_it_was() -> None:
    file = io.BytesIO()
    with AfcWriter(file, HEADER, frames_per_packet=10) as writer:
        writer.write(make_codes(HEADER, 1, 4))
        with pytest.raises(AfcError):
            writer.write([np.full((1, 2), 9), np.zeros((1, 2), int)])
        with pytest.raises(AfcError, match="0 stages"):
            writer.write([np.zeros((0, 2), int)] * 2)
    assert AfcReader(file.getvalue()).read_all()[2].frames_recovered == 4
    with pytest.raises(AfcError, match="closed"):
        writer.write(make_codes(HEADER, 1, 1))
    writer.close()  # a second time: nothing happens


def test_the_sample_count_is_patched_in_when_it_becomes_known(tmp_path: Path) -> None:
    path = tmp_path / "a.afc"
    with AfcWriter(path, HEADER) as writer:
        writer.write(make_codes(HEADER, 2, 3))
        with AfcReader(path) as reader:
            assert reader.header.num_samples is None
        writer.num_samples = 600
    with AfcReader(path) as reader:
        assert reader.header.num_samples == 600
        assert reader.read_all()[2].ok


def test_the_patch_finds_a_stream_inside_a_larger_file() -> None:
    file = io.BytesIO(b"prefix")
    file.seek(6)
    with AfcWriter(file, HEADER) as writer:
        writer.num_samples = 0
    file.seek(6)
    assert AfcReader(file).header.num_samples == 0
    assert file.getvalue()[:6] == b"prefix"


def test_files_that_cannot_be_patched_carry_the_count_in_the_trailer(tmp_path: Path) -> None:
    sink = Sink(step=5)
    with AfcWriter(sink, HEADER, seek_table=True) as writer:  # type: ignore[arg-type]
        writer.write(make_codes(HEADER, 2, 3))
        writer.num_samples = 640
    path = tmp_path / "a.afc"
    with open(path, "ab") as file, AfcWriter(file, HEADER, seek_table=True) as writer:
        writer.write(make_codes(HEADER, 2, 3))
        writer.num_samples = 640
    for data in (sink.data, path.read_bytes()):
        reader = AfcReader(data)
        assert reader.header.num_samples is None
        assert reader.trailer_samples == 640
        assert reader.read_all()[2].ok


def test_an_interrupt_leaves_a_readable_file(tmp_path: Path) -> None:
    path = tmp_path / "a.afc"
    with pytest.raises(KeyboardInterrupt), AfcWriter(path, HEADER, frames_per_packet=10) as writer:
        writer.write(make_codes(HEADER, 2, 13))
        raise KeyboardInterrupt
    with AfcReader(path) as reader:
        report = reader.read_all()[2]
    assert report.ok and report.frames_recovered == 13


def test_an_interrupt_inside_a_write_loses_nothing() -> None:
    class Interrupting(io.BytesIO):
        writes = 0

        def write(self, data: bytes) -> int:  # type: ignore[override]
            self.writes += 1
            if self.writes == 3:
                super().write(data[: len(data) // 2])
                raise KeyboardInterrupt
            return super().write(data)

    file, codes = Interrupting(), make_codes(HEADER, 2, 30)
    with pytest.raises(KeyboardInterrupt), AfcWriter(file, HEADER, frames_per_packet=10) as writer:
        writer.write(codes)
    back, mask, report = AfcReader(file.getvalue()).read_all()
    # The third packet was never formed: write() was interrupted while it wrote the second one.
    assert mask.all() and report.frames_recovered == 20 and report.damaged_packets == 1
    np.testing.assert_array_equal(back["acoustic"], codes[1][:, :20])


def test_a_reader_follows_a_file_that_grows(tmp_path: Path) -> None:
    path, codes = tmp_path / "a.afc", make_codes(HEADER, 2, 40)
    got = []
    with AfcWriter(path, HEADER, frames_per_packet=1) as writer, AfcReader(path) as reader:
        for frame in range(40):
            assert reader.next_packet(final=False) is None
            writer.write([a[:, frame : frame + 1] for a in codes])
            packet = reader.next_packet(final=False)
            assert packet is not None and packet.start == frame
            got.append(packet.codes[1])
        writer.close()
        assert reader.next_packet(final=False) is None
        assert reader.report.ok and reader.report.trailer == "ok"
    np.testing.assert_array_equal(np.concatenate(got, axis=1), codes[1])


def test_a_reader_waits_for_the_rest_of_a_packet() -> None:
    data = make_stream(HEADER, make_codes(HEADER, 2, 10), frames_per_packet=5, seek_table=True)
    file = io.BytesIO(data[:22])
    reader, frames = AfcReader(file), 0
    for size in range(22, len(data) + 1):
        file.getbuffer().release()
        place = file.tell()
        file.seek(0, os.SEEK_END)
        file.write(data[file.tell() : size])
        file.seek(place)
        while (packet := reader.next_packet(final=False)) is not None:
            frames += packet.frames
    assert frames == 10 and reader.report.ok and reader.report.trailer == "ok"


def test_the_trailer_thins_itself_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("affectcodec.bitstream.wire.MAX_SEEK_ENTRIES", 8)
    data = make_stream(HEADER, make_codes(HEADER, 1, 50), frames_per_packet=1)
    reader = AfcReader(data)
    assert reader.total_frames == 50
    trailer = reader._find_trailer()
    assert trailer is not None
    assert [frame for frame, _ in trailer.entries] == [0, 8, 16, 24, 32, 40, 48]
    assert [reader.seek(frame) for frame in (47, 3, 49)] == [47, 3, 49]


def test_the_trailer_is_written_from_32_packets_on() -> None:
    for frames, wanted in ((31, "absent"), (32, "ok")):
        data = make_stream(HEADER, make_codes(HEADER, 1, frames), frames_per_packet=1)
        assert AfcReader(data).read_all()[2].trailer == wanted


def test_skipped_frames_are_lost_to_the_reader() -> None:
    file = io.BytesIO()
    with AfcWriter(file, HEADER) as writer:
        writer.write(make_codes(HEADER, 1, 3))
        writer.skip(4)
        writer.write(make_codes(HEADER, 1, 2))
        with pytest.raises(AfcError):
            writer.skip(-1)
    _, mask, report = AfcReader(file.getvalue()).read_all()
    assert mask.tolist() == [True] * 3 + [False] * 4 + [True] * 2
    assert report.frames_lost == 4


@pytest.mark.parametrize("frames", [0, -1, 4097])
def test_refuses_impossible_packet_sizes(frames: int) -> None:
    with pytest.raises(AfcError, match="frames_per_packet"):
        AfcWriter(io.BytesIO(), HEADER, frames_per_packet=frames)


@pytest.mark.parametrize(("stages", "percent"), [(1, 10.2), (2, 5.0), (4, 2.5), (8, 1.3)])
def test_overhead_of_a_clip_of_4_seconds(stages: int, percent: float) -> None:
    header = StreamHeader(HASH, num_samples=64000, loudness_dbfs=-23.0)
    data = make_stream(header, make_codes(header, stages, 201), frames_per_packet=101)
    payload = 201 * 15 * stages / 8
    assert len(packet_offsets(data, header)) == 3
    assert 100 * (len(data) - payload) / payload < percent


def test_replacing_a_file_is_all_or_nothing(tmp_path: Path) -> None:
    path, link = tmp_path / "a.afc", tmp_path / "link.afc"
    path.write_bytes(b"old")
    link.symlink_to(path)
    with pytest.raises(RuntimeError), replace_file(path) as file:
        file.write(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"old"
    with replace_file(link) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new" and link.is_symlink()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.afc", "link.afc"]
