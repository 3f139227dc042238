# SPDX-License-Identifier: Apache-2.0
"""Writing ``.afc`` streams, packet by packet."""

from __future__ import annotations

import dataclasses
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from affectcodec.bitstream import wire
from affectcodec.bitstream.coded import (
    CODED_PACKET_SECONDS,
    IntArray,
    PayloadCoder,
    StageCounts,
    check_stages,
    find_coder,
)
from affectcodec.bitstream.errors import AfcError, AfcSizeError
from affectcodec.bitstream.header import StreamHeader
from affectcodec.bitstream.packet import BlockCodes, check_codes, serialize_packet
from affectcodec.bitstream.trailer import Trailer

PathOrFile = str | os.PathLike[str] | BinaryIO
PACKET_SECONDS = 2.0
_TRAILER_MIN_PACKETS = 32  # below that, hopping over packet heads costs less than the table


def default_frames_per_packet(header: StreamHeader, coder: PayloadCoder | None = None) -> int:
    """Frames of about two seconds, five with a coder, within the limits of a packet."""
    seconds = PACKET_SECONDS if coder is None else CODED_PACKET_SECONDS
    frames = round(seconds * header.frame_rate)
    return max(1, min(frames, max_frames_per_packet(header, coder)))


def max_frames_per_packet(header: StreamHeader, coder: PayloadCoder | None = None) -> int:
    """Most frames that fit a packet at all stages, or that the coder takes."""
    if coder is not None:
        return min(wire.MAX_FRAMES_PER_PACKET, coder.max_frames)
    bits = header.num_stages * sum(header.block_bits)
    return min(wire.MAX_FRAMES_PER_PACKET, wire.MAX_PAYLOAD_BYTES * 8 // bits)


class AfcWriter:
    """Writes one stream; what has been written is readable at any moment.

    Use it as a context manager. Leaving it, by Ctrl-C too, writes the frames that are still
    waiting. A path is written in place, so that others can read along; for a whole clip at once
    see :func:`affectcodec.bitstream.write_tokens`, which replaces the file atomically.

    Args:
        file: path, or binary file object to write to (seekable or not; it stays open).
        header: header of the stream. Where ``num_samples`` is None, set it before closing:
            ``writer.num_samples = n``; in a seekable file the header is then patched.
        frames_per_packet: frames to gather into a packet, 1 for the lowest delay; by default about
            two seconds, or five with a coder. Plain packets end earlier where the stage counts
            change, coded ones where the coder made more bytes than a packet holds.
        seek_table: whether to close with a trailer; by default from 32 packets on.
        coder: codes all payloads; the header then names it. Where the header names one already, it
            is looked up by default.

    Raises:
        AfcError: ``frames_per_packet`` is out of range.
        AfcCoderError: the coder is missing or does not fit the header.
        AfcHeaderError: the header cannot be written.
    """

    def __init__(
        self,
        file: PathOrFile,
        header: StreamHeader,
        *,
        frames_per_packet: int | None = None,
        seek_table: bool | None = None,
        coder: PayloadCoder | None = None,
    ) -> None:
        if coder is not None and header.coder is None:
            header = dataclasses.replace(header, coder=coder.id)
        self._coder = None if header.coder is None else find_coder(header, coder)
        most = max_frames_per_packet(header, self._coder)
        frames = frames_per_packet
        if frames is None:
            frames = default_frames_per_packet(header, self._coder)
        if not 1 <= frames <= most:
            raise AfcError(f"frames_per_packet: expected 1..{most} for this stream, got {frames}")
        data = header.to_bytes()
        self.header = header
        self.num_samples = header.num_samples
        self._frames_per_packet = frames
        self._seek_table = seek_table
        self._owned = isinstance(file, (str, os.PathLike))
        if isinstance(file, (str, os.PathLike)):
            file = open(file, "wb")
        self._file: Any = file
        self._origin = self._file.tell() if _is_patchable(self._file) else None
        self._waiting: list[tuple[tuple[IntArray, ...], StageCounts]] = []
        self._waiting_frames = 0
        self._next_frame = 0  # first frame of the next packet
        self._offset = 0  # bytes after the header
        self._entries: list[tuple[int, int]] = []
        self._entry_stride = 1
        self._packets = 0
        self._closed = False
        self._emit(data)

    @property
    def frames(self) -> int:
        """Frames taken so far, written or waiting."""
        return self._next_frame + self._waiting_frames

    def write(self, codes: BlockCodes, frame_stages: npt.ArrayLike | None = None) -> None:
        """Append frames.

        Args:
            codes: per block codes [K_b, T], as a mapping by name or in the header's order; T may
                be 0, and K_b may change from call to call.
            frame_stages: stage count of each block and frame, [G, T], at most K_b; only with a
                coder. K_b by default. Codes at or above a frame's count are not kept.

        Raises:
            AfcPacketError: the codes or counts do not fit the header; nothing of them is written.
            AfcError: the writer is closed, or has no coder and was given stage counts or frames
                without any stage.
        """
        if self._closed:
            raise AfcError("write: this writer is closed")
        arrays = check_codes(codes, self.header)
        counts = check_stages(frame_stages, arrays, self.header)
        if self._coder is None and frame_stages is not None:
            raise AfcError(
                "write: frame_stages needs a writer with a coder; write each stretch of equal "
                "counts by itself"
            )
        if arrays[0].shape[1] == 0:
            return
        stages = tuple(array.shape[0] for array in arrays)
        if self._coder is None:
            if not any(stages):
                raise AfcError("write: every block has 0 stages, at least one stage is needed")
            if self._waiting and stages != tuple(len(array) for array in self._waiting[0][0]):
                self.flush()
        pos, total = 0, arrays[0].shape[1]
        while pos < total:
            take = min(total - pos, self._frames_per_packet - self._waiting_frames)
            self._waiting.append(_cut(arrays, counts, pos, pos + take))
            self._waiting_frames += take
            pos += take
            if self._waiting_frames == self._frames_per_packet:
                self.flush()

    def skip(self, frames: int) -> None:
        """Leave out frames that are lost already; readers conceal them.

        Args:
            frames: how many, 0 or more.

        Raises:
            AfcError: ``frames`` is negative or the writer is closed.
        """
        if self._closed or frames < 0:
            raise AfcError(
                "skip: this writer is closed" if self._closed else f"skip: got {frames} frames"
            )
        self.flush()
        self._next_frame += frames

    def flush(self) -> None:
        """Write the frames that wait for a full packet as a shorter one."""
        while self._waiting:
            codes, counts = _joined(self._waiting)
            packet, frames = self._packet(codes, counts)
            # The frames are forgotten only after they are out: an interrupt in between makes a
            # packet come twice, which readers drop, and never makes one vanish.
            self._emit(packet)
            if self._packets % self._entry_stride == 0:
                self._add_entry()
            self._packets += 1
            self._offset += len(packet)
            self._next_frame += frames
            self._waiting_frames -= frames
            rest = self._waiting_frames
            self._waiting = [_cut(codes, counts, frames, frames + rest)] if rest else []

    def _packet(self, codes: tuple[IntArray, ...], counts: StageCounts) -> tuple[bytes, int]:
        """A packet of the first frames of ``codes``, and how many it holds."""
        frames = counts.shape[1]
        if self._coder is None:
            return serialize_packet(codes, self.header, self._next_frame), frames
        while True:
            part, stages = _cut(codes, counts, 0, frames)
            try:
                packet = serialize_packet(
                    part, self.header, self._next_frame, frame_stages=stages, coder=self._coder
                )
            except AfcSizeError:
                # How many bytes unlikely codes take is known only once they are coded.
                if frames == 1:
                    raise
                frames = -(-frames // 2)
            else:
                return packet, frames

    def close(self) -> None:
        """Write what waits, the trailer and the sample count. A second call does nothing."""
        if self._closed:
            return
        try:
            self.flush()
            self._closed = True
            if self._seek_table or (
                self._seek_table is None and self._packets >= _TRAILER_MIN_PACKETS
            ):
                self._emit(
                    Trailer(self._next_frame, self.num_samples, tuple(self._entries)).to_bytes()
                )
            if self.num_samples != self.header.num_samples and self._origin is not None:
                self._patch_sample_count(self._origin)
        finally:
            self._closed = True
            if self._owned:
                self._file.close()

    def __enter__(self) -> AfcWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _emit(self, data: bytes) -> None:
        while data:
            # Raw files and pipes may take less than they were given.
            written = self._file.write(data)
            data = data[len(data) if written is None else written :]
        flush = getattr(self._file, "flush", None)
        if flush is not None:
            flush()

    def _add_entry(self) -> None:
        # A live stream may run for days: the table thins itself out instead of growing.
        if len(self._entries) == wire.MAX_SEEK_ENTRIES:
            self._entries = self._entries[::2]
            self._entry_stride *= 2
        self._entries.append((self._next_frame, self._offset))

    def _patch_sample_count(self, origin: int) -> None:
        self.header = dataclasses.replace(self.header, num_samples=self.num_samples)
        data = self.header.to_bytes()
        patched = len(data) - wire.SAMPLE_COUNT_BYTES - 2
        end = self._file.tell()
        self._file.seek(origin + patched)
        self._emit(data[patched:])
        self._file.seek(end)


def _cut(
    codes: Sequence[IntArray], counts: StageCounts, start: int, end: int
) -> tuple[tuple[IntArray, ...], StageCounts]:
    """Copies of some frames: the caller may reuse its buffers before the packet is complete."""
    return tuple(array[:, start:end].copy() for array in codes), counts[:, start:end].copy()


def _joined(
    parts: Sequence[tuple[tuple[IntArray, ...], StageCounts]],
) -> tuple[tuple[IntArray, ...], StageCounts]:
    """One array a block [K_b, T], with zeros where a part has fewer stages, and all counts."""
    if len(parts) == 1:
        return parts[0]
    counts = np.concatenate([part for _, part in parts], axis=1)
    joined = []
    for arrays in zip(*(codes for codes, _ in parts), strict=True):
        most = max(len(array) for array in arrays)
        filled = [np.pad(array, ((0, most - len(array)), (0, 0))) for array in arrays]
        joined.append(np.concatenate(filled, axis=1))
    return tuple(joined), counts


@contextmanager
def replace_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file that takes the place of ``path`` when the block ends well, and vanishes otherwise.

    Devices and pipes, which cannot be replaced, are written directly.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        with open(target, "wb") as file:
            yield file
        return
    temporary = target.with_name(f".{target.name[:64]}.{secrets.token_hex(6)}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _is_patchable(file: Any) -> bool:
    # A file opened for appending writes at its end, wherever it was told to seek.
    if "a" in str(getattr(file, "mode", "")):
        return False
    try:
        return bool(file.seekable())
    except AttributeError:
        return False
