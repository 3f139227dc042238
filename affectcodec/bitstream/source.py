# SPDX-License-Identifier: Apache-2.0
"""A window onto a stream of bytes, alike for files, pipes and memory."""

from __future__ import annotations

import os
import re
from typing import Any

_CHUNK = 1 << 16


class ByteSource:
    """Bytes from the current place on, read no further than asked where reading may block.

    Args:
        file: binary file object with ``read``; its current position counts as offset 0.
    """

    def __init__(self, file: Any) -> None:
        self._file = file
        try:
            self.seekable = bool(file.seekable())
        except AttributeError:
            self.seekable = False
        self._origin: int = file.tell() if self.seekable else 0
        self._buffer = bytearray()
        self._pos = 0
        self.offset = 0  # of the current place

    def available(self, size: int) -> int:
        """Bytes that can be had from here, reading until ``size`` are there or none come."""
        while len(self._buffer) - self._pos < size:
            missing = size - (len(self._buffer) - self._pos)
            # Reading ahead on a pipe would wait for packets that are not sent yet.
            data = self._file.read(max(missing, _CHUNK) if self.seekable else missing)
            if not data:
                break
            if self._pos >= _CHUNK:
                del self._buffer[: self._pos]
                self._pos = 0
            self._buffer += data
        return len(self._buffer) - self._pos

    def peek(self, size: int, skip: int = 0) -> bytes:
        """Up to ``size`` buffered bytes from ``skip`` on; call :meth:`available` before."""
        start = self._pos + skip
        return bytes(self._buffer[start : start + size])

    def find(self, pattern: re.Pattern[bytes], start: int) -> int:
        """Distance to the first match from ``start`` on among the buffered bytes, or -1."""
        found = pattern.search(self._buffer, self._pos + start)
        return -1 if found is None else found.start() - self._pos

    def skip(self, size: int) -> int:
        """Move on by ``size`` bytes or to the end; returns the bytes passed."""
        buffered = len(self._buffer) - self._pos
        if size > buffered and self.seekable:
            # Stop at the end of the file: a place behind it would look like lost bytes later.
            end = self._file.seek(0, os.SEEK_END) - self._origin
            passed = max(buffered, min(size, end - self.offset))
            self.seek(self.offset + passed)
            return passed
        left = size
        while left:
            step = min(left, self.available(min(left, _CHUNK)))
            if not step:
                break
            self._pos += step
            self.offset += step
            left -= step
        return size - left

    def seek(self, offset: int) -> None:
        """Go to ``offset``. Only for seekable sources."""
        self._file.seek(self._origin + offset)
        self._buffer.clear()
        self._pos = 0
        self.offset = offset

    def tail(self, size: int) -> bytes:
        """The last ``size`` bytes of a seekable source, leaving the current place as it is."""
        end = self._file.seek(0, os.SEEK_END)
        self._file.seek(max(self._origin, end - size))
        data: bytes = self._file.read(size)
        self._file.seek(self._origin + self.offset + len(self._buffer) - self._pos)
        return data
