# SPDX-License-Identifier: Apache-2.0
"""Small streams for the tests of the bitstream."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from affectcodec.bitstream import AfcWriter, StreamHeader

HASH = "0123456789abcdef"


def make_codes(
    header: StreamHeader, stages: int | Sequence[int], frames: int, seed: int = 0
) -> list[npt.NDArray[Any]]:
    """Random codes [K_b, T] of each block."""
    rng = np.random.default_rng(seed)
    counts = [stages] * len(header.blocks) if isinstance(stages, int) else stages
    return [
        rng.integers(0, block.codebook_size, (count, frames), np.int64)
        for block, count in zip(header.blocks, counts, strict=True)
    ]


def make_stream(
    header: StreamHeader,
    codes: Sequence[npt.NDArray[Any]],
    frames_per_packet: int = 10,
    seek_table: bool | None = None,
) -> bytes:
    """A whole stream in memory."""
    file = io.BytesIO()
    with AfcWriter(
        file, header, frames_per_packet=frames_per_packet, seek_table=seek_table
    ) as writer:
        writer.write(codes)
    return file.getvalue()


def packet_offsets(data: bytes, header: StreamHeader) -> list[int]:
    """Where the packets of an undamaged stream without trailer begin, and where it ends."""
    from affectcodec.bitstream.head import parse_head

    offsets = [len(header.to_bytes())]
    while offsets[-1] < len(data) and data[offsets[-1]] == 0xAC:
        offsets.append(offsets[-1] + parse_head(data[offsets[-1] :], header).size)
    return offsets


class Pipe:
    """A source that can only be read, at most ``step`` bytes at a time."""

    def __init__(self, data: bytes, step: int = 1 << 30) -> None:
        self._file, self._step = io.BytesIO(data), step
        self.taken = 0

    def read(self, size: int) -> bytes:
        data = self._file.read(min(size, self._step))
        self.taken += len(data)
        return data
