# SPDX-License-Identifier: Apache-2.0
"""All reconstruction metrics of one pair of waves.

    scores = measure(ref, deg)         # aligned 16 kHz waves of equal length
    scores.values["pesq_wb"], scores.failures

Each metric is a row of `METRICS`: name, column title, direction, decimals, meaning.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field

import numpy as np

from affectcodec.evaluation.alignment import SAMPLE_RATE, active_frames, active_region
from affectcodec.evaluation.pitch import HEADLINE, Method, f0_metrics, f0_track, spread_to_f0_frames
from affectcodec.evaluation.spectral import energy_metrics, mel_distances

# Part of every cached row: raise it when a metric changes, and old rows are measured anew.
METRICS_VERSION = 2


@dataclass(frozen=True)
class Metric:
    """One metric: how to print it and which way is better (+1 higher, -1 lower, 0 neither)."""

    name: str
    title: str
    better: int
    decimals: int
    meaning: str


METRICS: tuple[Metric, ...] = (
    Metric("pesq_wb", "PESQ-WB", 1, 2, "ITU-T P.862.2 MOS-LQO, 1.02 to 4.64"),
    Metric("stoi", "STOI", 1, 3, "short-time objective intelligibility, 0 to 1"),
    Metric("estoi", "ESTOI", 1, 3, "extended STOI, 0 to 1"),
    Metric("f0_corr", "F0 corr", 1, 3, "Pearson correlation of log F0 over frames voiced in both"),
    Metric(
        "f0_rmse_cents", "F0 RMSE (cents)", -1, 0, "over frames voiced in both, octave errors in"
    ),
    Metric("vuv_error", "V/UV error", -1, 3, "share of active frames voiced in only one of both"),
    Metric(
        "mel_db", "mel dist. 0-8 kHz (dB)", -1, 2, "mean absolute log-mel difference, active frames"
    ),
    Metric("mel_4k_db", "mel dist. 0-4 kHz (dB)", -1, 2, "the same, bands up to 4 kHz"),
    Metric("level_error_db", "level error (dB)", -1, 2, "magnitude of the level difference"),
    Metric("gross_pitch_error", "gross pitch error", -1, 3, "share of frames more than 20 % off"),
    Metric("f0_range_ratio", "F0 range kept", 0, 2, "5-95 % range of log F0 over the original's"),
    Metric("energy_corr", "energy corr", 1, 3, "Pearson correlation of frame levels in dB"),
    Metric("level_diff_db", "level difference (dB)", 0, 2, "signed, degraded over original"),
    Metric(
        "ac_f0_corr",
        "F0 corr (autocorrelation)",
        1,
        3,
        "as F0 corr, both tracks by the best path through the autocorrelation",
    ),
    Metric("ac_f0_rmse_cents", "F0 RMSE (autocorrelation)", -1, 0, "likewise"),
    Metric("ac_vuv_error", "V/UV error (autocorrelation)", -1, 3, "likewise"),
    Metric("ac_gross_pitch_error", "gross pitch error (autocorrelation)", -1, 3, "likewise"),
    Metric("ac_f0_range_ratio", "F0 range kept (autocorrelation)", 0, 2, "likewise"),
)


@dataclass(frozen=True)
class Scores:
    """Metrics of one pair.

    Attributes:
        values: every metric of `METRICS`; NaN where it has no value.
        failures: for each NaN the reason in words.
    """

    values: dict[str, float]
    failures: dict[str, str] = field(default_factory=dict)


def pesq_wb(ref: np.ndarray, deg: np.ndarray) -> float:
    """PESQ wide-band (MOS-LQO) of 16 kHz waves.

    PESQ scales both to one level and finds delays itself.

    Raises:
        ValueError: PESQ refused the pair (too short, no utterance found); its words.
        ImportError: package pesq missing.
    """
    import pesq

    if not np.any(ref) or not np.any(deg):
        raise ValueError("one wave is silent")
    try:
        score = float(pesq.pesq(SAMPLE_RATE, ref, deg, "wb"))
    except pesq.PesqError as error:
        words = error.args[0] if error.args else type(error).__name__
        raise ValueError(words.decode() if isinstance(words, bytes) else str(words)) from error
    if not math.isfinite(score):
        raise ValueError(f"PESQ returned {score}")
    return score


def stoi(ref: np.ndarray, deg: np.ndarray, *, extended: bool = False) -> float:
    """STOI or ESTOI of 16 kHz waves (pystoi: silent frames of the original are left out).

    Raises:
        ValueError: under about 0.4 s of speech, for which it is undefined, or no finite result.
        ImportError: package pystoi missing.
    """
    import pystoi

    if not np.any(ref) or not np.any(deg):
        raise ValueError("one wave is silent")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        score = float(pystoi.stoi(ref, deg, SAMPLE_RATE, extended=extended))
    # pystoi answers 1e-5 with a warning: an average must not take that for a score
    if any("Not enough STFT frames" in str(w.message) for w in caught):
        raise ValueError("under 0.4 s of speech left after removing silent frames")
    if not math.isfinite(score):
        raise ValueError(f"STOI returned {score}")
    return score


def measure(ref: np.ndarray, deg: np.ndarray) -> Scores:
    """All metrics of `deg` `[n]` against `ref` `[n]`, 16 kHz, delay removed beforehand.

    F0 is tracked twice: by SwiftF0 (the headline: `python -m affectcodec.evaluation.trackers` shows
    why) and by the autocorrelation, from which codecs learn.
    Everything is taken on the active region of `ref` (see `alignment.active_region`): silence at
    both ends counts for nothing, and the region is the same for every codec.

    Raises:
        ValueError: waves of different lengths, not 1-D, or with NaN or inf.
        ImportError: a package is missing: pesq, pystoi or swift-f0.
    """
    ref, deg = np.asarray(ref, np.float32), np.asarray(deg, np.float32)
    if ref.ndim != 1 or ref.shape != deg.shape:
        raise ValueError(
            f"measure: wanted two waves of one length [n], got {ref.shape} and {deg.shape}; "
            "use align() first"
        )
    for name, wave in (("ref", ref), ("deg", deg)):
        if not np.isfinite(wave).all():
            raise ValueError(f"measure: {name} has NaN or infinite samples")
    region = active_region(ref)
    if region is None:
        nothing = {m.name: math.nan for m in METRICS}
        return Scores(nothing, dict.fromkeys(nothing, "the original is silent"))
    ref, deg = ref[slice(*region)], deg[slice(*region)]
    active = active_frames(ref)
    values: dict[str, float] = {}
    failures: dict[str, str] = {}
    for name, score in (
        ("pesq_wb", lambda: pesq_wb(ref, deg)),
        ("stoi", lambda: stoi(ref, deg)),
        ("estoi", lambda: stoi(ref, deg, extended=True)),
    ):
        try:
            values[name] = score()
        except ValueError as error:
            values[name], failures[name] = math.nan, str(error)
    trackers: tuple[tuple[str, Method], ...] = (("", HEADLINE), ("ac_", "autocorrelation"))
    for prefix, method in trackers:
        f0_ref, f0_deg = f0_track(ref, method), f0_track(deg, method)
        pitch = f0_metrics(f0_ref, f0_deg, spread_to_f0_frames(active, len(f0_ref)))
        values |= {prefix + name: value for name, value in pitch.items()}
    values |= mel_distances(ref, deg, active)
    values |= energy_metrics(ref, deg, active)
    for metric in METRICS:
        if math.isnan(values[metric.name]) and metric.name not in failures:
            failures[metric.name] = "undefined (too few voiced frames, or a constant contour)"
    return Scores({m.name: values[m.name] for m in METRICS}, failures)
