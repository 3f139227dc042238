# SPDX-License-Identifier: Apache-2.0
"""What a decoder plays for frames that did not come.

Lost frames are filled in the latent, before the decoder: its own history, the running phase of the
source and the overlap of its windows then carry the sound over the gap without a click.

``"predict"`` expects each lost latent from the last two that came, by a linear predictor for each
distance (ridge regression of reduced rank, fitted on speech by
``python -m affectcodec.streaming.fit_concealment``), and fades out when a gap gets long. What was
near silence is held instead: background noise neither fades nor turns into speech, which also fills
the pauses of discontinuous transmission. ``"repeat"`` repeats the last latent, ``"silence"`` mutes.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from affectcodec import checkpoint
from affectcodec.streaming.engine import Floats

if TYPE_CHECKING:
    from affectcodec.codec import AffectCodec

CONCEALMENTS = ("predict", "repeat", "silence")
HISTORY_FRAMES = 4
PREDICTOR_NAME = "concealment.safetensors"
PREDICTOR_FORMAT = "affectcodec-concealment-1"
INPUT_FRAMES = 2

QUIET_DB = -45.0  # dBFS of a hop that is held, not faded
_FULL_FRAMES = 4  # lost frames at full level
_FADE = 0.1  # of full level a frame after those


class LatentHistory:
    """The last quantized latents of a stream, oldest first, and what was concealed since.

    Attributes:
        latents: float32 ``[HISTORY_FRAMES, D]``; rows before the start of the stream are zeros.
        filled: rows that hold a frame.
        lost: frames concealed since the last one that came.
        gain: of the last hop that was played.
        quiet: whether that hop was near silence.
    """

    def __init__(self, width: int) -> None:
        self.latents = np.zeros((HISTORY_FRAMES, width), np.float32)
        self.filled = 0
        self.lost = 0
        self.gain = 1.0
        self.quiet = False

    def append(self, rows: Floats) -> None:
        """Take frames ``[T, D]`` that came."""
        keep = rows[-HISTORY_FRAMES:]
        self.latents = np.concatenate([self.latents[len(keep) :], keep])
        self.filled = min(HISTORY_FRAMES, self.filled + len(rows))
        self.lost = 0


@dataclass(frozen=True)
class Predictor:
    """Latents of lost frames, from the last ones that came.

    ``latent_j = mean + basis_j (weights_j (x - mean))`` for the ``j``-th lost frame, ``x`` the last
    ``INPUT_FRAMES`` latents, newest first.

    Attributes:
        mean: ``[D]``.
        weights: ``[J, rank, INPUT_FRAMES * D]``.
        basis: ``[J, D, rank]``.
        fingerprint: of the codec whose latents these are.
    """

    mean: Floats
    weights: Floats
    basis: Floats
    fingerprint: str

    def latent(self, history: LatentHistory) -> Floats:
        """Latent ``[D]`` of the next lost frame."""
        j = min(history.lost, len(self.weights)) - 1
        newest = history.latents[::-1][:INPUT_FRAMES]
        if history.filled < INPUT_FRAMES:
            newest = np.repeat(history.latents[-1:], INPUT_FRAMES, 0)
        x = (newest - self.mean).reshape(-1)
        return self.mean + self.basis[j] @ (self.weights[j] @ x)

    def save(self, path: Path) -> None:
        """Write a safetensors file, float16."""
        arrays = {"mean": self.mean, "weights": self.weights, "basis": self.basis}
        metadata = {"format": PREDICTOR_FORMAT, "fingerprint": self.fingerprint}
        # A view of turned axes would be written in the order of its memory.
        ready = {k: np.ascontiguousarray(v, np.float16) for k, v in arrays.items()}
        save_file(ready, path, metadata)

    @classmethod
    def load(cls, path: Path) -> Predictor:
        """Inverse of :meth:`save`.

        Raises:
            ValueError: if the file is no predictor.
        """
        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != PREDICTOR_FORMAT:
                raise ValueError(f"{path}: no predictor, its format is {json.dumps(metadata)}")
            names = ("mean", "weights", "basis")
            arrays = {name: file.get_tensor(name).astype(np.float32) for name in names}
        horizon, rank, inputs = arrays["weights"].shape
        width = len(arrays["mean"])
        if inputs != INPUT_FRAMES * width or arrays["basis"].shape != (horizon, width, rank):
            raise ValueError(f"{path}: shapes that do not fit each other")
        return cls(fingerprint=metadata["fingerprint"], **arrays)


@functools.lru_cache(maxsize=8)
def shipped_predictor(fingerprint: str) -> Predictor | None:
    """The predictor that ships with the weights of this fingerprint."""
    for path in sorted(checkpoint.shipped_folder().glob(f"*/{PREDICTOR_NAME}")):
        with safe_open(path, "numpy") as file:
            if (file.metadata() or {}).get("fingerprint") == fingerprint:
                return Predictor.load(path)
    return None


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
        """Latent ``[D]`` and gain of the next lost frame."""
        history.lost += 1
        last = history.latents[-1]
        if not history.filled:
            return np.zeros_like(last), 0.0
        if self.kind == "silence":
            return last, 0.0
        if self.kind == "repeat":
            return last, 1.0
        if history.quiet:
            # Noise made of one latent alone would hum.
            return history.latents[-1 - history.lost % history.filled], 1.0
        gain = max(0.0, 1.0 - _FADE * max(0, history.lost - _FULL_FRAMES))
        return (last if self.predictor is None else self.predictor.latent(history)), gain
