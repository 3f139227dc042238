# SPDX-License-Identifier: Apache-2.0
"""The stream header: what a reader must know before the first packet.

The byte layout is specified in docs/format.md, section "Stream header".
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from affectcodec.bitstream import wire
from affectcodec.bitstream.errors import AfcError, AfcHeaderError

_PROFILE_EXPLICIT, _PROFILE_STANDARD = 0, 1
_PROFILE_MASK, _HAS_LOUDNESS, _HAS_METADATA, _IS_CODED, _RESERVED_FLAGS = (
    0x0F,
    0x10,
    0x20,
    0x40,
    0x80,
)
_ID_BYTES = 8
_TAIL_BYTES = wire.SAMPLE_COUNT_BYTES + 2  # sample count and CRC close every header


@dataclass(frozen=True)
class BlockLayout:
    """Name and levels of one block; all that packing its codes needs.

    Args:
        name: an identifier of at most 32 characters.
        levels: quantization levels of each code dim, each in 2..4096.
    """

    name: str
    levels: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "levels", tuple(self.levels))
        if not isinstance(self.name, str) or not self.name.isidentifier() or len(self.name) > 32:
            raise AfcHeaderError(
                f"block: name must be an identifier of at most 32 characters, got {self.name!r}"
            )
        if not 1 <= len(self.levels) <= wire.MAX_CODE_DIMS:
            raise AfcHeaderError(
                f"block {self.name!r}: expected 1..{wire.MAX_CODE_DIMS} levels, "
                f"got {len(self.levels)}"
            )
        for level in self.levels:
            if not isinstance(level, int) or not 2 <= level <= wire.MAX_LEVEL:
                raise AfcHeaderError(
                    f"block {self.name!r}: every level must be an integer in "
                    f"2..{wire.MAX_LEVEL}, got {level!r}"
                )

    @property
    def codebook_size(self) -> int:
        """Number of codes a stage, the product of the levels."""
        return math.prod(self.levels)

    @property
    def bits(self) -> int:
        """Whole bits one code takes in a packet, ``ceil(log2(codebook_size))``."""
        return (self.codebook_size - 1).bit_length()


STANDARD_BLOCKS: tuple[BlockLayout, ...] = (
    BlockLayout("emotion", (2, 2, 2)),
    BlockLayout("acoustic", (4,) * 6),
)
_STANDARD = (16000, 320, STANDARD_BLOCKS, 8)


@dataclass(frozen=True)
class StreamHeader:
    """What every packet of a stream has in common.

    Args:
        config_hash: 16 hexadecimal digits that name the codec configuration.
        sample_rate: in Hz.
        hop_length: samples a frame.
        blocks: block layouts in latent order.
        num_stages: most stages a packet may carry of any block, 1..64.
        num_samples: samples of the original wave, or None while it is not known.
        loudness_dbfs: measured loudness of the original in dBFS, kept in steps of 1/256 dB within
            -128..127. Informational: the level is in the tokens, decoding does not use it.
        metadata: small JSON object, at most 4096 bytes when written.
        coder: 16 hexadecimal digits that name the coder of all payloads, see
            :class:`affectcodec.bitstream.PayloadCoder`; None where payloads are plain.

    Raises:
        AfcHeaderError: a value is outside the limits of the format.
    """

    config_hash: str
    sample_rate: int = 16000
    hop_length: int = 320
    blocks: tuple[BlockLayout, ...] = STANDARD_BLOCKS
    num_stages: int = 8
    num_samples: int | None = None
    loudness_dbfs: float | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    coder: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "blocks", tuple(self.blocks))
        _check_id("config_hash", self.config_hash)
        if self.coder is not None:
            _check_id("coder", self.coder)
        _check_range("sample_rate", self.sample_rate, 1, wire.MAX_SAMPLE_RATE)
        _check_range("hop_length", self.hop_length, 1, wire.MAX_HOP)
        _check_range("num_stages", self.num_stages, 1, wire.MAX_STAGES)
        _check_range("blocks: their number", len(self.blocks), 1, wire.MAX_BLOCKS)
        if self.num_samples is not None:
            _check_range("num_samples", self.num_samples, 0, wire.UNKNOWN_SAMPLES - 1)
        names = [block.name for block in self.blocks]
        if len(set(names)) != len(names):
            raise AfcHeaderError(f"blocks: names must differ, got {names}")
        if math.prod(block.codebook_size for block in self.blocks) > wire.MAX_CODEBOOK:
            raise AfcHeaderError("blocks: the composite codebook is larger than 2**63")
        if self.loudness_dbfs is not None and not -128 <= self.loudness_dbfs <= 127:
            raise AfcHeaderError(
                f"loudness_dbfs: expected a number in -128..127 or None, got {self.loudness_dbfs}; "
                "leave it out for digital silence"
            )

    @cached_property
    def block_bits(self) -> tuple[int, ...]:
        """Whole bits one code of each block takes."""
        return tuple(block.bits for block in self.blocks)

    @property
    def names(self) -> tuple[str, ...]:
        """Block names in latent order."""
        return tuple(block.name for block in self.blocks)

    @property
    def frame_rate(self) -> float:
        """Frames a second."""
        return self.sample_rate / self.hop_length

    @property
    def num_frames(self) -> int | None:
        """Frames that ``num_samples`` take: one a hop and one that flushes the last overlap."""
        if self.num_samples is None:
            return None
        return -(-self.num_samples // self.hop_length) + 1 if self.num_samples else 0

    def to_bytes(self) -> bytes:
        """Serialise.

        Raises:
            AfcHeaderError: the metadata is no JSON object or too large.
        """
        standard = (self.sample_rate, self.hop_length, self.blocks, self.num_stages) == _STANDARD
        flags = _PROFILE_STANDARD if standard else _PROFILE_EXPLICIT
        body = bytes.fromhex(self.config_hash)
        if self.coder is not None:
            flags |= _IS_CODED
            body += bytes.fromhex(self.coder)
        if not standard:
            body += _layout_bytes(self)
        if self.loudness_dbfs is not None:
            flags |= _HAS_LOUDNESS
            body += struct.pack("<h", round(self.loudness_dbfs * 256))
        if self.metadata:
            flags |= _HAS_METADATA
            text = _metadata_bytes(self.metadata)
            body += wire.write_varint(len(text)) + text
        size = 1 + len(body) + _TAIL_BYTES
        head = wire.MAGIC + bytes([wire.VERSION]) + wire.write_varint(size) + bytes([flags]) + body
        if len(head) + _TAIL_BYTES > wire.MAX_HEADER_BYTES:
            raise AfcHeaderError(
                f"header: {len(head) + _TAIL_BYTES} bytes, at most {wire.MAX_HEADER_BYTES} are "
                "allowed; shorten the metadata or the block names"
            )
        return head + self.tail_bytes(head)

    def tail_bytes(self, head: bytes) -> bytes:
        """Sample count and CRC: the only bytes that change when the length becomes known.

        They are adjacent, so that a writer can patch a finished file in one write.

        Args:
            head: all bytes of the header before them.
        """
        samples = wire.UNKNOWN_SAMPLES if self.num_samples is None else self.num_samples
        count = samples.to_bytes(wire.SAMPLE_COUNT_BYTES, "little")
        return count + struct.pack("<H", wire.crc16(head + count))

    @classmethod
    def from_bytes(cls, data: bytes | bytearray) -> tuple[StreamHeader, int]:
        """Parse the header at the start of ``data``.

        Returns:
            The header and the number of bytes it takes.

        Raises:
            AfcHeaderError: the bytes are no complete, valid header of a known version.
        """
        wanted = header_size(data)
        if wanted is None or len(data) < wanted:
            raise AfcHeaderError(
                f"header: the stream ends inside it, after {len(data)} of "
                f"{'at least 14' if wanted is None else wanted} bytes"
            )
        raw = bytes(data[:wanted])
        if wire.crc16(raw[:-2]) != int.from_bytes(raw[-2:], "little"):
            raise AfcHeaderError(
                "header: the checksum does not match, the first bytes of the stream are damaged"
            )
        try:
            return _parse_body(cls, raw), wanted
        except wire.Incomplete:
            raise AfcHeaderError("header: a field runs past the end of the header") from None
        except AfcHeaderError:
            raise
        except AfcError as error:
            raise AfcHeaderError(f"header: {error}") from None


def header_size(data: bytes | bytearray) -> int | None:
    """Total bytes of the header that ``data`` begins with; None if more bytes are needed to tell.

    Raises:
        AfcHeaderError: not an ``.afc`` stream, another version, or an impossible size.
    """
    magic = bytes(data[:3])
    if not wire.MAGIC.startswith(magic):
        raise AfcHeaderError(
            f"header: not an .afc stream, it begins with {magic!r} instead of {wire.MAGIC!r}"
        )
    if len(data) >= 4 and data[3] != wire.VERSION:
        raise AfcHeaderError(
            f"header: format version {data[3]}, this reader knows version {wire.VERSION}; "
            "a newer release of affectcodec may read it"
        )
    try:
        size, pos = wire.read_varint(data, 4, wire.MAX_HEADER_BYTES)
    except wire.Incomplete:
        return None
    except AfcError as error:
        raise AfcHeaderError(f"header: {error}") from None
    if size < 9 + _TAIL_BYTES or pos + size > wire.MAX_HEADER_BYTES:
        raise AfcHeaderError(
            f"header: its length says {size} bytes, expected {9 + _TAIL_BYTES} to "
            f"{wire.MAX_HEADER_BYTES - pos}"
        )
    return pos + size


def _check_id(name: str, text: Any) -> None:
    if not isinstance(text, str) or len(text) != 16 or set(text) - set("0123456789abcdef"):
        raise AfcHeaderError(f"{name}: expected 16 lower-case hexadecimal digits, got {text!r}")


def _check_range(name: str, value: Any, low: int, high: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise AfcHeaderError(f"{name} must be an integer in {low}..{high}, got {value!r}")


def _layout_bytes(header: StreamHeader) -> bytes:
    out = wire.write_varint(header.sample_rate) + wire.write_varint(header.hop_length)
    out += bytes([header.num_stages, len(header.blocks)])
    for block in header.blocks:
        name = block.name.encode()
        out += bytes([len(name)]) + name + bytes([len(block.levels)])
        out += b"".join(wire.write_varint(level) for level in block.levels)
    return out


def _metadata_bytes(metadata: Mapping[str, Any]) -> bytes:
    try:
        text = json.dumps(
            dict(metadata), ensure_ascii=False, allow_nan=False, separators=(",", ":")
        ).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise AfcHeaderError(f"metadata: not a JSON object ({error})") from None
    if len(text) > wire.MAX_METADATA_BYTES:
        raise AfcHeaderError(
            f"metadata: {len(text)} bytes as JSON, at most {wire.MAX_METADATA_BYTES} are allowed; "
            "keep large data beside the file"
        )
    return text


def _parse_metadata(text: bytes) -> dict[str, Any]:
    def reject(constant: str) -> Any:
        raise ValueError(f"{constant} is no JSON number")

    try:
        value = json.loads(text.decode(), parse_constant=reject)
        # Escapes can smuggle in lone surrogates, which no later print or write would survive.
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        raise AfcHeaderError(f"header: the metadata is no valid JSON ({error})") from None
    if not isinstance(value, dict):
        raise AfcHeaderError(
            f"header: the metadata must be a JSON object, got {type(value).__name__}"
        )
    return value


class _Fields:
    """Cursor over the body of a header whose CRC is known to be good."""

    def __init__(self, data: bytes, pos: int, end: int) -> None:
        self.data, self.pos = data[:end], pos

    def take(self, size: int) -> bytes:
        if self.pos + size > len(self.data):
            raise wire.Incomplete
        out = self.data[self.pos : self.pos + size]
        self.pos += size
        return out

    def byte(self) -> int:
        return self.take(1)[0]

    def varint(self, limit: int) -> int:
        value, self.pos = wire.read_varint(self.data, self.pos, limit)
        return value


def _parse_body(cls: type[StreamHeader], raw: bytes) -> StreamHeader:
    _, pos = wire.read_varint(raw, 4, wire.MAX_HEADER_BYTES)
    fields = _Fields(raw, pos, len(raw) - _TAIL_BYTES)
    flags = fields.byte()
    if flags & _RESERVED_FLAGS or flags & _PROFILE_MASK > _PROFILE_STANDARD:
        raise AfcHeaderError(
            f"header: unknown flags 0x{flags:02x}, the stream needs a newer reader"
        )
    config_hash = fields.take(_ID_BYTES).hex()
    coder = fields.take(_ID_BYTES).hex() if flags & _IS_CODED else None
    rate, hop, blocks, stages = _STANDARD
    if flags & _PROFILE_MASK == _PROFILE_EXPLICIT:
        rate, hop = fields.varint(wire.MAX_SAMPLE_RATE), fields.varint(wire.MAX_HOP)
        stages = fields.byte()
        count = fields.byte()
        _check_range("header: number of blocks", count, 1, wire.MAX_BLOCKS)
        blocks = tuple(_parse_block(fields) for _ in range(count))
    loudness = None
    if flags & _HAS_LOUDNESS:
        loudness = struct.unpack("<h", fields.take(2))[0] / 256
    metadata = {}
    if flags & _HAS_METADATA:
        metadata = _parse_metadata(fields.take(fields.varint(wire.MAX_METADATA_BYTES)))
    if fields.pos != len(fields.data):
        raise AfcHeaderError(f"header: {len(fields.data) - fields.pos} bytes more than its fields")
    samples = int.from_bytes(raw[-_TAIL_BYTES:-2], "little")
    known = None if samples == wire.UNKNOWN_SAMPLES else samples
    return cls(config_hash, rate, hop, blocks, stages, known, loudness, metadata, coder)


def _parse_block(fields: _Fields) -> BlockLayout:
    size = fields.byte()
    _check_range("header: bytes of a block name", size, 1, wire.MAX_NAME_BYTES)
    try:
        name = fields.take(size).decode()
    except UnicodeDecodeError as error:
        raise AfcHeaderError(f"header: a block name is no UTF-8 ({error})") from None
    dims = fields.byte()
    _check_range(f"header: code dims of block {name!r}", dims, 1, wire.MAX_CODE_DIMS)
    return BlockLayout(name, tuple(fields.varint(wire.MAX_LEVEL) for _ in range(dims)))
