# SPDX-License-Identifier: Apache-2.0
"""Reading ``.afc`` streams: trusts no byte, needs no trailer, works while the writer still writes.

The way a reader goes on after damage is specified in docs/format.md, section "Reading".
"""

from __future__ import annotations

import dataclasses
import io
import os
from collections import Counter, deque
from collections.abc import Iterator
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from affectcodec.bitstream import wire
from affectcodec.bitstream.collect import MAX_CODES, collect
from affectcodec.bitstream.errors import (
    AfcError,
    AfcHashMismatch,
    AfcHeaderError,
    AfcPacketError,
    AfcSeekError,
)
from affectcodec.bitstream.header import StreamHeader, header_size
from affectcodec.bitstream.packet import (
    Packet,
    PacketHead,
    decode_payload,
    lost_packet,
    max_head_size,
    parse_head,
    payload_is_good,
)
from affectcodec.bitstream.report import ReadReport
from affectcodec.bitstream.source import ByteSource
from affectcodec.bitstream.trailer import OVERHEAD, Trailer, body_size

PathFileOrBytes = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO
MAX_GAP_FRAMES = 3000
# Bytes of checksums a search for the next packet may compute for each byte it passes. Without a
# bound, overlapping forged heads would make the search quadratic.
_CREDIT_PER_BYTE = 8
_CREDIT_AT_START = 4 * wire.MAX_PAYLOAD_BYTES
_WAIT = "wait"


