# SPDX-License-Identifier: Apache-2.0
"""RTP headers against their bytes by hand, and hostile ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from affectcodec.streaming.rtp import RtpPacket


def test_bytes_by_hand() -> None:
    packet = RtpPacket(b"xyz", 0x0102, 0x03040506, 0x0708090A, True, 97)
    data = bytes.fromhex("80 e1 01 02 03 04 05 06 07 08 09 0a") + b"xyz"
    assert packet.to_bytes() == data
    assert RtpPacket.from_bytes(data) == packet


def test_sources_extension_and_padding_are_skipped() -> None:
    head = bytes.fromhex("b1 60 00 01 00 00 00 02 00 00 00 03")
    source, extension = b"\0\0\0\x09", b"\xbe\xde\0\x01" + b"abcd"
    data = head + source + extension + b"payload" + b"\0\0\x03"
    assert RtpPacket.from_bytes(data) == RtpPacket(b"payload", 1, 2, 3)


@given(st.binary(max_size=64))
def test_any_bytes_parse_or_are_refused(data: bytes) -> None:
    try:
        assert len(RtpPacket.from_bytes(data).payload) <= len(data)
    except ValueError as error:
        assert "rtp" in str(error) or "payload_type" in str(error)


@pytest.mark.parametrize(
    "arguments",
    [{"sequence": 1 << 16}, {"timestamp": -1}, {"ssrc": 1 << 32}, {"payload_type": 0}],
)
def test_values_that_do_not_fit(arguments: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        RtpPacket(**{"payload": b"", "sequence": 0, "timestamp": 0, **arguments})
