# SPDX-License-Identifier: Apache-2.0
"""Limits, checksums and variable-length integers of the ``.afc`` format (see docs/format.md)."""

from __future__ import annotations

import binascii

from affectcodec.bitstream.errors import AfcError

MAGIC = b"AFC"
VERSION = 1
SYNC = 0xAC
TRAILER_MAGIC = b"AFCT"
TRAILER_END = b"TCFA"

# Every reader enforces these before it allocates anything.
MAX_HEADER_BYTES = 8192
MAX_METADATA_BYTES = 4096
MAX_BLOCKS = 32
MAX_NAME_BYTES = 128
MAX_CODE_DIMS = 63
MAX_LEVEL = 4096
MAX_CODEBOOK = 2**63
MAX_STAGES = 64
MAX_SAMPLE_RATE = 2**24
MAX_HOP = 2**20
MAX_FRAMES_PER_PACKET = 4096
MAX_PAYLOAD_BYTES = 65535
MAX_FRAME_INDEX = 2**40 - 1
MAX_TRAILER_BYTES = 65536
MAX_SEEK_ENTRIES = 4096
UNKNOWN_SAMPLES = 2**40 - 1
SAMPLE_COUNT_BYTES = 5


class Incomplete(Exception):
    """Internal: the bytes end before the field does."""


def _crc8_table() -> bytes:
    table = bytearray(256)
    for value in range(256):
        rest = value
        for _ in range(8):
            rest = (rest << 1) ^ (0x107 if rest & 0x80 else 0)
        table[value] = rest
    return bytes(table)


_CRC8 = _crc8_table()


def crc8(data: bytes | bytearray) -> int:
    """CRC-8/SMBUS: polynomial 0x07, start 0, no reflection; 0xF4 for ``b"123456789"``."""
    value = 0
    for byte in data:
        value = _CRC8[value ^ byte]
    return value


def crc16(data: bytes | bytearray) -> int:
    """CRC-16/IBM-3740: polynomial 0x1021, start 0xFFFF; 0x29B1 for ``b"123456789"``."""
    return binascii.crc_hqx(data, 0xFFFF)


def write_varint(value: int) -> bytes:
    """Unsigned LEB128: seven bits a byte, lowest first, bit 7 set on all bytes but the last."""
    if value < 0:
        raise ValueError(f"varint: expected 0 or more, got {value}")
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_varint(data: bytes | bytearray, pos: int, limit: int) -> tuple[int, int]:
    """Read a varint of at most ``limit``.

    Returns:
        The value and the position after it.

    Raises:
        Incomplete: the data end inside it.
        AfcError: it is larger than ``limit`` or not in its shortest form.
    """
    value = shift = 0
    while True:
        if pos >= len(data):
            raise Incomplete
        byte = data[pos]
        pos += 1
        value |= (byte & 0x7F) << shift
        if value > limit or shift > 63:
            raise AfcError(f"number: at most {limit} is allowed here, got at least {value}")
        if byte < 0x80:
            # One form for one number, so that equal streams are equal bytes.
            if byte == 0 and shift:
                raise AfcError(f"number: {value} is written in more bytes than it needs")
            return value, pos
        shift += 7
