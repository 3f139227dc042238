# SPDX-License-Identifier: Apache-2.0
"""The examples and limits of docs/format.md against the code."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from affectcodec.bitstream import AfcReader, AfcWriter, BlockLayout, StreamHeader, wire
from tests.bitstream.coders import CODER_ID, DeflateCoder

DOCUMENT = Path(__file__).parents[2] / "docs" / "format.md"
HASH = "0123456789abcdef"
CODES = {
    "emotion": np.array([[1, 2, 3], [4, 5, 6]]),
    "acoustic": np.array([[0x123, 0x456, 0x789]]),
}


def _examples() -> list[bytes]:
    blocks = re.findall(r"```hex\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    pattern = re.compile(r"^((?:[0-9a-f]{2} )*[0-9a-f]{2})(?: {2,}.*)?$")
    examples = []
    for block in blocks:
        rows = [pattern.match(line) for line in block.splitlines()]
        assert all(rows), block
        examples.append(bytes.fromhex(" ".join(row[1] for row in rows if row)))
    return examples


def test_the_writer_makes_the_worked_example() -> None:
    file = io.BytesIO()
    header = StreamHeader(HASH, num_samples=640, loudness_dbfs=-23.0)
    with AfcWriter(file, header, frames_per_packet=2, seek_table=True) as writer:
        writer.write(CODES)
    assert file.getvalue().hex(" ") == _examples()[0].hex(" ")


def test_the_reader_reads_the_worked_example() -> None:
    reader = AfcReader(_examples()[0])
    codes, mask, report = reader.read_all()
    assert report.ok and report.trailer == "ok" and mask.all()
    assert (reader.header.num_samples, reader.header.loudness_dbfs) == (640, -23.0)
    for name, wanted in CODES.items():
        np.testing.assert_array_equal(codes[name], wanted)


def test_the_explicit_header_of_the_document() -> None:
    blocks = (BlockLayout("emotion", (3, 3)),)
    header = StreamHeader(HASH, 24000, 480, blocks, 4, metadata={"a": 1})
    assert header.to_bytes().hex(" ") == _examples()[1].hex(" ")
    assert StreamHeader.from_bytes(_examples()[1]) == (header, len(_examples()[1]))


def test_the_coded_packets_of_the_document() -> None:
    class Fixed(DeflateCoder):
        def encode(self, codes: Any, stages: Any) -> bytes:
            return b"\xc0\xde\x01"

    file = io.BytesIO()
    header = StreamHeader(HASH, num_samples=640, coder=CODER_ID)
    with AfcWriter(file, header, frames_per_packet=2, coder=Fixed()) as writer:
        codes = [np.zeros((3, 3), int), np.zeros((2, 3), int)]
        writer.write(codes, [[3, 3, 0], [1, 2, 0]])
    assert file.getvalue().hex(" ") == _examples()[2].hex(" ")


@pytest.mark.parametrize(
    ("row", "value"),
    [
        ("| header | {} bytes |", wire.MAX_HEADER_BYTES),
        ("| metadata | {} bytes |", wire.MAX_METADATA_BYTES),
        ("| blocks; code dims of a block; levels | {}; 63; 4096 |", wire.MAX_BLOCKS),
        ("| blocks; code dims of a block; levels | 32; {}; 4096 |", wire.MAX_CODE_DIMS),
        ("| blocks; code dims of a block; levels | 32; 63; {} |", wire.MAX_LEVEL),
        ("| stages | {} |", wire.MAX_STAGES),
        ("| frames, payload of a packet | {}, 65535 bytes |", wire.MAX_FRAMES_PER_PACKET),
        (
            "| frames of a coded packet | what its coder takes, at most {} |",
            wire.MAX_FRAMES_PER_PACKET,
        ),
        ("| frames, payload of a packet | 4096, {} bytes |", wire.MAX_PAYLOAD_BYTES),
        ("| trailer | {} bytes, 4096 entries |", wire.MAX_TRAILER_BYTES),
        ("| trailer | 65536 bytes, {} entries |", wire.MAX_SEEK_ENTRIES),
    ],
)
def test_the_limits_of_the_document_are_those_of_the_code(row: str, value: int) -> None:
    assert row.format(value) in DOCUMENT.read_text(encoding="utf-8")
