# SPDX-License-Identifier: Apache-2.0
"""Random codes."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from affectcodec.entropy.layout import DigitLayout, IntArray
from affectcodec.entropy.training import draw_stages


def random_packet(
    layout: DigitLayout, frames: int, seed: int
) -> tuple[list[IntArray], npt.NDArray[np.uint8]]:
    """Codes per block, 0 where a frame has fewer stages, and stage counts ``[G, frames]``."""
    rng = np.random.default_rng(seed)
    stages = draw_stages(layout, frames, rng)
    codes: list[IntArray] = []
    for levels, counts in zip(layout.levels, stages, strict=True):
        most = int(counts.max(initial=0))
        block = rng.integers(0, math.prod(levels), (most, frames)).astype(np.int32)
        codes.append(block * (np.arange(most)[:, None] < counts))
    return codes, stages
