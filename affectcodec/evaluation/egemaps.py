# SPDX-License-Identifier: Apache-2.0
"""eGeMAPS v02 functionals (88 a clip, by openSMILE) and the groups they fall into.

Eyben et al. 2016, "The Geneva Minimalistic Acoustic Parameter Set". The package opensmile is free
for research and not for commerce; nothing outside this folder imports it.
"""

from __future__ import annotations

import functools
import warnings
from typing import Any

import numpy as np

from affectcodec.evaluation.alignment import SAMPLE_RATE

NUM_FEATURES = 88
MIN_SAMPLES = SAMPLE_RATE // 5  # openSMILE gives NaN on less than one 60 ms pitch frame

# first fitting prefix decides
_GROUP_PREFIXES = (
    ("f0", ("F0semitone",)),
    ("loudness", ("loudness_", "equivalentSoundLevel")),
    ("voice quality", ("jitter", "shimmer", "HNR", "logRelF0")),
    ("formants", ("F1", "F2", "F3")),
    ("spectrum", ("spectralFlux", "mfcc", "alphaRatio", "hammarberg", "slope")),
    ("tempo", ("loudnessPeaks", "VoicedSegments", "Mean", "Stddev")),
)
GROUPS: tuple[str, ...] = tuple(name for name, _ in _GROUP_PREFIXES)


@functools.cache
def _smile() -> Any:
    try:
        import opensmile
    except ImportError as error:
        raise ImportError(
            "eGeMAPS needs the package opensmile: pip install 'affectcodec[judges]'"
        ) from error
    return opensmile.Smile(
        feature_set=opensmile.FeatureSet.eGeMAPSv02,
        feature_level=opensmile.FeatureLevel.Functionals,
    )


@functools.cache
def feature_names() -> tuple[str, ...]:
    """The 88 names in the order of `functionals`."""
    return tuple(str(name) for name in _smile().feature_names)


def group_of(feature: str) -> str:
    """Group of a feature by its openSMILE name.

    Raises:
        ValueError: a name of no group.
    """
    for group, prefixes in _GROUP_PREFIXES:
        if feature.startswith(prefixes):
            return group
    raise ValueError(f"eGeMAPS: {feature!r} belongs to no group of {list(GROUPS)}")


def functionals(wav: np.ndarray) -> np.ndarray:
    """float32 `[88]` of a 16 kHz wave `[n]`; a wave under 0.2 s is padded with silence to that.

    Raises:
        ValueError: openSMILE gave no finite features.
        ImportError: package opensmile missing.
    """
    wave = np.asarray(wav, dtype=np.float32)
    if len(wave) < MIN_SAMPLES:
        wave = np.pad(wave, (0, MIN_SAMPLES - len(wave)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        values = _smile().process_signal(wave, SAMPLE_RATE).to_numpy()[0].astype(np.float32)
    if not np.isfinite(values).all():
        raise ValueError(f"eGeMAPS: {int((~np.isfinite(values)).sum())} features are not finite")
    return np.asarray(values)
