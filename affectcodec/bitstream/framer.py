# SPDX-License-Identifier: Apache-2.0
"""Finding packets in bytes that may be damaged, cut, forged or not all there yet.

One :class:`Framer` walks once over a stream, in linear time whatever the bytes are. How it goes on
after damage is specified in docs/format.md, section "Reading".
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter, deque
from functools import cached_property

import numpy as np

from affectcodec.bitstream import wire
from affectcodec.bitstream.coded import CoderOrFinder, PayloadCoder, find_coder
from affectcodec.bitstream.errors import AfcError, AfcPacketError
from affectcodec.bitstream.head import PacketHead, max_head_size, parse_head, payload_is_good
from affectcodec.bitstream.header import StreamHeader
from affectcodec.bitstream.packet import Packet, decode_payload, lost_packet
from affectcodec.bitstream.source import ByteSource
from affectcodec.bitstream.trailer import OVERHEAD, Trailer, body_size

MAX_GAP_FRAMES = 3000
# Bytes of checksums a search for the next packet may compute for each byte it passes. Without a
# bound, overlapping forged heads would make the search quadratic.
_CREDIT_PER_BYTE = 8
_CREDIT_AT_START = 4 * wire.MAX_PAYLOAD_BYTES
_WAIT = "wait"
_SYNC = re.compile(bytes([wire.SYNC]))
_BEGINNING = re.compile(b"[%c%c]" % (wire.SYNC, wire.TRAILER_MAGIC[0]))
# The shape of a head up to its first stage count, and of a trailer up to its size: lets the search
# pass over bytes that only share the first ones at the speed of a regular expression.
_HEAD_OR_TRAILER = re.compile(
    rb"%c.[\x80-\xff]{0,5}[\x00-\x7f][\x80-\xff]?[\x00-\x7f][\x00-\x40]|%b..\x00\x00"
    % (wire.SYNC, wire.TRAILER_MAGIC),
    re.DOTALL,
)
_SHAPE_BYTES = 11


class Framer:
    """Turns bytes into packets that follow each other without holes.

    Args:
        source: the bytes, at the first packet.
        header: header of the stream.
        coder: the coder that the header names, if any, or what finds it when the first packet is
            read.
        decode: whether to decode coded payloads; without, no coder is needed.

    Attributes:
        queue: packets found and not yet taken.
        expected: first frame of the next packet; None where it may be any, as after a jump.
        searching: whether the current place is not known to begin a packet.
        ended: whether the end of the stream was reached.
        counts: counts of ``ReadReport`` by name.
        truncated: whether the bytes ended inside a packet.
        trailer: the trailer, once it was reached.
        trailer_state: ``"absent"``, ``"ok"`` or ``"damaged"``.
    """

    def __init__(
        self,
        source: ByteSource,
        header: StreamHeader,
        coder: CoderOrFinder | None = None,
        *,
        decode: bool = True,
    ) -> None:
        self.header = header
        self._given, self._decode = coder, decode
        self.queue: deque[Packet] = deque()
        self.expected: int | None = 0
        self.searching = False
        self.ended = False
        self.counts: Counter[str] = Counter()
        self.truncated = False
        self.trailer: Trailer | None = None
        self.trailer_state = "absent"
        self._source = source
        self._credit = _CREDIT_AT_START
        self._received = self._filled = 0

    @cached_property
    def _coder(self) -> PayloadCoder | None:
        if self.header.coder is None or not self._decode:
            return None
        return find_coder(self.header, self._given)

    @cached_property
    def _max_frames(self) -> int:
        return wire.MAX_FRAMES_PER_PACKET if self._coder is None else self._coder.max_frames

    def skip(self, size: int) -> int:
        self._credit += _CREDIT_PER_BYTE * size
        return self._source.skip(size)

    def step(self, final: bool) -> bool:
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
                if not self.searching or have >= 4:
                    self.trailer_state = "damaged"
        if not have:
            self.ended = final
            return False
        head = self.head_at(0)
        if head == _WAIT:
            if not final:
                return False
            return self._end_inside(None)
        if not isinstance(head, PacketHead) or not self._acceptable(head):
            return self._pass_junk()
        if source.available(head.size) < head.size:
            if not final:
                return False
            return self._end_inside(head)
        if self._credit < head.size:
            return self._pass_junk()
        self._credit -= head.size
        data = source.peek(head.size)
        if payload_is_good(head, data, data[head.head_size :]):
            try:
                packet = decode_payload(head, data[head.head_size :], self.header, self._coder)
            except AfcPacketError:
                packet = lost_packet(head.start, head.frames, self.header)
                self.counts["damaged_packets"] += 1
        elif not self._in_step(head) or not self._packet_may_follow(head):
            return self._pass_junk()
        else:
            packet = lost_packet(head.start, head.frames, self.header)
            self.counts["damaged_packets"] += 1
        self.searching = False
        if self.trailer_state == "damaged":  # not the end after all
            self.trailer_state = "absent"
            self.counts["damaged_packets"] += 1
        self.skip(head.size)
        self._accept(packet, head.payload_size)
        return True

    def head_at(self, skip: int) -> PacketHead | str | None:
        """Head of the packet ``skip`` bytes ahead, None if there is none, or ``_WAIT``."""
        most, max_frames = max_head_size(self.header), self._max_frames
        need = min(7, most)
        while True:
            have = self._source.available(skip + need) - skip
            try:
                data = self._source.peek(min(have, need), skip)
                return parse_head(data, self.header, max_frames)
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
        return not self.searching or self.expected is None or head.start >= self.expected

    def _in_step(self, head: PacketHead) -> bool:
        # The checksum of a head is only 8 bits. A damaged one that passes with a frame index far
        # ahead would make all packets after it look like old ones.
        return not self.searching and self.expected in (None, head.start)

    def _packet_may_follow(self, head: PacketHead) -> bool:
        """Whether the place where a damaged packet says it ends looks like the end of one."""
        have = self._source.available(head.size + 1) - head.size
        if have <= 0:
            return True
        if self._source.peek(1, head.size) == wire.TRAILER_MAGIC[:1]:
            return True
        following = self.head_at(head.size)
        return following == _WAIT or (
            isinstance(following, PacketHead) and following.start >= head.end
        )

    def _pass_junk(self) -> bool:
        """Go to the next byte that may begin a packet or a trailer."""
        source = self._source
        if not self.searching:
            self.searching = True
            if self.trailer_state != "damaged":
                self.counts["damaged_packets"] += 1
        have = source.available(1)
        found = source.find(_HEAD_OR_TRAILER, 1)
        if found < 0 or found > have - _SHAPE_BYTES:
            # Near the end of what is buffered a shape may be cut off: look for its first byte.
            near = source.find(_BEGINNING, max(1, have - _SHAPE_BYTES))
            found = min((place for place in (found, near) if place >= 0), default=have)
        self.counts["skipped_bytes"] += self.skip(found)
        return True

    def _end_inside(self, head: PacketHead | None) -> bool:
        """The bytes end inside what may be a packet."""
        source = self._source
        left = source.available(head.size if head is not None else max_head_size(self.header))
        if self.searching or (
            head is not None and (not self._in_step(head) or self._good_packet_inside(left))
        ):
            return self._pass_junk()
        self.truncated = True
        if head is None:
            self.counts["skipped_bytes"] += self.skip(left)
            return True
        data = source.peek(left)
        try:
            packet = decode_payload(head, data[head.head_size :], self.header, self._coder)
        except AfcPacketError:
            packet = lost_packet(head.start, head.frames, self.header)
            self.counts["damaged_packets"] += 1
        self.skip(left)
        self._accept(_trim(packet), left - head.head_size)
        return True

    def _good_packet_inside(self, left: int) -> bool:
        """Whether a whole packet begins within the next ``left`` bytes: then the first is a lie."""
        source, place = self._source, 0
        while (place := source.find(_SYNC, place + 1)) >= 0 and place < left:
            head = self.head_at(place)
            if not isinstance(head, PacketHead) or place + head.size > left:
                continue
            if self._credit < head.size:
                return False
            self._credit -= head.size
            data = source.peek(head.size, place)
            if payload_is_good(head, data, data[head.head_size :]):
                return True
        return False

    def _accept(self, packet: Packet, payload_size: int) -> None:
        """Put a packet in its place of the timeline."""
        expected = packet.start if self.expected is None else self.expected
        if packet.start < expected:
            self.counts["duplicate_packets"] += 1
            return
        gap = packet.start - expected
        if gap:
            self.counts["frames_lost"] += gap
            # Filling costs the sender nothing, so forged gaps must not buy memory with it.
            if gap <= MAX_GAP_FRAMES and self._filled + gap <= self._received + MAX_GAP_FRAMES:
                self._filled += gap
                self.queue.append(lost_packet(expected, gap, self.header))
            else:
                self.counts["discontinuities"] += 1
        self.expected = packet.start + packet.frames
        if not packet.frames:
            return
        came = packet.frames if packet.status == "ok" else int(packet.mask.sum())
        self._received += came
        self.counts["frames_recovered"] += came
        self.counts["frames_lost"] += packet.frames - came
        self.counts["payload_bytes"] += 0 if packet.status == "lost" else payload_size
        if packet.status == "partial":
            whole = np.array([len(codes) for codes in packet.codes], np.uint8)[:, None]
            fewer = packet.mask & (packet.frame_stages < whole).any(0)
            self.counts["frames_partial"] += int(fewer.sum())
        self.queue.append(packet)

    def _trailer_is_whole(self) -> bool:
        size = body_size(self._source.peek(8))
        need = 8 if size is None else size + OVERHEAD
        return self._source.available(need) >= need

    def _take_trailer(self) -> bool:
        """Consume a trailer at the current place, if there is one."""
        size = body_size(self._source.peek(8))
        if size is None or self._source.available(size + OVERHEAD) < size + OVERHEAD:
            return False
        if self._credit < size:
            return False
        self._credit -= size
        try:
            self.trailer = Trailer.from_bytes(self._source.peek(size + OVERHEAD))
        except AfcError:
            return False
        self._source.skip(size + OVERHEAD)
        self.trailer_state = "ok"
        self.ended = True
        return True


def _trim(packet: Packet) -> Packet:
    """Leave out frames at the end of which nothing came: the bytes say nothing about them."""
    frames = int(np.flatnonzero(packet.mask)[-1]) + 1 if packet.mask.any() else 0
    if frames == packet.frames:
        return packet
    # Then the cut lies in the first layer of all, and the counts in `present` stay as they are.
    codes = tuple(array[:, :frames] for array in packet.codes)
    return dataclasses.replace(packet, frames=frames, codes=codes)
