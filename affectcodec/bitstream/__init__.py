# SPDX-License-Identifier: Apache-2.0
"""The ``.afc`` stream format: bit-exact, checksummed, readable while written.

Writing and reading need NumPy only; ``write_tokens`` and ``read_tokens``, which need torch, are
loaded when they are first asked for. The format is specified in docs/format.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from affectcodec.bitstream.coded import PayloadCoder
from affectcodec.bitstream.errors import (
    AfcCoderError,
    AfcError,
    AfcHashMismatch,
    AfcHeaderError,
    AfcLimitError,
    AfcPacketError,
    AfcSeekError,
    AfcSizeError,
)
from affectcodec.bitstream.header import STANDARD_BLOCKS, BlockLayout, StreamHeader
from affectcodec.bitstream.packet import Packet, parse_packet, serialize_packet, truncate_packet
from affectcodec.bitstream.reader import AfcReader, coded_payload_bits
from affectcodec.bitstream.report import ReadReport
from affectcodec.bitstream.writer import AfcWriter

if TYPE_CHECKING:
    from affectcodec.bitstream.tokens_io import header_of, read_tokens, write_tokens

__all__ = [
    "STANDARD_BLOCKS",
    "AfcCoderError",
    "AfcError",
    "AfcHashMismatch",
    "AfcHeaderError",
    "AfcLimitError",
    "AfcPacketError",
    "AfcReader",
    "AfcSeekError",
    "AfcSizeError",
    "AfcWriter",
    "BlockLayout",
    "Packet",
    "PayloadCoder",
    "ReadReport",
    "StreamHeader",
    "coded_payload_bits",
    "header_of",
    "parse_packet",
    "read_tokens",
    "serialize_packet",
    "truncate_packet",
    "write_tokens",
]

_NEED_TORCH = ("header_of", "read_tokens", "write_tokens")


def __getattr__(name: str) -> Any:
    if name in _NEED_TORCH:
        from affectcodec.bitstream import tokens_io

        return getattr(tokens_io, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
