# SPDX-License-Identifier: Apache-2.0
"""What a decoder plays for frames that did not come.

Lost frames are filled in the latent, before the decoder: its own history, the running phase of the
source and the overlap of its windows then carry the sound over the gap without a click.

``"predict"`` expects each lost latent from the rows before it (:mod:`.predictor`), and fades out
when a gap gets long. Background noise is held instead, so that it neither fades nor turns into
speech, which also fills the pauses of discontinuous transmission. ``"repeat"`` repeats the last
latent, ``"silence"`` mutes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from affectcodec.streaming.engine import Floats
from affectcodec.streaming.predictor import HISTORY_FRAMES, Predictor, shipped_predictor

if TYPE_CHECKING:
    from affectcodec.codec import AffectCodec

CONCEALMENTS = ("predict", "repeat", "silence")
NOISE_FRAMES = 4  # frames that came, from which noise is held

# What a prediction holds in part is the emotion block (half of it). In the first lost frame it is
# held whole: pitch hardly moves in 20 ms. Further on it is held once more: nobody knows where pitch
# went, and a prediction hedges, half voiced.
_EXPECTED_FRAMES = 2
_FULL_FRAMES = 6  # lost frames at full level
_FADE = 0.1  # of full level a frame after those
_QUIET_DB = -45.0  # dBFS above which nothing is background
_ABOVE_FLOOR_DB = 8.0
_LOWEST_DB = -90.0
_RISE_DB = 0.06  # of the floor a frame: 3 dB a second
_SMOOTHING = 0.4  # share of the newest hop in the level


class LatentHistory:
    """The last latents of a stream, oldest first, and what was concealed since.

    Attributes:
        rows: float32 ``[HISTORY_FRAMES, D]``, concealed ones as well; rows before the start of the
            stream are zeros.
        came: float32 ``[HISTORY_FRAMES]``, 1 for rows that came, 0 for concealed and for none.
        known: float32 ``[NOISE_FRAMES, D]``, the last latents that came.
        filled: rows of ``known`` that hold a frame.
        lost: frames concealed since the last one that came.
        gain: of the last hop that was played.
        level_db: smoothed level of what came, dBFS.
        floor_db: the noise floor under it: follows minima at once, rises by 3 dB a second.
    """

    def __init__(self, width: int) -> None:
        self.rows = np.zeros((HISTORY_FRAMES, width), np.float32)
        self.came = np.zeros(HISTORY_FRAMES, np.float32)
        self.known = np.zeros((NOISE_FRAMES, width), np.float32)
        self.filled = 0
        self.lost = 0
        self.gain = 1.0
        self.level_db = 0.0
        self.floor_db = -60.0

    @property
    def last(self) -> Floats:
        """The last latent ``[D]`` that came."""
        newest: Floats = self.known[-1]
        return newest

    @property
    def quiet(self) -> bool:
        """Whether what came last was background."""
        return self.level_db < min(_QUIET_DB, self.floor_db + _ABOVE_FLOOR_DB)

    def append(self, rows: Floats) -> None:
        """Take frames ``[T, D]`` that came."""
        self.known = _shifted(self.known, rows)
        self.rows = _shifted(self.rows, rows)
        self.came = _shifted(self.came, np.ones(len(rows), np.float32))
        self.filled = min(NOISE_FRAMES, self.filled + len(rows))
        self.lost = 0

    def conceal(self, row: Floats) -> None:
        """Take a frame ``[D]`` that stands for a lost one."""
        self.rows = _shifted(self.rows, row[None])
        self.came = _shifted(self.came, np.zeros(1, np.float32))

    def hear(self, hop: Floats) -> None:
        """Take a hop of audio of frames that came."""
        power = float(np.mean(np.square(hop, dtype=np.float64)))
        level = max(_LOWEST_DB, 10 * float(np.log10(power + 1e-10)))
        known = self.level_db < 0.0
        self.level_db += (_SMOOTHING if known else 1.0) * (level - self.level_db)
        self.floor_db = min(self.level_db, self.floor_db + _RISE_DB)


def _shifted(kept: Floats, rows: Floats) -> Floats:
    rows = rows[-len(kept) :]
    return np.concatenate([kept[len(rows) :], rows])


class Concealment:
    """Latents and levels of lost frames.

    Args:
        kind: one of ``CONCEALMENTS``.
        predictor: for ``"predict"``; without one the last latent is repeated and fades.
    """

    def __init__(self, kind: str, predictor: Predictor | None = None) -> None:
        self.kind = kind
        self.predictor = predictor

    @classmethod
    def of(cls, codec: AffectCodec, kind: str) -> Concealment:
        """The concealment of that name for a codec.

        Raises:
            ValueError: on an unknown name.
        """
        if kind not in CONCEALMENTS:
            raise ValueError(f"concealment: wanted one of {list(CONCEALMENTS)}, got {kind!r}")
        found = shipped_predictor(codec.fingerprint) if kind == "predict" else None
        return cls(kind, found)

    def next(self, history: LatentHistory) -> tuple[Floats, float]:
        """Latent ``[D]`` and gain of the next lost frame; the history has taken it."""
        history.lost += 1
        latent, gain = self._filling(history)
        history.conceal(latent)
        return latent, gain

    def _filling(self, history: LatentHistory) -> tuple[Floats, float]:
        last = history.last
        if not history.filled:
            return np.zeros_like(last), 0.0
        if self.kind == "silence":
            return last, 0.0
        if self.kind == "repeat":
            return last, 1.0
        if history.quiet:
            # Noise made of one latent alone would hum.
            return history.known[-1 - history.lost % history.filled], 1.0
        gain = max(0.0, 1.0 - _FADE * max(0, history.lost - _FULL_FRAMES))
        if self.predictor is None:
            return last, gain
        latent = self.predictor.latent(history.rows, history.came, last)
        if history.lost == 1:
            latent = np.where(self.predictor.hold > 0, last, latent)
        elif history.lost > _EXPECTED_FRAMES:
            latent = latent + self.predictor.hold * (last - latent)
        return latent, gain
