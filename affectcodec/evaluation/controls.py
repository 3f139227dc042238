# SPDX-License-Identifier: Apache-2.0
"""Controls: treatments whose effect is known, to see whether a measure sees it.

original      16-bit original: the ceiling
narrowband    16-bit at 8 kHz: the ceiling of any 8 kHz codec
lowpass:2     nothing above 2 kHz
mulaw         8-bit mu-law (G.711's law) at 16 kHz: noise, all else kept
world         WORLD analysis and resynthesis, nothing quantized
flat-f0       the same with F0 at the clip's median: a measure of emotion that does not mind is
              blind to prosody
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from affectcodec.audio import load_pcm16, pcm16_bytes, resample
from affectcodec.evaluation.baselines import SAMPLE_RATE, Coded
from affectcodec.evaluation.pitch import F0_CEIL_HZ, F0_FLOOR_HZ, FRAME_MS, f0_track
from affectcodec.evaluation.world import load_world

_ORDER = 10
_MU = 255.0


@dataclass(frozen=True)
class PassThrough:
    """The clip as 16-bit PCM at `rate` Hz and back."""

    name: str
    rate: int

    @property
    def fingerprint(self) -> str:
        return f"pcm16-{self.rate}"

    def roundtrip(self, wav: np.ndarray) -> Coded:
        pcm, _ = pcm16_bytes(resample(wav, SAMPLE_RATE, self.rate))
        back, _ = load_pcm16(pcm, sample_rate_in=self.rate, sample_rate=SAMPLE_RATE)
        return Coded(back, 8 * len(pcm))


@dataclass(frozen=True)
class LowPass:
    """Butterworth low-pass, forwards and backwards, so without delay."""

    khz: float

    def __post_init__(self) -> None:
        if not 0.1 <= self.khz < SAMPLE_RATE / 2000:
            raise ValueError(f"lowpass: got {self.khz:g} kHz, wanted 0.1 to less than 8")

    @property
    def name(self) -> str:
        return f"lowpass:{self.khz:g}"

    @property
    def fingerprint(self) -> str:
        return f"{self.name}-butterworth-{_ORDER}"

    def roundtrip(self, wav: np.ndarray) -> Coded:
        from scipy.signal import butter, sosfiltfilt

        sections = butter(_ORDER, 1000.0 * self.khz, fs=SAMPLE_RATE, output="sos")
        out = sosfiltfilt(sections, np.asarray(wav, np.float64), padlen=0)
        return Coded(np.asarray(out, dtype=np.float32), 16 * len(wav))


@dataclass(frozen=True)
class MuLaw:
    """Each sample in 8 bits by the mu-law, mu = 255."""

    name: str = "mulaw"
    fingerprint: str = "mulaw-255"

    def roundtrip(self, wav: np.ndarray) -> Coded:
        x = np.clip(np.asarray(wav, np.float64), -1.0, 1.0)
        compressed = np.sign(x) * np.log1p(_MU * np.abs(x)) / np.log1p(_MU)
        code = np.rint(compressed * 127.0) / 127.0
        out = np.sign(code) * np.expm1(np.abs(code) * np.log1p(_MU)) / _MU
        return Coded(out.astype(np.float32), 8 * len(wav))


@dataclass(frozen=True)
class World:
    """WORLD (dio, cheaptrick, d4c) and its synthesis, with F0 as it is or flat."""

    flat: bool

    @property
    def name(self) -> str:
        return "flat-f0" if self.flat else "world"

    @property
    def fingerprint(self) -> str:
        return f"{self.name}-dio-{F0_FLOOR_HZ:g}-{F0_CEIL_HZ:g}"

    def roundtrip(self, wav: np.ndarray) -> Coded:
        world = load_world()
        f0 = f0_track(wav, "dio")
        voiced = f0 > 0
        if not voiced.any():
            return Coded(np.asarray(wav, np.float32), 16 * len(wav))
        x = np.ascontiguousarray(wav, dtype=np.float64)
        times = np.arange(len(f0)) * FRAME_MS / 1000.0
        envelope = world.cheaptrick(x, f0, times, SAMPLE_RATE)
        aperiodicity = world.d4c(x, f0, times, SAMPLE_RATE)
        if self.flat:
            f0 = np.where(voiced, np.median(f0[voiced]), 0.0)
        out = world.synthesize(f0, envelope, aperiodicity, SAMPLE_RATE, FRAME_MS)
        return Coded(np.asarray(out[: len(wav)], dtype=np.float32), 16 * len(wav))
