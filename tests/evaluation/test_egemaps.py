# SPDX-License-Identifier: Apache-2.0
"""eGeMAPS of sounds whose features are known."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

pytest.importorskip("opensmile")

from affectcodec.evaluation.egemaps import GROUPS, feature_names, functionals, group_of


def voice(f0: float, level: float = 0.1, seconds: float = 1.5) -> np.ndarray:
    t = np.arange(int(16000 * seconds)) / 16000
    return (level * sum(np.sin(2 * np.pi * k * f0 * t) / k for k in range(1, 15))).astype("f4")


def named(wav: np.ndarray) -> dict[str, float]:
    return dict(zip(feature_names(), functionals(wav).tolist(), strict=True))


@pytest.mark.parametrize("f0", [110.0, 220.0, 330.0])
def test_pitch_of_a_tone(f0: float) -> None:
    found = named(voice(f0))["F0semitoneFrom27.5Hz_sma3nz_amean"]
    assert found == pytest.approx(12 * np.log2(f0 / 27.5), abs=0.2)


def test_louder_is_louder() -> None:
    soft, loud = named(voice(150.0, 0.02)), named(voice(150.0, 0.2))
    assert loud["loudness_sma3_amean"] > 1.5 * soft["loudness_sma3_amean"]
    rise = loud["equivalentSoundLevel_dBp"] - soft["equivalentSoundLevel_dBp"]
    assert rise == pytest.approx(20.0, abs=0.5)


def test_every_feature_has_a_group() -> None:
    counts = Counter(group_of(name) for name in feature_names())
    assert set(counts) == set(GROUPS) and sum(counts.values()) == 88
    assert counts["f0"] == 10 and counts["voice quality"] == 10 and counts["tempo"] == 6
    with pytest.raises(ValueError, match="no group"):
        group_of("something")


@pytest.mark.parametrize("length", [0, 1, 160, 3000])
def test_short_and_silent_waves_have_features(length: int) -> None:
    assert functionals(np.zeros(length, dtype=np.float32)).shape == (88,)
