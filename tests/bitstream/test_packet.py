# SPDX-License-Identifier: Apache-2.0
"""Packets: exact bits, layering, relay truncation, damage."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from affectcodec.bitstream import (
    AfcPacketError,
    BlockLayout,
    StreamHeader,
    parse_packet,
    serialize_packet,
    truncate_packet,
)
from affectcodec.bitstream.head import parse_head, payload_bits
from tests.bitstream.streams import HASH, make_codes

HEADER = StreamHeader(HASH)


@st.composite
def headers(draw: st.DrawFn) -> StreamHeader:
    """1-4 blocks of any levels, with bits from 1 to 31 and beyond."""
    levels = st.lists(st.integers(2, 9), min_size=1, max_size=5)
    blocks = draw(st.lists(levels, min_size=1, max_size=4))
    return StreamHeader(
        HASH,
        blocks=tuple(BlockLayout(f"b{i}", tuple(block)) for i, block in enumerate(blocks)),
        num_stages=draw(st.integers(1, 12)),
    )


@settings(max_examples=60, deadline=None)
@given(headers(), st.data())
def test_round_trip_of_any_layout(header: StreamHeader, data: st.DataObject) -> None:
    stages = data.draw(
        st.lists(
            st.integers(0, header.num_stages),
            min_size=len(header.blocks),
            max_size=len(header.blocks),
        ).filter(any)
    )
    frames, start = data.draw(st.integers(1, 40)), data.draw(st.integers(0, 2**39))
    codes = make_codes(header, stages, frames, seed=frames)
    packet = serialize_packet(codes, header, start)
    back = parse_packet(packet, header)
    assert (back.start, back.frames, back.status) == (start, frames, "ok")
    for array, wanted in zip(back.codes, codes, strict=True):
        np.testing.assert_array_equal(array, wanted)
    bits = frames * sum(k * b.bits for k, b in zip(stages, header.blocks, strict=True))
    assert len(packet) - parse_head(packet, header).head_size == (bits + 7) // 8


@pytest.mark.parametrize("stages", [1, 2, 4, 8])
def test_a_frame_takes_15_bits_a_stage(stages: int) -> None:
    assert payload_bits(1, (stages, stages), HEADER) == 15 * stages
    packet = serialize_packet(make_codes(HEADER, stages, 8), HEADER)
    assert len(packet) == 7 + 15 * stages


def test_the_payload_is_one_run_of_bits_emotion_first() -> None:
    emotion = np.array([[1, 2], [3, 4]])
    acoustic = np.array([[0xABC, 0x123], [0xFFF, 0x000]])
    packet = serialize_packet({"acoustic": acoustic, "emotion": emotion}, HEADER)
    run, pos = int.from_bytes(packet[7:], "little"), 0
    for value, bits in [(1, 3), (2, 3), (3, 3), (4, 3), (0xABC, 12), (0x123, 12), (0xFFF, 12)]:
        assert run >> pos & ((1 << bits) - 1) == value
        pos += bits
    assert len(packet) == 7 + 8  # 60 bits, 4 of them fill up the last byte


def test_blocks_of_63_bits() -> None:
    header = StreamHeader(HASH, blocks=(BlockLayout("a", (2,) * 63),), num_stages=2)
    codes = np.array([[2**63 - 1, 0, 1], [5, 2**62, 7]])
    back = parse_packet(serialize_packet([codes], header), header)
    np.testing.assert_array_equal(back.codes[0], codes)
    assert back.codes[0].dtype == np.int64


@pytest.mark.parametrize("keep", [1, 3, 8, {"acoustic": 1}, {"emotion": 2, "acoustic": 0}, (0, 5)])
def test_a_relay_truncates_without_decoding(keep: object) -> None:
    codes = make_codes(HEADER, 8, 13)
    packet = serialize_packet(codes, HEADER, 77)
    counts = {"emotion": 8, "acoustic": 8}
    if isinstance(keep, dict):
        counts.update(keep)
    else:
        pair = keep if isinstance(keep, tuple) else (keep, keep)
        counts = dict(zip(HEADER.names, pair, strict=True))
    cut = truncate_packet(packet, HEADER, keep)  # type: ignore[arg-type]
    wanted = [a[:k] for a, k in zip(codes, counts.values(), strict=True)]
    assert cut == serialize_packet(wanted, HEADER, 77)


def test_truncation_keeps_what_is_less_already_and_refuses_nothing_and_damage() -> None:
    packet = serialize_packet(make_codes(HEADER, (4, 2), 5), HEADER)
    assert truncate_packet(packet, HEADER, 6) == packet
    for bad in (0, {"other": 1}, (1,), -1):
        with pytest.raises(AfcPacketError):
            truncate_packet(packet, HEADER, bad)
    with pytest.raises(AfcPacketError, match="damaged or incomplete"):
        truncate_packet(packet[:-1], HEADER, 1)
    with pytest.raises(AfcPacketError, match="damaged or incomplete"):
        truncate_packet(packet[:-1] + bytes([packet[-1] ^ 1]), HEADER, 1)


def test_dropping_bytes_drops_acoustic_stages_first() -> None:
    codes = make_codes(HEADER, 4, 20)
    packet = serialize_packet(codes, HEADER)
    with pytest.raises(AfcPacketError, match="cut off"):
        parse_packet(packet[:-1], HEADER)
    last = np.full((2, 20), 4)
    for size in range(len(packet) - 1, 6, -1):
        cut = parse_packet(packet[:size], HEADER, allow_partial=True)
        stages = cut.frame_stages
        bits = (size - 7) * 8
        assert cut.status == ("partial" if size > 7 else "lost")
        assert stages[0].sum() == min(80, bits // 3)
        assert stages[1].sum() == max(0, bits - 240) // 12
        assert (stages <= last).all()
        for array, wanted, count in zip(cut.codes, codes, stages, strict=True):
            there = np.arange(4)[:, None] < count
            np.testing.assert_array_equal(array, np.where(there, wanted, 0))
        last = stages


def test_every_flipped_bit_is_noticed() -> None:
    packet = serialize_packet(make_codes(HEADER, 2, 9), HEADER, 1000)
    for bit in range(len(packet) * 8):
        damaged = bytearray(packet)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(AfcPacketError):
            parse_packet(damaged, HEADER)


def test_a_code_outside_the_codebook_is_an_error_even_under_a_good_checksum() -> None:
    five = StreamHeader(HASH, blocks=(BlockLayout("a", (5,)),), num_stages=1)
    eight = StreamHeader(HASH, blocks=(BlockLayout("a", (8,)),), num_stages=1)
    packet = serialize_packet([np.array([[4, 5]])], eight)
    with pytest.raises(AfcPacketError, match="holds code 5, its codebook has 5"):
        parse_packet(packet, five)


@pytest.mark.parametrize(
    ("codes", "word"),
    [
        ([np.zeros((1, 2), int)], "2 blocks"),
        ({"emotion": np.zeros((1, 2), int)}, "expected blocks"),
        ([np.zeros((1, 2), int), np.zeros((1, 3), int)], "shape"),
        ([np.zeros((9, 2), int), np.zeros((1, 2), int)], "shape"),
        ([np.zeros(2, int), np.zeros((1, 2), int)], "shape"),
        ([np.zeros((1, 2)), np.zeros((1, 2), int)], "integers"),
        ([np.full((1, 2), 8), np.zeros((1, 2), int)], "0..7"),
        ([np.zeros((1, 2), int), np.full((1, 2), -1)], "0..4095"),
        ([np.zeros((0, 2), int), np.zeros((0, 2), int)], "at least one"),
        ([np.zeros((1, 0), int), np.zeros((1, 0), int)], "frames"),
        ([np.zeros((1, 4097), int), np.zeros((1, 4097), int)], "frames"),
    ],
)
def test_refuses_codes_that_do_not_fit(codes: object, word: str) -> None:
    with pytest.raises(AfcPacketError, match=word):
        serialize_packet(codes, HEADER)  # type: ignore[arg-type]


def test_refuses_payloads_that_are_too_large() -> None:
    header = StreamHeader(HASH, num_stages=64)
    with pytest.raises(AfcPacketError, match="65535"):
        serialize_packet(make_codes(header, 64, 4096), header)
