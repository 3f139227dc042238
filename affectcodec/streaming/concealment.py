# SPDX-License-Identifier: Apache-2.0
"""What a decoder plays for frames that did not come.

Lost frames are filled in the latent, before the decoder: its own history, the running phase of the
source and the overlap of its windows then carry the sound over the gap without a click.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from affectcodec.streaming.engine import Floats

if TYPE_CHECKING:
    from affectcodec.codec import AffectCodec

CONCEALMENTS = ("predict", "repeat", "silence")
HISTORY_FRAMES = 4


class LatentHistory:
    """The last quantized latents of a stream, oldest first, and how many frames were lost since.

    Attributes:
        latents: float32 ``[HISTORY_FRAMES, D]``; rows before the start of the stream are zeros.
        filled: rows that hold a frame.
        lost: frames concealed since the last one that came.
    """

    def __init__(self, width: int) -> None:
        self.latents = np.zeros((HISTORY_FRAMES, width), np.float32)
        self.filled = 0
        self.lost = 0

    def append(self, rows: Floats) -> None:
        """Take frames ``[T, D]`` that came."""
        keep = rows[-HISTORY_FRAMES:]
        self.latents = np.concatenate([self.latents[len(keep) :], keep])
        self.filled = min(HISTORY_FRAMES, self.filled + len(rows))
        self.lost = 0


class Concealment:
    """Repeats the last latent, or gives a latent of zeros."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    @classmethod
    def of(cls, codec: AffectCodec, kind: str) -> Concealment:
        """The concealment of that name.

        Raises:
            ValueError: on an unknown name.
        """
        if kind not in CONCEALMENTS:
            raise ValueError(f"concealment: wanted one of {list(CONCEALMENTS)}, got {kind!r}")
        return cls(kind)

    def next(self, history: LatentHistory) -> Floats:
        """Latent ``[D]`` of the next lost frame."""
        history.lost += 1
        last = history.latents[-1]
        if self.kind == "silence" or not history.filled:
            return np.zeros_like(last)
        return last.copy()
