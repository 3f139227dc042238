# SPDX-License-Identifier: Apache-2.0
"""Packets: a run of frames as bytes, usable with or without a file around them.

A packet is a short head and one run of bits. The run holds, for the first block, stage 1 of all
frames, stage 2 of all frames and so on, then the same for the next block. Cutting bytes from the
end therefore takes the last stages of the last block first. The byte layout is specified in
docs/format.md, section "Packets".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from affectcodec.bitpacking import pack_bits, unpack_bits
from affectcodec.bitstream import wire
from affectcodec.bitstream.errors import AfcError, AfcPacketError
from affectcodec.bitstream.header import StreamHeader

IntArray = npt.NDArray[np.signedinteger[Any]]
BlockCodes = Sequence[npt.ArrayLike] | Mapping[str, npt.ArrayLike]
Stages = int | Mapping[str, int] | Sequence[int]


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


@dataclass(frozen=True, eq=False)
class Packet:
    """Codes of consecutive frames.

    Args:
        start: index of the first frame in the stream.
        frames: number of frames, T.
        codes: per block int32 (int64 for codebooks above 2**31) codes [K_b, T]; K_b may be 0.
        present: per block the number of codes that came, counted in layer order; K_b * T unless
            the packet was cut. Codes that did not come are 0.
        status: ``"ok"``; ``"partial"`` for a cut packet, whose codes no checksum covers; ``"lost"``
            for frames of which nothing is known.
    """

    start: int
    frames: int
    codes: tuple[IntArray, ...]
    present: tuple[int, ...]
    status: str = "ok"

    @property
    def end(self) -> int:
        """Index of the first frame after the packet."""
        return self.start + self.frames

    @property
    def frame_stages(self) -> npt.NDArray[np.uint8]:
        """Stages that are there of each block and frame, [G, T]."""
        frame = np.arange(self.frames)
        counts = [count // self.frames + (frame < count % self.frames) for count in self.present]
        return np.array(counts, np.uint8).reshape(len(self.present), self.frames)

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """True for each frame [T] of which at least one code came."""
        return np.any(self.frame_stages, axis=0).reshape(self.frames)


def lost_packet(start: int, frames: int, header: StreamHeader) -> Packet:
    """Stand-in for frames that did not arrive."""
    codes = tuple(np.zeros((0, frames), _dtype(bits)) for bits in header.block_bits)
    return Packet(start, frames, codes, (0,) * len(codes), "lost")


def payload_bits(frames: int, stages: Sequence[int], header: StreamHeader) -> int:
    """Bits the codes of a packet take."""
    return frames * sum(k * bits for k, bits in zip(stages, header.block_bits, strict=True))


def serialize_packet(codes: BlockCodes, header: StreamHeader, start: int = 0) -> bytes:
    """Make one packet.

    Args:
        codes: per block codes [K_b, T], as a mapping by name or in the header's order. A block
            may have 0 stages, but not all of them.
        header: header of the stream.
        start: index of the packet's first frame.

    Returns:
        The packet's bytes.

    Raises:
        AfcPacketError: shapes, values, stage or frame counts do not fit the header or the limits.
    """
    arrays = check_codes(codes, header)
    stages = tuple(array.shape[0] for array in arrays)
    frames = arrays[0].shape[1]
    payload = _pack_runs(
        [
            (pack_bits(array.reshape(-1), bits), array.size * bits)
            for array, bits in zip(arrays, header.block_bits, strict=True)
        ]
    )
    return _assemble(start, frames, stages, payload, header)


def parse_packet(
    data: bytes | bytearray, header: StreamHeader, *, allow_partial: bool = False
) -> Packet:
    """Read one packet that a transport delivered.

    Args:
        data: the bytes of one packet, no more.
        header: header of the stream.
        allow_partial: accept a packet whose end was cut off and return what is there; its
            checksum cannot be verified then.

    Raises:
        AfcPacketError: the packet is damaged, incomplete or does not fit the header.
    """
    head = _whole_head(data, header)
    if len(data) > head.size:
        raise AfcPacketError(f"packet: {head.size} bytes expected, got {len(data)}")
    payload = bytes(data[head.head_size :])
    if len(payload) < head.payload_size:
        if not allow_partial:
            raise AfcPacketError(
                f"packet: cut off after {len(data)} of {head.size} bytes; "
                "pass allow_partial=True to keep the stages that are whole"
            )
        return decode_payload(head, payload, header)
    if not payload_is_good(head, data[: head.head_size], payload):
        raise AfcPacketError(f"packet: checksum mismatch in the packet of frame {head.start}")
    return decode_payload(head, payload, header)


def truncate_packet(packet: bytes | bytearray, header: StreamHeader, stages: Stages) -> bytes:
    """Lower the rate of a packet without decoding it, as a relay does.

    Args:
        packet: one whole packet.
        header: header of the stream.
        stages: stages to keep: one number for all blocks, a mapping by block name (blocks left
            out keep theirs), or one number a block. More than the packet has is no error.

    Returns:
        A valid packet with at most these stages.

    Raises:
        AfcPacketError: the packet is damaged, or nothing would be left of it.
    """
    head = _whole_head(packet, header)
    payload = bytes(packet[head.head_size :])
    if len(payload) != head.payload_size or not payload_is_good(
        head, packet[: head.head_size], payload
    ):
        raise AfcPacketError(f"packet: the packet of frame {head.start} is damaged or incomplete")
    keep = _resolve_keep(stages, head.stages, header)
    run, pos, parts = int.from_bytes(payload, "little"), 0, []
    for had, kept, bits in zip(head.stages, keep, header.block_bits, strict=True):
        parts.append((_cut_run(run, pos, head.frames * kept * bits), head.frames * kept * bits))
        pos += head.frames * had * bits
    return _assemble(head.start, head.frames, keep, _pack_runs(parts), header)


def parse_head(data: bytes | bytearray, header: StreamHeader) -> PacketHead:
    """Parse the head at the start of ``data``; nothing after the head is looked at.

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
    if pos + 2 > len(data):
        raise wire.Incomplete
    if wire.crc8(data[2:pos]) != data[1]:
        raise AfcPacketError("packet: the checksum of its head does not match")
    _check_head(start, frames, stages, header)
    size = (payload_bits(frames, stages, header) + 7) // 8
    if size > wire.MAX_PAYLOAD_BYTES:
        raise AfcPacketError(
            f"packet: {size} payload bytes, at most {wire.MAX_PAYLOAD_BYTES} are allowed"
        )
    return PacketHead(start, frames, stages, data[pos] | data[pos + 1] << 8, pos + 2, size)


