# SPDX-License-Identifier: Apache-2.0
"""Reading ``.afc`` streams: trusts no byte, needs no trailer, works while the writer still writes.

The way a reader goes on after damage is specified in docs/format.md, section "Reading".
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
from collections.abc import Iterator
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from affectcodec.bitstream import wire
from affectcodec.bitstream.coded import CoderOrFinder, check_coder
from affectcodec.bitstream.collect import MAX_CODES, collect
from affectcodec.bitstream.errors import AfcError, AfcHashMismatch, AfcHeaderError, AfcSeekError
from affectcodec.bitstream.framer import Framer
from affectcodec.bitstream.head import PacketHead
from affectcodec.bitstream.header import StreamHeader, header_size
from affectcodec.bitstream.packet import Packet
from affectcodec.bitstream.report import ReadReport
from affectcodec.bitstream.source import ByteSource
from affectcodec.bitstream.trailer import OVERHEAD, Trailer

PathFileOrBytes = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO


class AfcReader:
    """Reads one stream: iterate for packets, or take everything with :meth:`read_all`.

    The packets of an iteration follow each other without holes: frames that were lost come as a
    packet with status ``"lost"``.

    Args:
        source: path, bytes, or binary file object, which need not be seekable and stays open.
        expected_hash: configuration hash of the codec at hand, 16 hexadecimal digits.
        check_hash: whether another hash in the stream is an error.
        coder: the coder that the header names, for streams with coded payloads; plain ones leave
            it aside. Or a function that gives the coder of an id, called for the first packet; by
            default :func:`affectcodec.entropy.find_prior`.
        decode: whether to decode coded payloads. Without, which needs no coder, their packets
            hold no codes and say the largest stage count of each block at every frame.

    Raises:
        AfcCoderError: the coder does not fit the header; or, on reading packets, there is none.
        AfcHeaderError: the header is damaged or of another version.
        AfcHashMismatch: the stream belongs to another configuration.
        OSError: the file cannot be read.
    """

    def __init__(
        self,
        source: PathFileOrBytes,
        *,
        expected_hash: str | None = None,
        check_hash: bool = True,
        coder: CoderOrFinder | None = None,
        decode: bool = True,
    ) -> None:
        self._owned: Any = None
        if isinstance(source, (bytes, bytearray, memoryview)):
            source = io.BytesIO(source)
        elif isinstance(source, (str, os.PathLike)):
            self._owned = source = open(source, "rb")
        try:
            self._source = ByteSource(source)
            self.header = self._read_header()
            if check_hash and expected_hash not in (None, self.header.config_hash):
                raise AfcHashMismatch(
                    f"config hash: the stream was made by configuration {self.header.config_hash}, "
                    f"the codec at hand has {expected_hash}; load the codec it was made with, or "
                    "pass check_hash=False if you know that the two agree"
                )
            if not (self.header.coder is None or coder is None or callable(coder)):
                check_coder(self.header, coder)
        except BaseException:
            self.close()
            raise
        self._body = self._source.offset  # where the packets begin
        self._framer = Framer(self._source, self.header, coder, decode=decode)
        self._trailer_looked_for = False

    # ---- public -----------------------------------------------------------------------------

    @property
    def report(self) -> ReadReport:
        """What was found up to here."""
        missing, truncated = None, self._framer.truncated
        total = self.total_frames
        if self._framer.ended and total is not None and self._framer.expected is not None:
            missing = max(0, total - self._framer.expected)
            truncated = truncated or missing > 0
        return ReadReport(
            frames_missing=missing,
            truncated=truncated,
            trailer=self._framer.trailer_state,
            **dict[str, Any](self._framer.counts),
        )

    @property
    def total_frames(self) -> int | None:
        """Frames of the whole stream by its trailer or sample count, unverified; None if unknown.

        In a seekable source the trailer is looked up at the end.
        """
        trailer = self._find_trailer()
        return trailer.num_frames if trailer is not None else self.header.num_frames

    @property
    def trailer_samples(self) -> int | None:
        """Sample count by the trailer, unverified; None if there is none or it does not know."""
        trailer = self._find_trailer()
        return trailer.num_samples if trailer is not None else None

    def next_packet(self, *, final: bool = True) -> Packet | None:
        """The next packet, or None at the end.

        Args:
            final: whether the end of the bytes is the end of the stream. With False an unfinished
                packet stays where it is and a later call goes on once more bytes have come, as
                when reading a file that is still being written.
        """
        while not self._framer.queue:
            if self._framer.ended or not self._framer.step(final):
                return None
        return self._framer.queue.popleft()

    def __iter__(self) -> Iterator[Packet]:
        while (packet := self.next_packet()) is not None:
            yield packet

    def read_all(
        self, *, conceal: str = "repeat", max_codes: int = MAX_CODES
    ) -> tuple[dict[str, npt.NDArray[Any]], npt.NDArray[np.bool_], ReadReport]:
        """Everything from here to the end.

        Args:
            conceal: what stands in for lost frames: ``"repeat"`` the last frame for up to 10
                frames and zeros with 0 stages after that, or ``"zero"`` throughout.
            max_codes: most codes to hold in memory.

        Returns:
            Codes [K_b, T] of each block by name (K_b is the most stages any packet has), a mask
            [T] that is False for concealed frames, and the report with ``frame_stages`` [G, T].

        Raises:
            AfcLimitError: there are more than ``max_codes`` codes.
        """
        codes, mask, stages = collect(self, self.header, conceal, max_codes)
        return codes, mask, dataclasses.replace(self.report, frame_stages=stages)

    def seek(self, frame: int) -> int:
        """Go to the packet that holds ``frame``; the next packet read is that one.

        Uses the seek table where there is a sound one and hops over packets otherwise. Sources
        that are not seekable can only go forward.

        Returns:
            The first frame of the next packet: at most ``frame``, or more if ``frame`` is lost.

        Raises:
            AfcSeekError: the frame is negative, behind the end, or before the current place of a
                source that is not seekable.
        """
        if frame < 0:
            raise AfcSeekError(f"seek: expected a frame of 0 or more, got {frame}")
        framer = self._framer
        here = framer.queue[0].start if framer.queue else framer.expected
        if self._source.seekable:
            self._jump_before(frame)
        elif here is None or frame < here:
            raise AfcSeekError(
                f"seek: frame {frame} lies before the current frame {here} and the source cannot "
                "go back"
            )
        while True:
            while framer.queue and framer.queue[0].end <= frame:
                framer.queue.popleft()
            if framer.queue:
                return framer.queue[0].start
            head = None if framer.searching else framer.head_at(0)
            if isinstance(head, PacketHead) and framer.expected in (None, head.start):
                if head.start <= frame < head.end:
                    # Should its payload turn out damaged, the loss begins here.
                    framer.expected = head.start
                    return head.start
                if head.end <= frame:
                    framer.skip(head.size)
                    framer.expected = head.end
                    continue
            if framer.ended or not framer.step(True):
                raise AfcSeekError(
                    f"seek: frame {frame} is behind the end, the stream has "
                    f"{framer.expected or 0} frames"
                )

    def close(self) -> None:
        """Close the file if the reader opened it."""
        if self._owned is not None:
            self._owned.close()

    def __enter__(self) -> AfcReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # ---- header and trailer -----------------------------------------------------------------

    def _read_header(self) -> StreamHeader:
        source, need = self._source, 5
        while True:
            have = source.available(need)
            data = source.peek(need)
            size = header_size(data)
            if size is not None and have >= size:
                header, _ = StreamHeader.from_bytes(source.peek(size))
                source.skip(size)
                return header
            if have < need:
                StreamHeader.from_bytes(data)  # raises with what is wrong
                raise AfcHeaderError("header: the stream ends inside it")
            need = size if size is not None else need + 1

    def _find_trailer(self) -> Trailer | None:
        if self._framer.trailer is None and self._source.seekable and not self._trailer_looked_for:
            self._trailer_looked_for = True
            last = self._source.tail(8)
            size = int.from_bytes(last[:4], "little") + OVERHEAD
            if last[4:] == wire.TRAILER_END and size <= wire.MAX_TRAILER_BYTES:
                with contextlib.suppress(AfcError):
                    self._framer.trailer = Trailer.from_bytes(self._source.tail(size))
        return self._framer.trailer

    def _jump_before(self, frame: int) -> None:
        """Move a seekable source to a packet that begins at or before ``frame``."""
        framer = self._framer
        lost = framer.queue or framer.searching or framer.ended
        here = None if lost else framer.expected
        framer.queue.clear()
        framer.searching = framer.ended = False
        trailer = self._find_trailer()
        for start, offset in reversed(trailer.entries if trailer is not None else ()):
            if start <= frame:
                if here is not None and start <= here <= frame:
                    return
                framer.expected = here = None
                self._source.seek(self._body + offset)
                head = framer.head_at(0)
                if isinstance(head, PacketHead) and head.start == start:
                    return
                break  # a table that is wrong once is not worth a second look
        if here is None or here > frame:
            self._source.seek(self._body)
            framer.expected = 0


def coded_payload_bits(source: PathFileOrBytes) -> int:
    """Bits of the payloads of a stream, without header, packet heads, checksums and trailer.

    No coder is needed. Each payload is counted in whole bytes.

    Args:
        source: path, bytes, or binary file object.

    Raises:
        AfcError: the stream cannot be read.
        OSError: the file cannot be read.
    """
    with AfcReader(source, decode=False) as reader:
        for _ in reader:
            pass
        return 8 * reader.report.payload_bytes
