# SPDX-License-Identifier: Apache-2.0
"""Prosody of the signal as a teacher: F0, voicing, activity."""

from __future__ import annotations

import hashlib
import json

import numpy as np

from affectcodec.config import CodecConfig
from affectcodec.training.cache import CACHE_VERSION, prosody_targets
from affectcodec.training.teachers.protocol import TeacherClip


class ProsodyTeacher:
    """Log F0 (gaps interpolated), voicing and activity, one row a codec frame."""

    name = "prosody"
    dim = 3

    def __init__(self, config: CodecConfig) -> None:
        self.config = config
        self.rate: float | None = config.frame_rate
        net = config.network
        parts = ["prosody", CACHE_VERSION, config.sample_rate, config.hop_length]
        text = json.dumps([*parts, net.f0_min, net.f0_max])
        self.fingerprint = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    def targets(self, clip: TeacherClip) -> np.ndarray:
        """``[T, 3]``.

        Raises:
            ValueError: if the clip is at another rate than the codec.
        """
        if clip.sample_rate != self.config.sample_rate:
            raise ValueError(
                f"sample_rate: wanted {self.config.sample_rate} Hz, got {clip.sample_rate}"
            )
        return prosody_targets(clip.wav, self.config)
