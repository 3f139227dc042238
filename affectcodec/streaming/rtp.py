# SPDX-License-Identifier: Apache-2.0
"""RTP around packets (RFC 3550, section 5.1): the fixed header of 12 bytes, no extensions.

The payload of an RTP packet is one ``.afc`` packet, whose first bytes are the emotion stages: a
relay that drops the end with ``truncate_packet`` drops acoustic stages first and decodes nothing.
The timestamp counts samples of the codec, so that a receiver places a packet without parsing it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

HEADER_BYTES = 12
DYNAMIC_PAYLOAD_TYPE = 96
_VERSION = 2


@dataclass(frozen=True)
class RtpPacket:
    """One RTP packet.

    Args:
        payload: an ``.afc`` packet.
        sequence: 16-bit number that rises by one a packet.
        timestamp: 32-bit index of the packet's first sample.
        ssrc: 32-bit name of the stream.
        marker: first packet after silence.
        payload_type: 96..127, agreed out of band.

    Raises:
        ValueError: on values that do not fit their fields.
    """

    payload: bytes
    sequence: int
    timestamp: int
    ssrc: int = 0
    marker: bool = False
    payload_type: int = DYNAMIC_PAYLOAD_TYPE

    def __post_init__(self) -> None:
        limits = (("sequence", 16), ("timestamp", 32), ("ssrc", 32))
        for name, bits in limits:
            value = getattr(self, name)
            if not isinstance(value, int) or not 0 <= value < 1 << bits:
                raise ValueError(f"{name}: wanted {bits} bits, got {value!r}")
        if not 96 <= self.payload_type <= 127:
            raise ValueError(f"payload_type: wanted 96..127, got {self.payload_type!r}")

    def to_bytes(self) -> bytes:
        """The packet as it goes over the wire."""
        second = self.payload_type | (0x80 if self.marker else 0)
        fields = (_VERSION << 6, second, self.sequence, self.timestamp, self.ssrc)
        return struct.pack("!BBHII", *fields) + self.payload

    @classmethod
    def from_bytes(cls, data: bytes) -> RtpPacket:
        """Inverse of :meth:`to_bytes`; padding, contributing sources and extensions are skipped.

        Raises:
            ValueError: if it is no RTP packet of this kind.
        """
        if len(data) < HEADER_BYTES:
            raise ValueError(f"rtp: wanted at least {HEADER_BYTES} bytes, got {len(data)}")
        first, second, sequence, timestamp, ssrc = struct.unpack_from("!BBHII", data)
        if first >> 6 != _VERSION:
            raise ValueError(f"rtp: wanted version {_VERSION}, got {first >> 6}")
        start, end = HEADER_BYTES + 4 * (first & 0x0F), len(data)
        if first & 0x10:  # extension
            if start + 4 > end:
                raise ValueError("rtp: its extension is cut off")
            start += 4 + 4 * struct.unpack_from("!H", data, start + 2)[0]
        if first & 0x20:  # padding, whose last byte counts it
            if start >= end or not 1 <= data[-1] <= end - start:
                raise ValueError("rtp: its padding is longer than the packet")
            end -= data[-1]
        if start > end:
            raise ValueError("rtp: its header is cut off")
        return cls(data[start:end], sequence, timestamp, ssrc, bool(second & 0x80), second & 0x7F)
