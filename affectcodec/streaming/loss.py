# SPDX-License-Identifier: Apache-2.0
"""Loss models of a packet network, seeded: which packets of a stream do not arrive, and when.

Random loss drops each packet with the same probability. Bursty loss is the two-state model of
Gilbert (1960): packets get through in the good state and are lost in the bad one, which lasts
``mean_burst`` packets on average; the share of lost packets is the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class LossModel:
    """Share of lost packets, and how they cluster.

    Args:
        rate: share of lost packets, 0 to 0.9.
        mean_burst: mean length of a run of losses in packets; 1 loses each packet independently.

    Raises:
        ValueError: on values outside these ranges, or a burst that the rate cannot have.
    """

    rate: float
    mean_burst: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.rate <= 0.9:
            raise ValueError(f"rate: wanted 0..0.9, got {self.rate!r}")
        if not 1 <= self.mean_burst <= 1000:
            raise ValueError(f"mean_burst: wanted 1..1000 packets, got {self.mean_burst!r}")
        if self.mean_burst > 1 and self._enter() > 1:
            raise ValueError(
                f"rate: {self.rate} needs bursts longer than {self.mean_burst} packets"
            )

    def _enter(self) -> float:
        """Probability to go from the good state to the bad one."""
        return self.rate / ((1 - self.rate) * self.mean_burst)

    def draw(self, packets: int, seed: int) -> npt.NDArray[np.bool_]:
        """True for each packet that is lost."""
        generator = np.random.default_rng(seed)
        if self.mean_burst == 1:
            return generator.random(packets) < self.rate
        enter, leave = self._enter(), 1 / self.mean_burst
        lost = np.zeros(packets, np.bool_)
        bad = generator.random() < self.rate
        for i, chance in enumerate(generator.random(packets)):
            lost[i] = bad
            bad = chance >= leave if bad else chance < enter
        return lost
