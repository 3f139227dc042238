# SPDX-License-Identifier: Apache-2.0
"""Packets: a run of frames as bytes, usable with or without a file around them.

A packet is a short head and a payload. A plain payload is one run of bits. It holds, for the first
block, stage 1 of all frames, stage 2 of all frames and so on, then the same for the next block.
Cutting bytes from the end therefore takes the last stages of the last block first. In a stream
whose header names a coder, the payload is what the coder made of the codes: it is there whole or
not at all. The byte layout is specified in docs/format.md, section "Packets".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from affectcodec.bitpacking import pack_bits, unpack_bits
from affectcodec.bitstream import wire
from affectcodec.bitstream.coded import (
    CoderOrFinder,
    IntArray,
    PayloadCoder,
    check_stages,
    code_dtype,
    decode_coded,
    encode_coded,
    find_coder,
)
from affectcodec.bitstream.errors import AfcPacketError
from affectcodec.bitstream.head import (
    PacketHead,
    assemble,
    check_frames,
    payload_is_good,
    whole_head,
)
from affectcodec.bitstream.header import StreamHeader

BlockCodes = Sequence[npt.ArrayLike] | Mapping[str, npt.ArrayLike]
Stages = int | Mapping[str, int] | Sequence[int]


@dataclass(frozen=True, eq=False)
class Packet:
    """Codes of consecutive frames.

    Args:
        start: index of the first frame in the stream.
        frames: number of frames, T.
        codes: per block int32 (int64 for codebooks above 2**31) codes [K_b, T]; K_b may be 0.
        present: per block the number of codes that came; where ``counts`` is None they are counted
            in layer order, and are K_b * T unless the packet was cut. Codes that did not come are
            0.
        status: ``"ok"``; ``"partial"`` for a cut packet, whose codes no checksum covers; ``"lost"``
            for frames of which nothing is known.
        counts: stages of each block and frame, [G, T], of a packet with a coded payload, where
            they may change from frame to frame and be 0.
    """

    start: int
    frames: int
    codes: tuple[IntArray, ...]
    present: tuple[int, ...]
    status: str = "ok"
    counts: npt.NDArray[np.uint8] | None = None

    @property
    def end(self) -> int:
        """Index of the first frame after the packet."""
        return self.start + self.frames

    @property
    def frame_stages(self) -> npt.NDArray[np.uint8]:
        """Stages that are there of each block and frame, [G, T]."""
        if self.counts is not None:
            return self.counts
        frame = np.arange(self.frames)
        counts = [count // self.frames + (frame < count % self.frames) for count in self.present]
        return np.array(counts, np.uint8).reshape(len(self.present), self.frames)

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """True for each frame [T] of which at least one code came, or which came without any."""
        if self.status == "ok":
            return np.ones(self.frames, np.bool_)
        return np.any(self.frame_stages, axis=0).reshape(self.frames)


def lost_packet(start: int, frames: int, header: StreamHeader) -> Packet:
    """Stand-in for frames that did not arrive."""
    codes = tuple(np.zeros((0, frames), code_dtype(bits)) for bits in header.block_bits)
    return Packet(start, frames, codes, (0,) * len(codes), "lost")


def serialize_packet(
    codes: BlockCodes,
    header: StreamHeader,
    start: int = 0,
    *,
    frame_stages: npt.ArrayLike | None = None,
    coder: CoderOrFinder | None = None,
) -> bytes:
    """Make one packet.

    Args:
        codes: per block codes [K_b, T], as a mapping by name or in the header's order. A block
            may have 0 stages, but in a plain stream not all of them.
        header: header of the stream.
        start: index of the packet's first frame.
        frame_stages: stage counts [G, T], at most K_b; only where the header names a coder. Codes
            at or above a frame's count are left out.
        coder: the coder that the header names; by default it is looked up by its id.

    Returns:
        The packet's bytes.

    Raises:
        AfcPacketError: shapes, values, stage or frame counts do not fit the header or the limits.
        AfcCoderError: the coder is missing or does not fit the header.
    """
    arrays = check_codes(codes, header)
    frames = arrays[0].shape[1]
    if header.coder is not None:
        known = find_coder(header, coder)
        check_frames(frames, known.max_frames)
        counts = check_stages(frame_stages, arrays, header)
        stages, payload = encode_coded(arrays, counts, known)
        return assemble(start, frames, stages, payload, header)
    if frame_stages is not None:
        raise AfcPacketError(
            "frame_stages: stage counts may vary within a packet only where the header names a "
            "coder; make a packet for each stretch of equal counts"
        )
    stages = tuple(array.shape[0] for array in arrays)
    payload = _pack_runs(
        [
            (pack_bits(array.reshape(-1), bits), array.size * bits)
            for array, bits in zip(arrays, header.block_bits, strict=True)
        ]
    )
    return assemble(start, frames, stages, payload, header)


def parse_packet(
    data: bytes | bytearray,
    header: StreamHeader,
    *,
    allow_partial: bool = False,
    coder: CoderOrFinder | None = None,
) -> Packet:
    """Read one packet that a transport delivered.

    Args:
        data: the bytes of one packet, no more.
        header: header of the stream.
        allow_partial: accept a packet whose end was cut off and return what is there; its
            checksum cannot be verified then. A cut coded payload holds nothing: its frames are
            lost.
        coder: the coder that the header names, if any; by default it is looked up by its id.

    Raises:
        AfcPacketError: the packet is damaged, incomplete or does not fit the header.
        AfcCoderError: the coder is missing or does not fit the header.
    """
    known = None if header.coder is None else find_coder(header, coder)
    most = wire.MAX_FRAMES_PER_PACKET if known is None else known.max_frames
    head = whole_head(data, header, most)
    if len(data) > head.size:
        raise AfcPacketError(f"packet: {head.size} bytes expected, got {len(data)}")
    payload = bytes(data[head.head_size :])
    if len(payload) < head.payload_size:
        if not allow_partial:
            raise AfcPacketError(
                f"packet: cut off after {len(data)} of {head.size} bytes; "
                "pass allow_partial=True to keep the stages that are whole"
            )
        return decode_payload(head, payload, header, known)
    if not payload_is_good(head, data[: head.head_size], payload):
        raise AfcPacketError(f"packet: checksum mismatch in the packet of frame {head.start}")
    return decode_payload(head, payload, header, known)


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
        AfcPacketError: the packet is damaged, nothing would be left of it, or its payload is
            coded, so that stages cannot be told apart without decoding.
    """
    if header.coder is not None:
        raise AfcPacketError(
            "packet: a coded payload cannot be cut without decoding it; read the clip with "
            "read_tokens, cut it with Tokens.truncate, and write it again"
        )
    head = whole_head(packet, header)
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
    return assemble(head.start, head.frames, keep, _pack_runs(parts), header)


