# SPDX-License-Identifier: Apache-2.0
"""Stream header: round trip, limits, damage."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from affectcodec.bitstream import AfcError, AfcHeaderError, AfcReader, BlockLayout, StreamHeader
from affectcodec.bitstream.wire import MAX_METADATA_BYTES, crc8, crc16

HASH = "0123456789abcdef"


def _sealed(head: bytes) -> bytes:
    """A header that begins with ``head``, with its length and checksum made right."""
    head = head[:4] + bytes([len(head) - 5 + 2]) + head[5:]
    return head + crc16(head).to_bytes(2, "little")


def test_check_values_of_the_checksums() -> None:
    assert crc8(b"123456789") == 0xF4
    assert crc16(b"123456789") == 0x29B1


@pytest.mark.parametrize(
    "header",
    [
        StreamHeader(HASH),
        StreamHeader(HASH, num_samples=0, loudness_dbfs=-23.5),
        StreamHeader(HASH, num_samples=2**40 - 2, metadata={"title": "é", "n": [1, None, 2.5]}),
        StreamHeader(HASH, 48000, 1, (BlockLayout("a", (3, 5, 7)),), 64),
        StreamHeader(HASH, 8000, 160, (BlockLayout("é" * 32, (4096,)), BlockLayout("b", (2,))), 1),
    ],
)
def test_round_trip(header: StreamHeader) -> None:
    data = header.to_bytes()
    assert StreamHeader.from_bytes(data + b"more") == (header, len(data))
    assert StreamHeader.from_bytes(data)[0].to_bytes() == data


def test_the_standard_layout_is_short() -> None:
    assert len(StreamHeader(HASH, loudness_dbfs=-20.0).to_bytes()) == 23
    assert len(StreamHeader(HASH).to_bytes()) == 21


def test_loudness_keeps_steps_of_a_256th() -> None:
    header, _ = StreamHeader.from_bytes(StreamHeader(HASH, loudness_dbfs=-23.1).to_bytes())
    assert header.loudness_dbfs == pytest.approx(-23.1, abs=1 / 512)


def test_bits_of_codebooks_that_are_no_powers_of_two() -> None:
    assert [BlockLayout("a", levels).bits for levels in [(2,), (3,), (5, 5), (4,) * 6]] == [
        1,
        2,
        5,
        12,
    ]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"config_hash": "0123456789ABCDEF"}, "config_hash"),
        ({"config_hash": "01"}, "config_hash"),
        ({"sample_rate": 0}, "sample_rate"),
        ({"hop_length": 2**20 + 1}, "hop_length"),
        ({"num_stages": 65}, "num_stages"),
        ({"num_samples": 2**40 - 1}, "num_samples"),
        ({"num_samples": -1}, "num_samples"),
        ({"loudness_dbfs": float("nan")}, "loudness_dbfs"),
        ({"loudness_dbfs": float("-inf")}, "loudness_dbfs"),
        ({"blocks": ()}, "blocks"),
        ({"blocks": (BlockLayout("a", (2,)), BlockLayout("a", (3,)))}, "differ"),
        ({"blocks": tuple(BlockLayout(f"b{i}", (2,)) for i in range(33))}, "blocks"),
        ({"blocks": (BlockLayout("a", (2,) * 63), BlockLayout("b", (2,)))}, "2\\*\\*63"),
    ],
)
def test_refuses_values_outside_the_limits(change: dict[str, Any], word: str) -> None:
    with pytest.raises(AfcHeaderError, match=word):
        dataclasses.replace(StreamHeader(HASH), **change)


@pytest.mark.parametrize(
    ("name", "levels"), [("", (2,)), ("no name", (2,)), ("a", ()), ("a", (1,)), ("a", (4097,))]
)
def test_refuses_bad_blocks(name: str, levels: tuple[int, ...]) -> None:
    with pytest.raises(AfcHeaderError, match="block"):
        BlockLayout(name, levels)


@pytest.mark.parametrize(
    "metadata",
    [{"x": "y" * MAX_METADATA_BYTES}, {"x": float("nan")}, {"x": object()}, {"x": "\ud800"}],
)
def test_refuses_metadata_that_cannot_be_written(metadata: dict[str, Any]) -> None:
    with pytest.raises(AfcHeaderError, match="metadata"):
        StreamHeader(HASH, metadata=metadata).to_bytes()


@pytest.mark.parametrize(
    "text", [b"[1]", b"{", b'{"a":NaN}', b'{"a":1e999}', b'{"a":"\\ud800"}', b"\xff", b"[" * 120]
)
def test_refuses_metadata_that_is_no_sound_json_object(text: bytes) -> None:
    head = b"AFC\x01\x00\x21" + bytes(8) + bytes([len(text)]) + text + b"\xff" * 5
    head = head if len(head) < 120 else head[:15] + b"[" * 90 + b"\xff" * 5
    data = _sealed(head[:14] + bytes([len(head) - 20]) + head[15:])
    with pytest.raises(AfcHeaderError, match="metadata"):
        StreamHeader.from_bytes(data)


def test_every_flipped_bit_and_every_cut_is_a_clear_error() -> None:
    data = StreamHeader(HASH, 8000, 80, metadata={"a": 1}).to_bytes()
    for bit in range(len(data) * 8):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(AfcHeaderError):
            AfcReader(bytes(damaged))
    for size in range(len(data)):
        with pytest.raises(AfcHeaderError):
            AfcReader(data[:size])


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "ends inside"),
        (b"RIFF\x00\x00\x00\x00WAVE", "not an .afc stream"),
        (b"AFC\x02" + bytes(40), "version 2"),
        (b"AFC\x01\xff\xff\xff\xff\x7f" + bytes(40), "8192"),
        (b"AFC\x01\x00" + bytes(40), "length"),
    ],
)
def test_says_what_is_wrong_with_foreign_bytes(data: bytes, word: str) -> None:
    with pytest.raises(AfcHeaderError, match=word):
        AfcReader(data)


def test_unknown_flags_ask_for_a_newer_reader() -> None:
    data = StreamHeader(HASH).to_bytes()
    for flags in (0x81, 0xC1, 0x02, 0x0F):
        with pytest.raises(AfcHeaderError, match="newer"):
            StreamHeader.from_bytes(_sealed(data[:5] + bytes([flags]) + data[6:-2]))


def test_hostile_counts_in_a_sealed_header() -> None:
    plain = b"AFC\x01\x00\x00" + bytes(8) + b"\x80\x7d\xc0\x02"  # 16000 Hz, 320 samples
    for body in (b"\x08\x00", b"\x08\xff", b"\x08\x01\xff", b"\x00\x01\x01a\x01\x02", b"\xff"):
        with pytest.raises(AfcError):
            StreamHeader.from_bytes(_sealed(plain + body + b"\xff" * 5))
    header, _ = StreamHeader.from_bytes(_sealed(plain + b"\x08\x01\x01a\x01\x02" + b"\xff" * 5))
    assert header.blocks == (BlockLayout("a", (2,)),)
