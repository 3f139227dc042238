# SPDX-License-Identifier: Apache-2.0
"""Clips through ``.afc`` files on disk and back, timed and measured."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from affectcodec.audio import resample, save_audio
from affectcodec.bitstream import read_tokens, write_tokens
from affectcodec.codec import AffectCodec
from affectcodec.demo.clips import DemoClip
from affectcodec.tokens import Tokens

RATES = (0.75, 1.5, 3.0, 6.0)  # kbit/s
METRICS = (("pesq_wb", "PESQ-WB", 2), ("stoi", "STOI", 3), ("f0_corr", "F0 corr", 3))
_REPEATS = 3  # the fastest counts: other work on the machine only ever adds time
_EVALUATION_RATE = 16000

Result = TypeVar("Result")


@dataclass(frozen=True)
class Version:
    """A clip at one rate.

    Attributes:
        label: asked rate, e.g. "1.5".
        kbps: rate of the tokens, kbit/s.
        file: the ``.afc`` file.
        size: its bytes.
        disk_kbps: the rate they make, container included.
        encode_factor, decode_factor: seconds of work on one thread a second of audio, files
            included.
        wave: float32 ``[n]``, decoded from the file.
        tokens: read from the file.
        scores: PESQ-WB, STOI, F0 correlation by name; NaN where undefined or not installed.
    """

    label: str
    kbps: float
    file: Path
    size: int
    disk_kbps: float
    encode_factor: float
    decode_factor: float
    wave: np.ndarray
    tokens: Tokens
    scores: dict[str, float]


@dataclass(frozen=True)
class CodedClip:
    """A clip and its versions from the lowest to the highest rate."""

    clip: DemoClip
    sample_rate: int
    versions: tuple[Version, ...]

    @property
    def seconds(self) -> float:
        return len(self.clip.wave) / self.sample_rate


def rates_of(codec: AffectCodec) -> list[float]:
    """Those of ``RATES`` that this codec has."""
    lowest, highest = codec.config.kbps(1), codec.config.kbps(None)
    return [rate for rate in RATES if lowest - 1e-9 <= rate <= highest + 1e-9] or [highest]


def code_clip(codec: AffectCodec, clip: DemoClip, folder: Path) -> CodedClip:
    """Encode at every rate into ``folder``, decode from there, and measure.

    The caller sets the number of threads.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rate = codec.config.sample_rate
    save_audio(folder / "original.wav", clip.wave, rate)
    versions = [
        _version(codec, clip, kbps, folder / f"{kbps:g}kbps.afc") for kbps in rates_of(codec)
    ]
    return CodedClip(clip, rate, tuple(versions))


def _version(codec: AffectCodec, clip: DemoClip, kbps: float, file: Path) -> Version:
    rate = codec.config.sample_rate
    seconds = len(clip.wave) / rate

    def encode() -> None:
        write_tokens(file, codec.encode(clip.wave, rate, kbps=kbps))

    def decode() -> tuple[np.ndarray, Tokens]:
        tokens, _ = read_tokens(
            file, quantizer=codec.config.quantizer, expected_hash=codec.fingerprint
        )
        return codec.decode(tokens)[0, 0].numpy(), tokens

    _, encode_time = _timed(encode)
    (wave, tokens), decode_time = _timed(decode)
    save_audio(file.with_suffix(".wav"), wave, rate)
    size = file.stat().st_size
    return Version(
        label=f"{kbps:g}",
        kbps=tokens.kbps,
        file=file,
        size=size,
        disk_kbps=size * 8 / seconds / 1000,
        encode_factor=encode_time / seconds,
        decode_factor=decode_time / seconds,
        wave=wave,
        tokens=tokens,
        scores=measured(clip.wave, wave, rate),
    )


def _timed(work: Callable[[], Result]) -> tuple[Result, float]:
    times = []
    for _ in range(_REPEATS):
        started = time.perf_counter()
        result = work()
        times.append(time.perf_counter() - started)
    return result, min(times)


def measured(original: np.ndarray, decoded: np.ndarray, sample_rate: int) -> dict[str, float]:
    """The metrics of ``METRICS``; all NaN where a package they need is missing."""
    from affectcodec.evaluation.metrics import measure

    if sample_rate != _EVALUATION_RATE:
        original = resample(original, sample_rate, _EVALUATION_RATE)
        decoded = resample(decoded, sample_rate, _EVALUATION_RATE)
    try:
        values = measure(original, decoded).values
    except ImportError:
        values = {}
    return {name: values.get(name, math.nan) for name, _, _ in METRICS}


def missing_metrics() -> list[str]:
    """Packages of the metrics that do not import."""
    import importlib
    import warnings

    missing = []
    for package in ("pesq", "pystoi", "swift_f0"):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                importlib.import_module(package)
        except ImportError:
            missing.append(package)
    return missing


@dataclass(frozen=True)
class Row:
    """One line of the table: means over clips, or one clip at one rate."""

    title: str
    label: str
    size: float
    disk_kbps: float
    encode_factor: float
    decode_factor: float
    scores: dict[str, float]


def rows_of(coded: Sequence[CodedClip]) -> tuple[list[Row], list[Row]]:
    """Means over the clips at each rate, and every clip at every rate.

    The mean rate and factors are totals over total seconds; scores are means over the clips that
    have them.
    """
    each = [
        Row(c.clip.name, v.label, v.size, v.disk_kbps, v.encode_factor, v.decode_factor, v.scores)
        for c in coded
        for v in c.versions
    ]
    means = []
    seconds = np.array([c.seconds for c in coded])
    for index, version in enumerate(coded[0].versions):
        column = [c.versions[index] for c in coded]
        scores = {}
        for name, _, _ in METRICS:
            known = [v.scores[name] for v in column if not math.isnan(v.scores[name])]
            scores[name] = float(np.mean(known)) if known else math.nan
        means.append(
            Row(
                title="all clips",
                label=version.label,
                size=float(np.mean([v.size for v in column])),
                disk_kbps=sum(v.size for v in column) * 8 / seconds.sum() / 1000,
                encode_factor=float(np.average([v.encode_factor for v in column], weights=seconds)),
                decode_factor=float(np.average([v.decode_factor for v in column], weights=seconds)),
                scores=scores,
            )
        )
    return means, each


def shown(value: float, decimals: int) -> str:
    """A figure, or a dash where there is none."""
    return "-" if math.isnan(value) else f"{value:.{decimals}f}"
