# SPDX-License-Identifier: Apache-2.0
"""Stage counts over time: a controller that follows a bit rate, and silence that is not sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from affectcodec.config import CodecConfig
from affectcodec.streaming.engine import Floats

Counts = tuple[int, ...]


def packet_bytes(config: CodecConfig, stages: Counts, frames: int, start: int) -> int:
    """Bytes of an ``.afc`` packet of these stage counts, from frame ``start`` on."""
    bits = [(block.codebook_size - 1).bit_length() for block in config.quantizer.blocks]
    payload = frames * sum(k * b for k, b in zip(stages, bits, strict=True))
    counts = 1 if len(set(stages)) == 1 else 1 + len(stages)
    varints = sum(max(1, -(-value.bit_length() // 7)) for value in (start, frames))
    return 2 + varints + counts + 2 + -(-payload // 8)


def default_ladder(config: CodecConfig) -> list[Counts]:
    """Stage counts from the lowest to the highest rate: one emotion stage more, then one of all."""
    names, most = config.quantizer.names, config.quantizer.num_stages
    ladder: list[Counts] = []
    for count in range(1, most + 1):
        ladder.append(tuple(count for _ in names))
        if count < most:
            ladder.append(tuple(count + (name == "emotion") for name in names))
    return ladder


class RateController:
    """Chooses the stage counts of each packet so that a stream keeps to a bit rate.

    A bucket fills at the target rate and holds up to ``window_s`` seconds of it; each packet takes
    the highest rung of the ladder that the bucket pays for, the lowest one in any case. Averages
    therefore come out right between the rates of single rungs.

    Args:
        config: the codec's.
        kbps: target in kbit/s, packets included.
        overhead_bytes: bytes a packet costs beside itself (12 of RTP, 28 of UDP over IPv4).
        window_s: how long a saving may wait until it is spent.
        ladder: stage counts to choose from; those that cost more than others with more stages are
            left out (unequal counts take two bytes more in a packet).

    Raises:
        ValueError: if the lowest rung costs more than the target.
    """

    def __init__(
        self,
        config: CodecConfig,
        kbps: float,
        *,
        frames_per_packet: int = 1,
        overhead_bytes: int = 0,
        window_s: float = 0.2,
        ladder: Sequence[Counts] | None = None,
    ) -> None:
        self.ladder = list(ladder) if ladder is not None else default_ladder(config)
        self.config = config
        self.frames_per_packet = frames_per_packet
        self._overhead = overhead_bytes
        self._income = 1000 * kbps * frames_per_packet / config.frame_rate
        self.ladder = self._climbing(self.ladder)
        costs = [self._cost(rung, 0) for rung in self.ladder]
        if not self._income >= costs[0]:
            least = costs[0] * config.frame_rate / frames_per_packet / 1000
            raise ValueError(
                f"kbps: {kbps} is below {least:g}, the lowest rate with {overhead_bytes} bytes of "
                f"overhead a packet; gather more than {frames_per_packet} frames into a packet"
            )
        self._most = max(self._income, 1000 * kbps * window_s)
        self._credit = 0.0

    def _climbing(self, ladder: Sequence[Counts]) -> list[Counts]:
        """Rungs that each cost more than the one before, and carry more."""
        if not ladder:
            raise ValueError("ladder: wanted at least one rung")
        bits = [block.bits for block in self.config.quantizer.blocks]
        found: list[Counts] = []
        most = -1.0
        for rung in sorted(ladder, key=lambda rung: (self._cost(rung, 0), -sum(rung))):
            carried = sum(k * b for k, b in zip(rung, bits, strict=True))
            if carried > most:
                found.append(rung)
                most = carried
        return found

    def _cost(self, stages: Counts, start: int) -> int:
        """Bits of a packet."""
        size = packet_bytes(self.config, stages, self.frames_per_packet, start)
        return 8 * (size + self._overhead)

    def next(self, start: int = 0) -> Counts:
        """Stage counts of the next packet, which begins with frame ``start``."""
        self._credit = min(self._credit + self._income, self._most)
        costs = [self._cost(rung, start) for rung in self.ladder]
        rung = max((i for i, cost in enumerate(costs) if cost <= self._credit), default=0)
        self._credit -= costs[rung]
        return self.ladder[rung]

    def skip(self) -> None:
        """A packet that is not sent; its bits are saved."""
        self._credit = min(self._credit + self._income, self._most)


@dataclass
class SilenceDetector:
    """Tells frames that need not be sent: below ``level_db`` dBFS and near the noise floor.

    The floor follows minima at once and rises by 3 dB a second. Speech holds for ``hang_frames``
    frames after its last loud frame, so that soft endings are sent.
    """

    level_db: float = -45.0
    above_floor_db: float = 8.0
    hang_frames: int = 12
    floor_db: float = -60.0
    quiet: int = 0

    def silent(self, frame: Floats) -> bool:
        """Whether the frame ``[hop]`` belongs to silence."""
        level = 10 * float(np.log10(np.mean(np.square(frame, dtype=np.float64)) + 1e-10))
        self.floor_db = min(max(level, -90.0), self.floor_db + 0.06)
        loud = level > self.level_db or level > self.floor_db + self.above_floor_db
        self.quiet = 0 if loud else self.quiet + 1
        return self.quiet > self.hang_frames