class AfcReader:
    """Reads one stream: iterate for packets, or take everything with :meth:`read_all`.

    The packets of an iteration follow each other without holes: frames that were lost come as a
    packet with status ``"lost"``.

    Args:
        source: path, bytes, or binary file object, which need not be seekable and stays open.
        expected_hash: configuration hash of the codec at hand, 16 hexadecimal digits.
        check_hash: whether another hash in the stream is an error.

    Raises:
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
        except BaseException:
            self.close()
            raise
        self._body = self._source.offset  # where the packets begin
        self._queue: deque[Packet] = deque()
        self._expected: int | None = 0  # None: the next packet may begin anywhere
        self._searching = False
        self._ended = False
        self._credit = _CREDIT_AT_START
        self._received = self._filled = 0
        self._counts: Counter[str] = Counter()
        self._truncated = False
        self._trailer_state = "absent"
        self._trailer: Trailer | None = None
        self._trailer_looked_for = False

    # ---- public -----------------------------------------------------------------------------

    @property
    def report(self) -> ReadReport:
        """What was found up to here."""
        missing, truncated = None, self._truncated
        total = self.total_frames
        if self._ended and total is not None and self._expected is not None:
            missing = max(0, total - self._expected)
            truncated = truncated or missing > 0
        return ReadReport(
            frames_missing=missing,
            truncated=truncated,
            trailer=self._trailer_state,
            **self._counts,
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
        while not self._queue:
            if self._ended or not self._step(final):
                return None
        return self._queue.popleft()

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
        here = self._queue[0].start if self._queue else self._expected
        if self._source.seekable:
            self._jump_before(frame)
        elif here is None or frame < here:
            raise AfcSeekError(
                f"seek: frame {frame} lies before the current frame {here} and the source cannot "
                "go back"
            )
        while self._queue and self._queue[0].start + self._queue[0].frames <= frame:
            self._queue.popleft()
        while not self._queue:
            head = None if self._searching else self._head_at(0)
            if isinstance(head, PacketHead) and self._expected in (None, head.start):
                if head.end <= frame:
                    self._skip(head.size)
                    self._expected = head.end
                    continue
                if head.start <= frame:
                    return head.start
            if self._ended or not self._step(True):
                raise AfcSeekError(
                    f"seek: frame {frame} is behind the end, the stream has "
                    f"{self._expected or 0} frames"
                )
            while self._queue and self._queue[0].start + self._queue[0].frames <= frame:
                self._queue.popleft()
        return self._queue[0].start

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
        if self._trailer is None and self._source.seekable and not self._trailer_looked_for:
            self._trailer_looked_for = True
            last = self._source.tail(8)
            size = int.from_bytes(last[:4], "little") + OVERHEAD
            if last[4:] == wire.TRAILER_END and size <= wire.MAX_TRAILER_BYTES:
                try:
                    self._trailer = Trailer.from_bytes(self._source.tail(size))
                except AfcError:
                    pass
        return self._trailer

    def _trailer_is_whole(self) -> bool:
        size = body_size(self._source.peek(8))
        need = 8 if size is None else size + OVERHEAD
        return self._source.available(need) >= need

    def _take_trailer(self) -> bool:
        """Consume a trailer at the current place, if there is one."""
        size = body_size(self._source.peek(8))
        if size is None or self._source.available(size + OVERHEAD) < size + OVERHEAD:
            return False
        try:
            self._trailer = Trailer.from_bytes(self._source.peek(size + OVERHEAD))
        except AfcError:
            return False
        self._source.skip(size + OVERHEAD)
        self._trailer_state = "ok"
        self._ended = True
        return True

    # ---- walking ----------------------------------------------------------------------------

    def _skip(self, size: int) -> int:
        self._credit += _CREDIT_PER_BYTE * size
        return self._source.skip(size)

    def _step(self, final: bool) -> bool:
        """Deal with what begins at the current place; False if the bytes are used up."""
        source = self._source
        have = source.available(1)
        if have and source.peek(1) == wire.TRAILER_MAGIC[:1]:
            have = source.available(8)
            if wire.TRAILER_MAGIC.startswith(source.peek(4)):
                if self._take_trailer():
                    return True
                if not final and not self._trailer_is_whole():
                    return False
                if not self._searching or have >= 4:
                    self._trailer_state = "damaged"
        if not have:
            self._ended = final
            return False
        head = self._head_at(0)
        if head == _WAIT:
            if not final:
                return False
            return self._end_inside(None)
        if not isinstance(head, PacketHead) or not self._acceptable(head):
            return self._pass_junk(1)
        if source.available(head.size) < head.size:
            if not final:
                return False
            return self._end_inside(head)
        if self._credit < head.size:
            return self._pass_junk(1)
        self._credit -= head.size
        data = source.peek(head.size)
        if payload_is_good(head, data, data[head.head_size :]):
            try:
                packet = decode_payload(head, data[head.head_size :], self.header)
            except AfcPacketError:
                packet = lost_packet(head.start, head.frames, self.header)
                self._counts["damaged_packets"] += 1
        elif not self._in_step(head) or not self._packet_may_follow(head):
            return self._pass_junk(1)
        else:
            packet = lost_packet(head.start, head.frames, self.header)
            self._counts["damaged_packets"] += 1
        self._searching = False
        self._skip(head.size)
        self._accept(packet)
        return True

    def _head_at(self, skip: int) -> PacketHead | str | None:
        """Head of the packet ``skip`` bytes ahead, None if there is none, or ``_WAIT``."""
        most = max_head_size(self.header)
        need = min(7, most)
        while True:
            have = self._source.available(skip + need) - skip
            try:
                return parse_head(self._source.peek(min(have, need), skip), self.header)
            except wire.Incomplete:
                if have < need:
                    return _WAIT
                need += 1
            except AfcError:
                return None
            if need > most:
                return None

    def _acceptable(self, head: PacketHead) -> bool:
        # What a search comes across must continue the stream; in step, a packet that came twice
        # is left out by _accept.
        return not self._searching or self._expected is None or head.start >= self._expected

    def _in_step(self, head: PacketHead) -> bool:
        # The checksum of a head is only 8 bits. A damaged one that passes with a frame index far
        # ahead would make all packets after it look like old ones.
        return not self._searching and self._expected in (None, head.start)

    def _packet_may_follow(self, head: PacketHead) -> bool:
        """Whether the place where a damaged packet says it ends looks like the end of one."""
        have = self._source.available(head.size + 1) - head.size
        if have <= 0:
            return True
        if self._source.peek(1, head.size) == wire.TRAILER_MAGIC[:1]:
            return True
        following = self._head_at(head.size)
        return following == _WAIT or (
            isinstance(following, PacketHead) and following.start >= head.end
        )

    def _pass_junk(self, at_least: int) -> bool:
        """Go to the next byte that may begin a packet or a trailer."""
        source = self._source
        if not self._searching:
            self._searching = True
            if self._trailer_state != "damaged":
                self._counts["damaged_packets"] += 1
        have = source.available(at_least)
        ends = [have]
        for byte in (wire.SYNC, wire.TRAILER_MAGIC[0]):
            found = source.find(byte, at_least)
            if found >= 0:
                ends.append(found)
        self._counts["skipped_bytes"] += self._skip(min(ends))
        return True

    def _end_inside(self, head: PacketHead | None) -> bool:
        """The bytes end inside what may be a packet."""
        source = self._source
        left = source.available(head.size if head is not None else max_head_size(self.header))
        if self._searching or (
            head is not None and (not self._in_step(head) or self._good_packet_inside(left))
        ):
            return self._pass_junk(1)
        self._truncated = True
        if head is None:
            self._counts["skipped_bytes"] += self._skip(left)
            return True
        data = source.peek(left)
        try:
            packet = decode_payload(head, data[head.head_size :], self.header)
        except AfcPacketError:
            packet = lost_packet(head.start, head.frames, self.header)
            self._counts["damaged_packets"] += 1
        self._skip(left)
        self._accept(_trim(packet))
        return True

    def _good_packet_inside(self, left: int) -> bool:
        """Whether a whole packet begins within the next ``left`` bytes: then the first is a lie."""
        source, place = self._source, 0
        while (place := source.find(wire.SYNC, place + 1)) >= 0 and place < left:
            head = self._head_at(place)
            if not isinstance(head, PacketHead) or place + head.size > left:
                continue
            if self._credit < head.size:
                return False
            self._credit -= head.size
            data = source.peek(head.size, place)
            if payload_is_good(head, data, data[head.head_size :]):
                return True
        return False

    def _accept(self, packet: Packet) -> None:
        """Put a packet in its place of the timeline."""
        expected = packet.start if self._expected is None else self._expected
        if packet.start < expected:
            self._counts["duplicate_packets"] += 1
            return
        gap = packet.start - expected
        if gap:
            self._counts["frames_lost"] += gap
            # Filling costs the sender nothing, so forged gaps must not buy memory with it.
            if gap <= MAX_GAP_FRAMES and self._filled + gap <= self._received + MAX_GAP_FRAMES:
                self._filled += gap
                self._queue.append(lost_packet(expected, gap, self.header))
            else:
                self._counts["discontinuities"] += 1
        self._expected = packet.start + packet.frames
        if not packet.frames:
            return
        came = packet.frames if packet.status == "ok" else int(packet.mask.sum())
        self._received += came
        self._counts["frames_recovered"] += came
        self._counts["frames_lost"] += packet.frames - came
        if packet.status == "partial":
            whole = np.array([len(codes) for codes in packet.codes], np.uint8)[:, None]
            fewer = packet.mask & (packet.frame_stages < whole).any(0)
            self._counts["frames_partial"] += int(fewer.sum())
        self._queue.append(packet)

    def _jump_before(self, frame: int) -> None:
        """Move a seekable source to a packet that begins at or before ``frame``."""
        here = None if self._queue or self._searching or self._ended else self._expected
        self._queue.clear()
        self._searching = self._ended = False
        trailer = self._find_trailer()
        for start, offset in reversed(trailer.entries if trailer is not None else ()):
            if start <= frame:
                if here is not None and start <= here <= frame:
                    return
                self._expected = None
                self._source.seek(self._body + offset)
                head = self._head_at(0)
                if isinstance(head, PacketHead) and head.start == start:
                    return
                here = None
                break  # a table that is wrong once is not worth a second look
        if here is None or here > frame:
            self._source.seek(self._body)
            self._expected = 0


def _trim(packet: Packet) -> Packet:
    """Leave out frames at the end of which nothing came: the bytes say nothing about them."""
    frames = int(np.flatnonzero(packet.mask)[-1]) + 1 if packet.mask.any() else 0
    if frames == packet.frames:
        return packet
    # Fewer frames than codes: only the first layer can be incomplete, so each block keeps either
    # one incomplete layer or none.
    codes = tuple(array[:, :frames] for array in packet.codes)
    return dataclasses.replace(packet, frames=frames, codes=codes)
