# SPDX-License-Identifier: Apache-2.0
"""A coder of payloads without any prior: stage counts and codes, deflated."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from affectcodec.bitstream import STANDARD_BLOCKS, BlockLayout

CODER_ID = "fedcba9876543210"


class DeflateCoder:
    """Holds to ``PayloadCoder``; counts its calls."""

    def __init__(
        self,
        blocks: tuple[BlockLayout, ...] = STANDARD_BLOCKS,
        num_stages: int = 8,
        max_frames: int = 400,
        id: str = CODER_ID,
    ) -> None:
        self.id, self.blocks, self.num_stages, self.max_frames = id, blocks, num_stages, max_frames
        self.decoded = 0

    def encode(self, codes: Sequence[npt.NDArray[Any]], stages: npt.NDArray[np.uint8]) -> bytes:
        parts = [stages.tobytes()]
        for array, row in zip(codes, stages, strict=True):
            there = np.arange(len(array))[:, None] < row
            assert there.shape == array.shape and not array[~there].any()
            parts.append(array[there].astype("<i8").tobytes())
        return zlib.compress(b"".join(parts), 9)

    def decode(
        self, data: bytes, frames: int, most: tuple[int, ...]
    ) -> tuple[list[npt.NDArray[Any]], npt.NDArray[np.uint8]]:
        self.decoded += 1
        assert 1 <= frames <= self.max_frames
        room = frames * (len(most) + 8 * sum(most))
        try:
            raw = zlib.decompressobj().decompress(data, room + 1)
        except zlib.error as error:
            raise ValueError(f"deflate: {error}") from None
        if len(raw) < frames * len(most):
            raise ValueError("deflate: no room for the stage counts")
        stages = np.frombuffer(raw, np.uint8, frames * len(most)).reshape(len(most), frames)
        if (stages > np.array(most)[:, None]).any():
            raise ValueError("deflate: more stages than the head says")
        rest = raw[stages.size :]
        if len(rest) != 8 * int(stages.sum()):
            raise ValueError("deflate: another number of codes than the counts say")
        values, pos, codes = np.frombuffer(rest, "<i8"), 0, []
        for count, row in zip(most, stages, strict=True):
            array = np.zeros((count, frames), np.int64)
            array[np.arange(count)[:, None] < row] = values[pos : pos + int(row.sum())]
            codes.append(array)
            pos += int(row.sum())
        return codes, stages