def max_head_size(header: StreamHeader) -> int:
    """Most bytes a packet head of this stream can take."""
    return 2 + 6 + 2 + 1 + len(header.blocks) + 2


def payload_is_good(
    head: PacketHead, head_bytes: bytes | bytearray, payload: bytes | bytearray
) -> bool:
    """Whether the checksum over the head's fields and the payload holds."""
    return wire.crc16(bytes(head_bytes[2 : head.head_size - 2]) + payload) == head.crc


def decode_payload(head: PacketHead, payload: bytes, header: StreamHeader) -> Packet:
    """Codes of a payload, which may be cut short; its checksum is the caller's business.

    Raises:
        AfcPacketError: a code lies outside its block's codebook.
    """
    run, left, pos = int.from_bytes(payload, "little"), len(payload) * 8, 0
    codes, present = [], []
    for block, stages, bits in zip(header.blocks, head.stages, header.block_bits, strict=True):
        total = head.frames * stages
        count = min(total, max(0, (left - pos) // bits))
        values = np.zeros(total, _dtype(bits))
        values[:count] = unpack_bits(_cut_run(run, pos, count * bits), bits, count, values.dtype)
        if block.codebook_size != 1 << bits and count and values.max() >= block.codebook_size:
            raise AfcPacketError(
                f"packet: block {block.name!r} holds code {values.max()}, its codebook has "
                f"{block.codebook_size} entries"
            )
        codes.append(values.reshape(stages, head.frames))
        present.append(count)
        pos += total * bits
    whole = len(payload) == head.payload_size
    status = "ok" if whole else "partial" if any(present) else "lost"
    return Packet(head.start, head.frames, tuple(codes), tuple(present), status)


def check_codes(codes: BlockCodes, header: StreamHeader) -> tuple[IntArray, ...]:
    """Codes as one contiguous integer array [K_b, T] a block, in the header's order.

    Raises:
        AfcPacketError: the blocks, shapes, types or values do not fit the header.
    """
    arrays = _in_order(codes, header)
    frames = arrays[0].shape[-1] if arrays[0].ndim else -1
    for block, array in zip(header.blocks, arrays, strict=True):
        where = f"codes of block {block.name!r}"
        if array.ndim != 2 or array.shape[1] != frames or array.shape[0] > header.num_stages:
            raise AfcPacketError(
                f"{where}: expected shape [stages <= {header.num_stages}, {frames} frames] "
                f"alike in all blocks, got {list(array.shape)}"
            )
        if array.dtype.kind not in "iu":
            if array.size:
                raise AfcPacketError(f"{where}: expected integers, got {array.dtype}")
        elif array.size and not 0 <= int(array.min()) <= int(array.max()) < block.codebook_size:
            raise AfcPacketError(
                f"{where}: expected values in 0..{block.codebook_size - 1}, "
                f"got {array.min()}..{array.max()}"
            )
    return tuple(
        np.ascontiguousarray(array, _dtype(bits))
        for array, bits in zip(arrays, header.block_bits, strict=True)
    )


def _in_order(codes: BlockCodes, header: StreamHeader) -> list[npt.NDArray[Any]]:
    names = header.names
    if isinstance(codes, Mapping):
        if set(codes) != set(names):
            raise AfcPacketError(f"codes: expected blocks {list(names)}, got {sorted(codes)}")
        return [np.asarray(codes[name]) for name in names]
    if len(codes) != len(names):
        raise AfcPacketError(f"codes: expected {len(names)} blocks {names}, got {len(codes)}")
    return [np.asarray(array) for array in codes]


def _dtype(bits: int) -> type[np.int32] | type[np.int64]:
    return np.int32 if bits <= 31 else np.int64


def _check_head(start: int, frames: int, stages: tuple[int, ...], header: StreamHeader) -> None:
    if frames < 1 or frames > wire.MAX_FRAMES_PER_PACKET:
        raise AfcPacketError(
            f"packet: expected 1..{wire.MAX_FRAMES_PER_PACKET} frames, got {frames}"
        )
    if start < 0 or start + frames > wire.MAX_FRAME_INDEX:
        raise AfcPacketError(f"packet: frame index {start} is beyond {wire.MAX_FRAME_INDEX}")
    if max(stages) > header.num_stages or max(stages) == 0:
        raise AfcPacketError(
            f"packet: expected up to {header.num_stages} stages and at least one in any block, "
            f"got {list(stages)}"
        )


def _assemble(
    start: int, frames: int, stages: tuple[int, ...], payload: bytes, header: StreamHeader
) -> bytes:
    _check_head(start, frames, stages, header)
    if len(payload) > wire.MAX_PAYLOAD_BYTES:
        raise AfcPacketError(
            f"packet: {frames} frames take {len(payload)} bytes, at most "
            f"{wire.MAX_PAYLOAD_BYTES} are allowed; put fewer frames into a packet"
        )
    alike = len(set(stages)) == 1
    fields = wire.write_varint(start) + wire.write_varint(frames)
    fields += bytes([stages[0]]) if alike else bytes([0, *stages])
    check = wire.crc16(fields + payload).to_bytes(2, "little")
    return bytes([wire.SYNC, wire.crc8(fields)]) + fields + check + payload


def _whole_head(data: bytes | bytearray, header: StreamHeader) -> PacketHead:
    try:
        return parse_head(data[: max_head_size(header)], header)
    except wire.Incomplete:
        raise AfcPacketError(f"packet: its head is cut off after {len(data)} bytes") from None
    except AfcPacketError:
        raise
    except AfcError as error:
        raise AfcPacketError(f"packet: {error}") from None


def _resolve_keep(stages: Stages, had: tuple[int, ...], header: StreamHeader) -> tuple[int, ...]:
    names = header.names
    if isinstance(stages, Mapping):
        unknown = sorted(set(stages) - set(names))
        if unknown:
            raise AfcPacketError(f"stages: unknown blocks {unknown}, the stream has {list(names)}")
        wanted = [stages.get(name, count) for name, count in zip(names, had, strict=True)]
    elif isinstance(stages, int):
        wanted = [stages] * len(had)
    else:
        wanted = list(stages)
    if len(wanted) != len(had) or min(wanted) < 0:
        raise AfcPacketError(
            f"stages: expected one count of 0 or more for each of {list(names)}, got {stages!r}"
        )
    return tuple(min(want, have) for want, have in zip(wanted, had, strict=True))


# Blocks meet at any bit, but packing works on whole bytes. Python's long integers shift a run into
# place in linear time and keep this file free of a second packing loop.


def _pack_runs(runs: Sequence[tuple[bytes, int]]) -> bytes:
    value = pos = 0
    for data, bits in runs:
        value |= int.from_bytes(data, "little") << pos
        pos += bits
    return value.to_bytes((pos + 7) // 8, "little")


def _cut_run(run: int, pos: int, bits: int) -> bytes:
    return ((run >> pos) & ((1 << bits) - 1)).to_bytes((bits + 7) // 8, "little")
