# SPDX-License-Identifier: Apache-2.0
"""The optional trailer: totals and a seek table, written when a stream is closed.

Readers use it as a hint only: every place it names is verified before it is believed. The byte
layout is specified in docs/format.md, section "Trailer".
"""

from __future__ import annotations

from dataclasses import dataclass

from affectcodec.bitstream import wire
from affectcodec.bitstream.errors import AfcError

OVERHEAD = 4 + 4 + 2 + 4 + 4  # magic, size, CRC, size again, closing magic


@dataclass(frozen=True)
class Trailer:
    """Totals and seek table.

    Args:
        num_frames: frames of the stream.
        num_samples: samples of the original wave, or None.
        entries: (first frame of a packet, byte offset of the packet after the stream header), in
            rising order.
    """

    num_frames: int
    num_samples: int | None
    entries: tuple[tuple[int, int], ...]

    def to_bytes(self) -> bytes:
        """Serialise."""
        samples = wire.UNKNOWN_SAMPLES if self.num_samples is None else self.num_samples
        body = bytearray(wire.write_varint(self.num_frames))
        body += samples.to_bytes(wire.SAMPLE_COUNT_BYTES, "little")
        body += wire.write_varint(len(self.entries))
        last_frame = last_offset = 0
        for frame, offset in self.entries:
            body += wire.write_varint(frame - last_frame)
            body += wire.write_varint(offset - last_offset)
            last_frame, last_offset = frame, offset
        size = len(body).to_bytes(4, "little")
        check = wire.crc16(body).to_bytes(2, "little")
        return wire.TRAILER_MAGIC + size + bytes(body) + check + size + wire.TRAILER_END

    @classmethod
    def from_bytes(cls, data: bytes) -> Trailer:
        """Parse one whole trailer.

        Raises:
            AfcError: it is damaged.
        """
        size = body_size(data)
        tail = data[-10:]
        if (
            size is None
            or len(data) != size + OVERHEAD
            or tail[2:] != data[4:8] + wire.TRAILER_END
            or wire.crc16(data[8:-10]) != int.from_bytes(tail[:2], "little")
        ):
            raise AfcError("trailer: damaged")
        try:
            return cls._parse(data[8:-10])
        except wire.Incomplete:
            raise AfcError("trailer: a field runs past its end") from None

    @classmethod
    def _parse(cls, body: bytes) -> Trailer:
        frames, pos = wire.read_varint(body, 0, wire.MAX_FRAME_INDEX)
        if pos + wire.SAMPLE_COUNT_BYTES > len(body):
            raise wire.Incomplete
        samples = int.from_bytes(body[pos : pos + wire.SAMPLE_COUNT_BYTES], "little")
        count, pos = wire.read_varint(body, pos + wire.SAMPLE_COUNT_BYTES, wire.MAX_SEEK_ENTRIES)
        entries, frame, offset = [], 0, 0
        for index in range(count):
            delta_frame, pos = wire.read_varint(body, pos, wire.MAX_FRAME_INDEX)
            delta_offset, pos = wire.read_varint(body, pos, 2**60)
            if index and not (delta_frame and delta_offset):
                raise AfcError("trailer: the seek table does not rise")
            frame, offset = frame + delta_frame, offset + delta_offset
            entries.append((frame, offset))
        if pos != len(body):
            raise AfcError(f"trailer: {len(body) - pos} bytes more than its fields")
        known = None if samples == wire.UNKNOWN_SAMPLES else samples
        return cls(frames, known, tuple(entries))


def body_size(data: bytes | bytearray) -> int | None:
    """Size of the body that the start of a trailer names; None if it names no possible one."""
    if len(data) < 8 or data[:4] != wire.TRAILER_MAGIC:
        return None
    size = int.from_bytes(data[4:8], "little")
    return size if size + OVERHEAD <= wire.MAX_TRAILER_BYTES else None
