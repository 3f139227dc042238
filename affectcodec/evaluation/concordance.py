# SPDX-License-Identifier: Apache-2.0
"""Concordance of acoustic features between original and coded clips, by group.

Lin's concordance correlation (1989) over clips,

    ccc = 2 cov(x, y) / (var x + var y + (mean x - mean y)^2)

is 1 only where a feature keeps its value, not merely its order. Both sides are taken relative to
the mean of the speaker's originals: between a low and a high voice any codec agrees with the
original, and that would hide what happens within one speaker, where affect is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from affectcodec.evaluation.bootstrap import Estimate, interval
from affectcodec.evaluation.egemaps import GROUPS, feature_names, group_of

# Some functionals divide by a mean that may be near 0: single clips would decide everything.
_FENCE = 3.0  # interquartile ranges beyond the quartiles of the originals


def concordance(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Concordance of columns under each row of weights.

    Args:
        x, y: `[clips, features]`.
        weights: `[replicates, clips]`, at least 0.

    Returns:
        `[replicates, features]`, NaN where both sides are constant or nothing has weight.
    """
    total = weights.sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean_x, mean_y = weights @ x / total, weights @ y / total
        var_x = np.maximum(weights @ x**2 / total - mean_x**2, 0.0)
        var_y = np.maximum(weights @ y**2 / total - mean_y**2, 0.0)
        cov = weights @ (x * y) / total - mean_x * mean_y
        bottom = var_x + var_y + (mean_x - mean_y) ** 2
        return np.where(bottom > 1e-12, 2.0 * cov / bottom, np.nan)


def within_speaker(
    original: np.ndarray, coded: np.ndarray, speakers: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Both relative to the speaker's originals, in units of the originals' spread, fenced.

    Args:
        original, coded: `[clips, features]`, rows in the same order.
        speakers: one a clip.
    """
    x = np.asarray(original, dtype=np.float64).copy()
    y = np.asarray(coded, dtype=np.float64).copy()
    names = np.asarray(speakers)
    for name in np.unique(names):
        own = names == name
        centre = np.median(x[own], axis=0)
        x[own] -= centre
        y[own] -= centre
    low, high = np.percentile(x, [25, 75], axis=0)
    spread = np.maximum(high - low, 1e-9)
    fences = low - _FENCE * spread, high + _FENCE * spread
    return np.clip(x, *fences) / spread, np.clip(y, *fences) / spread


def egemaps_concordance(
    original: np.ndarray, coded: np.ndarray, speakers: Sequence[str], weights: np.ndarray
) -> dict[str, Estimate]:
    """Mean concordance of each eGeMAPS group and of all features (`all`), with intervals.

    Args:
        original, coded: functionals `[clips, 88]`.
        weights: `[replicates, clips]` of the bootstrap.
    """
    x, y = within_speaker(original, coded, speakers)
    groups = np.array([group_of(name) for name in feature_names()])
    ones = np.ones((1, len(x)))
    values, replicates = concordance(x, y, ones)[0], concordance(x, y, weights)
    out = {}
    for group in (*GROUPS, "all"):
        own = (groups == group) if group != "all" else np.ones(len(groups), dtype=bool)
        out[group] = interval(
            float(np.nanmean(values[own])), np.nanmean(replicates[:, own], axis=1), len(x)
        )
    return out