def decode_payload(
    head: PacketHead, payload: bytes, header: StreamHeader, coder: PayloadCoder | None = None
) -> Packet:
    """Codes of a payload, which may be cut short; its checksum is the caller's business.

    Args:
        head: head of the packet.
        payload: the bytes behind it.
        header: header of the stream.
        coder: the coder that the header names. Without it a coded payload stays as it is: the
            packet says the head's stages at every frame and holds no codes.

    Raises:
        AfcPacketError: a code lies outside its block's codebook.
    """
    if header.coder is not None:
        return _decode_coded(head, payload, header, coder)
    run, left, pos = int.from_bytes(payload, "little"), len(payload) * 8, 0
    codes, present = [], []
    for block, stages, bits in zip(header.blocks, head.stages, header.block_bits, strict=True):
        total = head.frames * stages
        count = min(total, max(0, (left - pos) // bits))
        values = np.zeros(total, code_dtype(bits))
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


def _decode_coded(
    head: PacketHead, payload: bytes, header: StreamHeader, coder: PayloadCoder | None
) -> Packet:
    lost = lost_packet(head.start, head.frames, header)
    if len(payload) < head.payload_size:
        return lost
    if coder is None:
        most = np.array(head.stages, np.uint8)[:, None]
        counts = np.broadcast_to(most, (len(most), head.frames))
        return dataclasses.replace(lost, status="ok", counts=counts)
    codes, counts = decode_coded(head, payload, header, coder)
    present = tuple(int(row.sum(dtype=np.int64)) for row in counts)
    return Packet(head.start, head.frames, codes, present, counts=counts)


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
        np.ascontiguousarray(array, code_dtype(bits))
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
