# SPDX-License-Identifier: Apache-2.0
"""Packets with coded payloads: bytes, damage, hostile heads, coders that do not fit."""

from __future__ import annotations

import dataclasses
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from affectcodec.bitstream import (
    AfcCoderError,
    AfcHeaderError,
    AfcPacketError,
    AfcSizeError,
    BlockLayout,
    StreamHeader,
    parse_packet,
    serialize_packet,
    truncate_packet,
)
from affectcodec.bitstream.coded import find_coder
from affectcodec.bitstream.head import parse_head
from affectcodec.bitstream.wire import crc8, crc16, write_varint
from tests.bitstream.coders import CODER_ID, DeflateCoder
from tests.bitstream.streams import HASH, make_codes

CODER = DeflateCoder()
HEADER = StreamHeader(HASH, coder=CODER_ID)


def random_stages(
    most: tuple[int, ...] | list[int], frames: int, seed: int = 0
) -> npt.NDArray[np.int64]:
    """Stage counts [G, T] from 0 to ``most``."""
    rng = np.random.default_rng(seed)
    return np.array([rng.integers(0, count + 1, frames) for count in most])


def cut(codes: list[npt.NDArray[Any]], stages: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    """The codes with zeros at and above each frame's count."""
    return [
        np.where(np.arange(len(array))[:, None] < row, array, 0)
        for array, row in zip(codes, stages, strict=True)
    ]


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_round_trip_of_any_layout(data: st.DataObject) -> None:
    levels = st.lists(st.integers(2, 9), min_size=1, max_size=5)
    blocks = tuple(
        BlockLayout(f"b{i}", tuple(block))
        for i, block in enumerate(data.draw(st.lists(levels, min_size=1, max_size=4)))
    )
    header = StreamHeader(HASH, blocks=blocks, num_stages=9, coder=CODER_ID)
    coder = DeflateCoder(blocks, 9, max_frames=40)
    most = [data.draw(st.integers(0, 9)) for _ in blocks]
    frames, start = data.draw(st.integers(1, 40)), data.draw(st.integers(0, 2**39))
    codes, stages = make_codes(header, most, frames, seed=frames), random_stages(most, frames)
    packet = serialize_packet(codes, header, start, frame_stages=stages, coder=coder)
    back = parse_packet(packet, header, coder=coder)
    assert (back.start, back.frames, back.status) == (start, frames, "ok") and back.mask.all()
    np.testing.assert_array_equal(back.frame_stages, stages)
    assert back.present == tuple(stages.sum(axis=1))
    for array, wanted, row in zip(back.codes, cut(codes, stages), stages, strict=True):
        assert len(array) == row.max()
        np.testing.assert_array_equal(array, wanted[: len(array)])


def test_the_head_says_start_frames_largest_counts_and_size() -> None:
    codes, stages = make_codes(HEADER, (3, 2), 5), np.array([[3, 1, 0, 2, 1], [1, 1, 0, 0, 1]])
    packet = serialize_packet(codes, HEADER, 300, frame_stages=stages, coder=CODER)
    payload = CODER.encode([cut(codes, stages)[0], cut(codes, stages)[1][:1]], stages.astype("u1"))
    fields = write_varint(300) + b"\x05" + b"\x00\x03\x01" + write_varint(len(payload))
    check = crc16(fields + payload).to_bytes(2, "little")
    assert packet == b"\xac" + bytes([crc8(fields)]) + fields + check + payload


def test_without_counts_every_frame_has_all_stages() -> None:
    codes = make_codes(HEADER, (8, 1), 6)
    back = parse_packet(serialize_packet(codes, HEADER, coder=CODER), HEADER, coder=CODER)
    assert back.frame_stages.tolist() == [[8] * 6, [1] * 6]


def test_frames_without_any_stage_take_no_payload_and_are_there() -> None:
    codes = make_codes(HEADER, 2, 7)
    packet = serialize_packet(codes, HEADER, frame_stages=np.zeros((2, 7), int), coder=CODER)
    head = parse_head(packet, HEADER)
    assert head.payload_size == 0 and head.stages == (0, 0) and head.size == len(packet)
    back = parse_packet(packet, HEADER, coder=CODER)
    assert back.status == "ok" and back.mask.all() and not back.frame_stages.any()
    fields = b"\x00\x07\x00\x00\x00\x01"
    lie = bytes([0xAC, crc8(fields)]) + fields + crc16(fields + b"x").to_bytes(2, "little") + b"x"
    with pytest.raises(AfcPacketError, match="without any stage"):
        parse_packet(lie, HEADER, coder=CODER)


def test_every_flipped_bit_is_noticed() -> None:
    packet = serialize_packet(make_codes(HEADER, 2, 9), HEADER, 1000, coder=CODER)
    for bit in range(len(packet) * 8):
        damaged = bytearray(packet)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(AfcPacketError):
            parse_packet(damaged, HEADER, coder=CODER)


def test_a_cut_packet_holds_nothing() -> None:
    packet = serialize_packet(make_codes(HEADER, 2, 9), HEADER, coder=CODER)
    head = parse_head(packet, HEADER)
    for size in range(len(packet)):
        with pytest.raises(AfcPacketError, match="cut off"):
            parse_packet(packet[:size], HEADER, coder=CODER)
        if size >= head.head_size:
            back = parse_packet(packet[:size], HEADER, allow_partial=True, coder=CODER)
            assert back.status == "lost" and back.frames == 9 and not back.mask.any()
    with pytest.raises(AfcPacketError, match="bytes expected"):
        parse_packet(packet + b"x", HEADER, coder=CODER)


def test_frames_beyond_the_coder_are_refused_from_the_head_alone() -> None:
    coder = DeflateCoder(max_frames=400)
    for frames in (401, 4096):
        fields = b"\x00" + write_varint(frames) + b"\x08\x02"
        packet = bytes([0xAC, crc8(fields)]) + fields
        packet += crc16(fields + b"xy").to_bytes(2, "little") + b"xy"
        with pytest.raises(AfcPacketError, match=f"1..400 frames, got {frames}"):
            parse_packet(packet, HEADER, coder=coder)
    with pytest.raises(AfcPacketError, match="1..400 frames, got 401"):
        serialize_packet(make_codes(HEADER, 1, 401), HEADER, coder=coder)
    assert coder.decoded == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda codes, stages: (codes, stages + 1),
        lambda codes, stages: (codes, stages[:, :-1]),
        lambda codes, stages: ([array[:, :-1] for array in codes], stages),
        lambda codes, stages: ([array - 1 for array in codes], stages),
        lambda codes, stages: ([array + 4096 for array in codes], stages),
        lambda codes, stages: (codes[:1], stages),
    ],
)
def test_a_coder_that_answers_wrongly_is_not_believed(change: Any) -> None:
    class Wrong(DeflateCoder):
        def decode(self, data: bytes, frames: int, most: tuple[int, ...]) -> Any:
            return change(*super().decode(data, frames, most))

    codes = [np.zeros((2, 4), np.int64), np.ones((2, 4), np.int64)]
    packet = serialize_packet(codes, HEADER, coder=CODER)
    with pytest.raises(AfcPacketError):
        parse_packet(packet, HEADER, coder=Wrong())


