# SPDX-License-Identifier: Apache-2.0
"""What a reader found on its way through a stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class ReadReport:
    """State of a stream as far as it was read. Counts are of frames unless they say otherwise.

    Args:
        frames_recovered: frames of which at least one stage came.
        frames_partial: those among them that a cut packet left with fewer stages.
        frames_lost: frames inside the stream that are known to be missing.
        frames_missing: frames that the totals promise after the last one; None if no total is
            known or the end was not reached.
        truncated: whether the bytes end inside a packet, or before the promised number of frames.
        damaged_packets: packets, and stretches of bytes that are no packets, that were given up.
        duplicate_packets: packets left out because their frames had been read already.
        skipped_bytes: bytes that belong to no packet and no trailer.
        discontinuities: gaps too long to be filled, which the frames that follow close up.
        payload_bytes: bytes of the payloads that were taken, without heads and all that is around
            them.
        trailer: ``"absent"`` (or not reached), ``"ok"`` or ``"damaged"``.
        frame_stages: stages of each block and frame, [G, T] uint8, after concealment; only from
            ``read_all``.
    """

    frames_recovered: int = 0
    frames_partial: int = 0
    frames_lost: int = 0
    frames_missing: int | None = None
    truncated: bool = False
    damaged_packets: int = 0
    duplicate_packets: int = 0
    skipped_bytes: int = 0
    discontinuities: int = 0
    payload_bytes: int = 0
    trailer: str = "absent"
    frame_stages: npt.NDArray[np.uint8] | None = None

    @property
    def ok(self) -> bool:
        """Whether every frame came whole and nothing else was found."""
        return not self._findings()

    def _findings(self) -> list[str]:
        counted: list[tuple[Any, str]] = [
            (self.damaged_packets, "damaged packets"),
            (self.frames_lost, "frames lost"),
            (self.frames_partial, "frames with fewer stages"),
            (self.frames_missing or 0, "frames missing at the end"),
            (self.duplicate_packets, "packets came twice"),
            (self.discontinuities, "gaps closed up"),
            (self.skipped_bytes, "bytes skipped"),
        ]
        found = [f"{count} {what}" for count, what in counted if count]
        if self.truncated:
            found.insert(0, "truncated")
        if self.trailer == "damaged":
            found.append("damaged trailer")
        return found

    def __str__(self) -> str:
        return f"{self.frames_recovered} frames: {', '.join(self._findings()) or 'all well'}"
