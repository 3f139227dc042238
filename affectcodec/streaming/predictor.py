# SPDX-License-Identifier: Apache-2.0
"""The network that expects the next latent of a stream, and its file.

Runs in numpy and only where a frame is lost, so that streams without loss pay nothing. It reads a
fixed number of rows, those that came and those that were concealed alike, each marked as what it
is, and what it gives is the next row of what it reads: a gap of any length is one network in a row.
``python -m affectcodec.streaming.fit_concealment`` fits it.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from affectcodec import checkpoint
from affectcodec.streaming.engine import Floats

HISTORY_FRAMES = 8
PREDICTOR_NAME = "concealment.safetensors"
PREDICTOR_FORMAT = "affectcodec-concealment-2"


@dataclass(frozen=True)
class Predictor:
    """Two hidden layers over embedded rows.

    With ``z_i`` the rows newest first, ``c_i`` whether one came (1) or was concealed (0), and
    ``n_i = (z_i - mean) / scale``::

        h = relu(hidden [embed n_0, .., embed n_7, c_0, .., c_7] + hidden_bias)
        h = relu(middle h + middle_bias)
        next = mean + scale * (keep * n_0 + out h + out_bias)
        latent = next + hold * (last - next)

    where ``last`` is the last latent that came. What is held in part keeps a level that a mean of
    what may follow loses: prosody above all.

    Attributes:
        mean, scale, keep, out_bias, hold: ``[D]``.
        embed: ``[R, D]``.
        hidden, hidden_bias: ``[H, HISTORY_FRAMES * (R + 1)]``, ``[H]``.
        middle, middle_bias: ``[H, H]``, ``[H]``.
        out: ``[D, H]``.
        fingerprint: of the codec whose latents these are.
    """

    mean: Floats
    scale: Floats
    embed: Floats
    hidden: Floats
    hidden_bias: Floats
    middle: Floats
    middle_bias: Floats
    keep: Floats
    out: Floats
    out_bias: Floats
    hold: Floats
    fingerprint: str

    def latent(self, rows: Floats, came: Floats, last: Floats) -> Floats:
        """The latent ``[D]`` after ``rows [HISTORY_FRAMES, D]``, oldest first, of which those with
        1 in ``came [HISTORY_FRAMES]`` came, ``last [D]`` the last of those; rows before the start
        of a stream are zeros."""
        normal = (rows[::-1] - self.mean) / self.scale
        embedded = (normal @ self.embed.T).reshape(-1)
        h = self.hidden @ np.concatenate([embedded, came[::-1]]) + self.hidden_bias
        h = self.middle @ np.maximum(h, 0) + self.middle_bias
        step = self.keep * normal[0] + self.out @ np.maximum(h, 0) + self.out_bias
        following = self.mean + self.scale * step
        return np.asarray(following + self.hold * (last - following), np.float32)

    def save(self, path: Path) -> None:
        """Write a safetensors file, float16."""
        metadata = {"format": PREDICTOR_FORMAT, "fingerprint": self.fingerprint}
        arrays = {n: np.ascontiguousarray(getattr(self, n), np.float16) for n in _ARRAYS}
        save_file(arrays, path, metadata)

    @classmethod
    def load(cls, path: Path) -> Predictor:
        """Inverse of :meth:`save`.

        Raises:
            ValueError: if the file is no predictor.
        """
        try:
            with safe_open(path, "numpy") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != PREDICTOR_FORMAT:
                    raise ValueError(
                        f"{path}: wanted a predictor of format {PREDICTOR_FORMAT!r}, its metadata "
                        f"are {json.dumps(metadata)}; fit one with "
                        "python -m affectcodec.streaming.fit_concealment"
                    )
                arrays = {n: file.get_tensor(n).astype(np.float32) for n in _ARRAYS}
                fingerprint = metadata["fingerprint"]
        except (KeyError, OSError, SafetensorError) as error:
            raise ValueError(f"{path}: no predictor: {error}") from error
        width, rank, size = len(arrays["mean"]), len(arrays["embed"]), len(arrays["hidden"])
        wanted = {
            **dict.fromkeys(("mean", "scale", "keep", "out_bias", "hold"), (width,)),
            **dict.fromkeys(("hidden_bias", "middle_bias"), (size,)),
            "embed": (rank, width),
            "hidden": (size, HISTORY_FRAMES * (rank + 1)),
            "middle": (size, size),
            "out": (width, size),
        }
        for name, shape in wanted.items():
            if arrays[name].shape != shape or not np.isfinite(arrays[name]).all():
                raise ValueError(
                    f"{path}: {name} is {list(arrays[name].shape)}, wanted finite {list(shape)}"
                )
        return cls(fingerprint=fingerprint, **arrays)


_ARRAYS = tuple(field.name for field in fields(Predictor) if field.name != "fingerprint")


@functools.lru_cache(maxsize=8)
def shipped_predictor(fingerprint: str) -> Predictor | None:
    """The predictor of this format that ships with the weights of this fingerprint."""
    wanted = {"format": PREDICTOR_FORMAT, "fingerprint": fingerprint}
    for path in sorted(checkpoint.shipped_folder().glob(f"*/{PREDICTOR_NAME}")):
        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
        if metadata == wanted:
            return Predictor.load(path)
    return None