@pytest.mark.parametrize(
    ("stages", "word"),
    [
        (np.zeros((1, 4), int), "frame_stages: expected integers"),
        (np.zeros((2, 3), int), "frame_stages: expected integers"),
        (np.zeros((2, 4)), "float64"),
        (np.full((2, 4), 3), "0 to the stages"),
        (np.full((2, 4), -1), "0 to the stages"),
    ],
)
def test_refuses_counts_that_do_not_fit(stages: npt.NDArray[Any], word: str) -> None:
    with pytest.raises(AfcPacketError, match=word):
        serialize_packet(make_codes(HEADER, 2, 4), HEADER, frame_stages=stages, coder=CODER)


def test_plain_packets_have_no_varying_counts() -> None:
    with pytest.raises(AfcPacketError, match="coder"):
        serialize_packet(
            make_codes(HEADER, 2, 4), StreamHeader(HASH), frame_stages=np.ones((2, 4), int)
        )
    with pytest.raises(AfcPacketError, match="frames"):
        serialize_packet(make_codes(HEADER, 1, 0), HEADER, coder=CODER)


def test_payloads_that_are_too_large_are_an_error_of_their_own() -> None:
    class Wide(DeflateCoder):
        def encode(self, codes: Any, stages: Any) -> bytes:
            return bytes(65536)

    with pytest.raises(AfcSizeError, match="65535"):
        serialize_packet(make_codes(HEADER, 1, 1), HEADER, coder=Wide())


