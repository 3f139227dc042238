# SPDX-License-Identifier: Apache-2.0
"""Gathering packets into one array a block, with lost frames concealed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from affectcodec.bitstream.coded import code_dtype
from affectcodec.bitstream.errors import AfcError, AfcLimitError
from affectcodec.bitstream.header import StreamHeader
from affectcodec.bitstream.packet import Packet

MAX_CODES = 2**25  # 128 MiB; 11 hours at 8 stages of two blocks and 50 frames a second
MAX_REPEAT_FRAMES = 10
_METHODS = ("repeat", "zero")


def collect(
    packets: Iterable[Packet], header: StreamHeader, conceal: str, max_codes: int
) -> tuple[dict[str, npt.NDArray[Any]], npt.NDArray[np.bool_], npt.NDArray[np.uint8]]:
    """Join packets that follow each other without holes.

    Args:
        packets: the packets.
        header: header of their stream.
        conceal: ``"repeat"`` or ``"zero"``, see :meth:`AfcReader.read_all`.
        max_codes: most codes to hold.

    Returns:
        Codes [K_b, T] by block name, mask [T], stages of each block and frame [G, T].

    Raises:
        AfcLimitError: there are more than ``max_codes`` codes.
        AfcError: ``conceal`` is not known.
    """
    if conceal not in _METHODS:
        raise AfcError(f"conceal: expected one of {list(_METHODS)}, got {conceal!r}")
    store = _Store(header, max_codes)
    for packet in packets:
        store.add(packet, repeat=conceal == "repeat")
    return store.result()


class _Store:
    """Arrays that grow by doubling, so that a long stream costs no list of small ones."""

    def __init__(self, header: StreamHeader, max_codes: int) -> None:
        blocks = len(header.blocks)
        self._names = header.names
        self._max_codes = max_codes
        self._frames = 0
        self._codes = [np.zeros((0, 0), code_dtype(bits)) for bits in header.block_bits]
        self._mask = np.zeros(0, np.bool_)
        self._stages = np.zeros((blocks, 0), np.uint8)

    def add(self, packet: Packet, *, repeat: bool) -> None:
        start, end = self._frames, self._frames + packet.frames
        self._grow([len(codes) for codes in packet.codes], end)
        for array, codes in zip(self._codes, packet.codes, strict=True):
            array[: len(codes), start:end] = codes
        self._stages[:, start:end] = packet.frame_stages
        self._mask[start:end] = packet.mask
        self._frames = end
        if repeat and packet.status == "lost" and start:
            self._repeat(start, end)

    def _repeat(self, start: int, end: int) -> None:
        # A frame held for long turns into a buzz; after 10 frames silence is the lesser evil.
        # Frames before `start` that are concealed themselves count: losses often come in a row.
        recent = self._mask[max(0, start - MAX_REPEAT_FRAMES) : start]
        heard = np.flatnonzero(recent)
        if not len(heard):
            return
        end = min(end, start + MAX_REPEAT_FRAMES - (len(recent) - 1 - int(heard[-1])))
        for array in (*self._codes, self._stages):
            array[:, start:end] = array[:, start - 1 : start]

    def _grow(self, stages: list[int], frames: int) -> None:
        wanted = [max(k, len(a)) for k, a in zip(stages, self._codes, strict=True)]
        if max(1, sum(wanted)) * frames > self._max_codes:
            raise AfcLimitError(
                f"max_codes: {frames} frames of {wanted} stages are more than {self._max_codes} "
                "codes; read packet by packet, or pass a higher max_codes"
            )
        room = len(self._mask)
        if frames > room:
            # The limit above is on codes in use; doubling must not pass it either.
            most = self._max_codes // max(1, sum(wanted))
            room = max(frames, min(2 * room, most))
            self._mask = _enlarged(self._mask[None], 1, room)[0]
            self._stages = _enlarged(self._stages, len(self._stages), room)
        for index, array in enumerate(self._codes):
            if array.shape != (wanted[index], room):
                self._codes[index] = _enlarged(array, wanted[index], room)

    def result(
        self,
    ) -> tuple[dict[str, npt.NDArray[Any]], npt.NDArray[np.bool_], npt.NDArray[np.uint8]]:
        frames = self._frames
        codes = [np.ascontiguousarray(array[:, :frames]) for array in self._codes]
        stages = np.ascontiguousarray(self._stages[:, :frames])
        return dict(zip(self._names, codes, strict=True)), self._mask[:frames].copy(), stages


def _enlarged(array: npt.NDArray[Any], rows: int, columns: int) -> npt.NDArray[Any]:
    out = np.zeros((rows, columns), array.dtype)
    out[: array.shape[0], : array.shape[1]] = array
    return out
