# SPDX-License-Identifier: Apache-2.0
"""Heads of packets: what stands in front of a payload, and the checksums over both.

The byte layout is specified in docs/format.md, section "Packets".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from affectcodec.bitstream import wire
from affectcodec.bitstream.errors import AfcError, AfcPacketError, AfcSizeError
from affectcodec.bitstream.header import StreamHeader


@dataclass(frozen=True)
class PacketHead:
    """The fields in front of a packet's payload. Sizes are in bytes."""

    start: int
    frames: int
    stages: tuple[int, ...]
    crc: int
    head_size: int
    payload_size: int

    @property
    def size(self) -> int:
        """Bytes of the whole packet."""
        return self.head_size + self.payload_size

    @property
    def end(self) -> int:
        """Index of the first frame after the packet."""
        return self.start + self.frames


def payload_bits(frames: int, stages: Sequence[int], header: StreamHeader) -> int:
    """Bits the codes of a packet take plainly, that is, where the stream names no coder."""
    return frames * sum(k * bits for k, bits in zip(stages, header.block_bits, strict=True))


def parse_head(
    data: bytes | bytearray,
    header: StreamHeader,
    max_frames: int = wire.MAX_FRAMES_PER_PACKET,
) -> PacketHead:
    """Parse the head at the start of ``data``; nothing after the head is looked at.

    Args:
        data: bytes that begin with a packet.
        header: header of the stream.
        max_frames: most frames to accept, fewer than the format allows where the stream's coder
            takes fewer.

    Raises:
        wire.Incomplete: more bytes are needed to tell.
        AfcError: this is no valid head for the stream.
    """
    if not data:
        raise wire.Incomplete
    if data[0] != wire.SYNC:
        raise AfcPacketError(f"packet: expected sync byte 0x{wire.SYNC:02x}, got 0x{data[0]:02x}")
    start, pos = wire.read_varint(data, 2, wire.MAX_FRAME_INDEX)
    frames, pos = wire.read_varint(data, pos, wire.MAX_FRAMES_PER_PACKET)
    blocks = len(header.blocks)
    if pos >= len(data):
        raise wire.Incomplete
    if data[pos]:
        stages = (data[pos],) * blocks
        pos += 1
    else:
        stages = tuple(data[pos + 1 : pos + 1 + blocks])
        pos += 1 + blocks
    size = None
    if header.coder is not None:
        size, pos = wire.read_varint(data, pos, wire.MAX_PAYLOAD_BYTES)
    if pos + 2 > len(data):
        raise wire.Incomplete
    if wire.crc8(data[2:pos]) != data[1]:
        raise AfcPacketError("packet: the checksum of its head does not match")
    _check_head(start, frames, stages, header, max_frames)
    if size is None:
        size = (payload_bits(frames, stages, header) + 7) // 8
    elif size and not any(stages):
        raise AfcPacketError(f"packet: a payload of {size} bytes for frames without any stage")
    if size > wire.MAX_PAYLOAD_BYTES:
        raise AfcPacketError(
            f"packet: {size} payload bytes, at most {wire.MAX_PAYLOAD_BYTES} are allowed"
        )
    return PacketHead(start, frames, stages, data[pos] | data[pos + 1] << 8, pos + 2, size)


def max_head_size(header: StreamHeader) -> int:
    """Most bytes a packet head of this stream can take."""
    return 2 + 6 + 2 + 1 + len(header.blocks) + 2 + (0 if header.coder is None else 3)


def payload_is_good(
    head: PacketHead, head_bytes: bytes | bytearray, payload: bytes | bytearray
) -> bool:
    """Whether the checksum over the head's fields and the payload holds."""
    return wire.crc16(bytes(head_bytes[2 : head.head_size - 2]) + payload) == head.crc


def assemble(
    start: int, frames: int, stages: tuple[int, ...], payload: bytes, header: StreamHeader
) -> bytes:
    """Put a head in front of a payload.

    Raises:
        AfcPacketError: a field is outside the limits of the format or the header;
            ``AfcSizeError`` where it is the payload's size.
    """
    _check_head(start, frames, stages, header, wire.MAX_FRAMES_PER_PACKET)
    if len(payload) > wire.MAX_PAYLOAD_BYTES:
        raise AfcSizeError(
            f"packet: {frames} frames take {len(payload)} bytes, at most "
            f"{wire.MAX_PAYLOAD_BYTES} are allowed; put fewer frames into a packet"
        )
    alike = len(set(stages)) == 1 and any(stages)
    fields = wire.write_varint(start) + wire.write_varint(frames)
    fields += bytes([stages[0]]) if alike else bytes([0, *stages])
    if header.coder is not None:
        fields += wire.write_varint(len(payload))
    check = wire.crc16(fields + payload).to_bytes(2, "little")
    return bytes([wire.SYNC, wire.crc8(fields)]) + fields + check + payload


def check_frames(frames: int, max_frames: int) -> None:
    """Refuse frame counts that no packet of the stream may have.

    Raises:
        AfcPacketError: there are none, or too many for the format or for the stream's coder.
    """
    most = min(max_frames, wire.MAX_FRAMES_PER_PACKET)
    if not 1 <= frames <= most:
        raise AfcPacketError(f"packet: expected 1..{most} frames, got {frames}")


def whole_head(
    data: bytes | bytearray,
    header: StreamHeader,
    max_frames: int = wire.MAX_FRAMES_PER_PACKET,
) -> PacketHead:
    """As :func:`parse_head`, for a packet that a transport delivered: no more bytes will come.

    Raises:
        AfcPacketError: this is no valid head for the stream, or it is cut off.
    """
    try:
        return parse_head(data[: max_head_size(header)], header, max_frames)
    except wire.Incomplete:
        raise AfcPacketError(f"packet: its head is cut off after {len(data)} bytes") from None
    except AfcPacketError:
        raise
    except AfcError as error:
        raise AfcPacketError(f"packet: {error}") from None


def _check_head(
    start: int, frames: int, stages: tuple[int, ...], header: StreamHeader, max_frames: int
) -> None:
    check_frames(frames, max_frames)
    if start < 0 or start + frames > wire.MAX_FRAME_INDEX:
        raise AfcPacketError(f"packet: frame index {start} is beyond {wire.MAX_FRAME_INDEX}")
    if max(stages) > header.num_stages:
        raise AfcPacketError(
            f"packet: expected up to {header.num_stages} stages, got {list(stages)}"
        )
    # A coder that cuts frame by frame may leave some without any stage; plainly they are left out.
    if not any(stages) and header.coder is None:
        raise AfcPacketError(
            f"packet: expected at least one stage in any block, got {list(stages)}"
        )