def test_a_relay_is_told_what_to_do_instead() -> None:
    packet = serialize_packet(make_codes(HEADER, 4, 5), HEADER, coder=CODER)
    with pytest.raises(AfcPacketError, match=r"read_tokens.*Tokens\.truncate"):
        truncate_packet(packet, HEADER, 1)


def test_a_coder_that_does_not_fit_is_an_error() -> None:
    packet = serialize_packet(make_codes(HEADER, 1, 2), HEADER, coder=CODER)
    other = (BlockLayout("emotion", (2, 2)), BlockLayout("acoustic", (4,) * 6))
    for coder, word in (
        (DeflateCoder(id="0" * 16), f"{CODER_ID}.*{'0' * 16}"),
        (DeflateCoder(other), "emotion"),
        (DeflateCoder(num_stages=4), "up to 4 stages, the stream has up to 8"),
    ):
        with pytest.raises(AfcCoderError, match=word):
            parse_packet(packet, HEADER, coder=coder)
        with pytest.raises(AfcCoderError, match=word):
            serialize_packet(make_codes(HEADER, 1, 2), HEADER, coder=coder)


def test_the_coder_is_looked_up_by_its_id(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def find_prior(coder_id: str) -> DeflateCoder:
        asked.append(coder_id)
        return CODER

    package = SimpleNamespace(find_prior=find_prior)
    monkeypatch.setitem(sys.modules, "affectcodec.entropy", package)
    codes = make_codes(HEADER, 1, 2)
    packet = serialize_packet(codes, HEADER)
    np.testing.assert_array_equal(parse_packet(packet, HEADER).codes[1], codes[1])
    assert asked == [CODER_ID] * 2


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (ImportError("no constriction"), r"no constriction.*pip install constriction"),
        (KeyError("unknown"), f"{CODER_ID}.*unknown"),
        (ValueError("unknown"), f"{CODER_ID}.*unknown"),
        (FileNotFoundError("prior.safetensors"), f"{CODER_ID}.*prior.safetensors"),
        (AfcCoderError("a sentence of its own"), "^a sentence of its own$"),
    ],
)
def test_a_coder_that_is_not_there_is_named(
    monkeypatch: pytest.MonkeyPatch, error: Exception, word: str
) -> None:
    def find_prior(coder_id: str) -> None:
        raise error

    package = SimpleNamespace(find_prior=find_prior)
    monkeypatch.setitem(sys.modules, "affectcodec.entropy", package)
    with pytest.raises(AfcCoderError, match=word):
        find_coder(HEADER)
    with pytest.raises(AfcCoderError, match=word):
        find_coder(HEADER, find_prior)  # type: ignore[arg-type]


def test_a_function_may_find_the_coder() -> None:
    assert find_coder(HEADER, {CODER_ID: CODER}.__getitem__) is CODER
    with pytest.raises(AfcCoderError, match="0{16}"):
        find_coder(HEADER, lambda coder_id: DeflateCoder(id="0" * 16))


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "affectcodec.entropy", None)
    with pytest.raises(AfcCoderError, match=r"pip install constriction"):
        find_coder(HEADER)
    with pytest.raises(AfcCoderError, match="plain"):
        find_coder(StreamHeader(HASH))


def test_the_header_names_the_coder() -> None:
    data = HEADER.to_bytes()
    assert data[5] & 0x40 and data[14:22] == bytes.fromhex(CODER_ID)
    assert StreamHeader.from_bytes(data) == (HEADER, len(data))
    plain = dataclasses.replace(HEADER, coder=None)
    assert len(plain.to_bytes()) == len(data) - 8
    for bad in ("", "0" * 15, "G" * 16, "ABCDEF0123456789", 5):
        with pytest.raises(AfcHeaderError, match="coder"):
            dataclasses.replace(HEADER, coder=bad)  # type: ignore[arg-type]
    for flags in (0x80, 0xC0):
        raw = bytearray(data[:-2])
        raw[5] |= flags
        with pytest.raises(AfcHeaderError, match="newer reader"):
            StreamHeader.from_bytes(bytes(raw) + crc16(raw).to_bytes(2, "little"))
