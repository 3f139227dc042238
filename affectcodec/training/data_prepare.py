# SPDX-License-Identifier: Apache-2.0
"""From one clip to samples and prosody targets; whatever is wrong with it becomes a reason."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import NamedTuple

import numpy as np
import soundfile

from affectcodec import autocorrelation
from affectcodec.audio import load_audio, resample
from affectcodec.config import CodecConfig
from affectcodec.training.data import Clip

_LONGEST_SECONDS = 3600.0  # targets of an hour take about 2 GB while they are made
_LOUDEST = 8.0  # 18 dB over full scale: integers that were stored as floats, most likely
_CLIPPED_SHARE = 0.001
_FORMATS = {
    ".wav": ("WAV", "WAVEX", "RF64", "W64"),
    ".flac": ("FLAC",),
    ".ogg": ("OGG",),
    ".oga": ("OGG",),
    ".opus": ("OGG",),
    ".mp3": ("MP3", "MPEG"),
}


class Version(NamedTuple):
    """One clip at one speed: int16 samples, targets ``[T, 3]``, its active span in frames and its
    level there, and a digest of the samples."""

    speed: float
    pcm: np.ndarray
    prosody: np.ndarray
    active_start: int
    active_end: int
    active_rms: float
    digest: str


@dataclass
class Prepared:
    """What came of a clip: its versions, why others are missing, and what is odd about it."""

    versions: list[Version] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    noted: list[str] = field(default_factory=list)


def prosody_targets(wav: np.ndarray, config: CodecConfig) -> np.ndarray:
    """Frame targets ``[T, 3]`` float32: log F0 (gaps interpolated), voicing 0/1, active 0/1.

    F0 is that of :mod:`affectcodec.autocorrelation` at the centre of each frame. What a tracker
    reads wrong, a codec learns: ``affectcodec.evaluation.source_pitch`` compares trackers as
    sources of a decoder.
    """
    net, rate = config.network, config.sample_rate
    frames = config.num_frames(len(wav))
    same = rate == autocorrelation.SAMPLE_RATE
    tracked = wav if same else np.asarray(resample(wav, rate, autocorrelation.SAMPLE_RATE))
    f0 = autocorrelation.track(tracked, net.f0_min, net.f0_max)
    per_hop = config.hop_length / rate * autocorrelation.SAMPLE_RATE / autocorrelation.HOP
    index = np.minimum((np.arange(frames) * per_hop).astype(int), len(f0) - 1)
    voiced_at = np.flatnonzero(f0)
    log_f0 = np.full(len(f0), math.log(150.0))
    if len(voiced_at):
        log_f0 = np.interp(np.arange(len(f0)), voiced_at, np.log(f0[voiced_at]))
    x = wav.astype(np.float64)
    padded = np.zeros((frames + 1) * config.hop_length)
    padded[config.hop_length : config.hop_length + len(x)] = x
    power = np.square(padded).reshape(-1, config.hop_length).mean(1)
    level = 10 * np.log10(power[:-1] + power[1:] + 1e-10)
    active = level > max(np.percentile(level, 95) - 40, -75)
    return np.stack([log_f0[index], f0[index] > 0, active], 1).astype(np.float32)


def prepare(clip: Clip, config: CodecConfig, speeds: tuple[float, ...]) -> Prepared:
    """All versions of a clip. Raises nothing: a clip can only fail for itself."""
    out = Prepared()
    try:
        base = _samples(clip, config, out.noted)
    except Exception as error:  # noqa: BLE001 - whatever a decoder raises is about this clip
        out.skipped.append(str(error) or type(error).__name__)
        return out
    for speed in speeds:
        try:
            out.versions.append(_version(base, speed, config))
        except Exception as error:  # noqa: BLE001 - as above
            out.skipped.append(f"{error} at speed {speed:g}")
    return out


def _samples(clip: Clip, config: CodecConfig, noted: list[str]) -> np.ndarray:
    """Samples at the codec's rate; what is odd about them goes into ``noted``."""
    source = clip.open()
    wav, rate = load_audio(source, mono=True)
    if len(wav) > _LONGEST_SECONDS * rate:
        raise ValueError(
            f"{len(wav) / rate / 3600:.1f} hours long; cut it into clips of an hour at most"
        )
    peak = float(np.abs(wav).max())
    if peak > _LOUDEST:
        raise ValueError(
            f"its samples reach {peak:.3g}, wanted [-1, 1]; were integers stored as floats?"
        )
    _note_format(clip, source, noted)
    if rate < config.sample_rate:
        noted.append(f"has {rate} Hz: nothing above {rate / 2:g} Hz to learn from")
    full = float(np.mean(np.abs(wav) >= min(0.999, peak)))
    if peak > 0.5 and full > _CLIPPED_SHARE:
        noted.append(f"clipped: {full:.1%} of its samples at full scale")
    if rate != config.sample_rate:
        wav = resample(wav, rate, config.sample_rate)
    if len(wav) < 2 * config.hop_length:
        raise ValueError(f"{len(wav)} samples, less than two frames of {config.hop_length}")
    if float(np.std(wav)) < 1e-5:
        raise ValueError("no active speech: silence, or a constant")
    return wav


def _note_format(clip: Clip, source: object, noted: list[str]) -> None:
    if hasattr(source, "seek"):
        source.seek(0)
    info = soundfile.info(source)
    wanted = _FORMATS.get(PurePath(clip.path).suffix.lower())
    if wanted is not None and info.format not in wanted:
        noted.append(f"its name says {PurePath(clip.path).suffix}, its content {info.format}")
    if info.channels > 1:
        noted.append(f"{info.channels} channels, mixed down to one")


def _version(base: np.ndarray, speed: float, config: CodecConfig) -> Version:
    hop, rate = config.hop_length, config.sample_rate
    wav = base if speed == 1.0 else np.asarray(resample(base, round(rate * speed), rate))
    target = prosody_targets(wav, config)
    active = np.flatnonzero(target[:, 2])
    if not len(active):
        raise ValueError("no active speech")
    start, end = int(active[0]), int(active[-1]) + 1
    loud = wav[max(0, start - 1) * hop : end * hop]
    rms = float(np.sqrt(np.mean(np.square(loud)) + 1e-12))
    pcm = np.clip(np.round(wav * 32767), -32768, 32767).astype(np.int16)
    digest = hashlib.blake2b(pcm.tobytes(), digest_size=8).hexdigest()
    return Version(speed, pcm, target, start, end, rms, digest)
