# SPDX-License-Identifier: Apache-2.0
"""Paired bootstrap over speakers.

Clips of one speaker are no independent draws: with a handful of speakers, an interval over clips
alone says far too much. Each replicate draws speakers with replacement (within each dataset, so
the mix of corpora stays), then clips within each drawn speaker. All codecs see the same draws, so
a difference between two codecs loses what both share: that is the paired part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

REPLICATES = 2000


@dataclass(frozen=True)
class Estimate:
    """Mean over clips with a percentile interval; `count` clips had a value."""

    mean: float
    low: float
    high: float
    count: int


def draw_weights(
    speakers: Sequence[str],
    datasets: Sequence[str],
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> np.ndarray:
    """How often each clip is drawn in each replicate: `[replicates, clips]`, whole numbers."""
    if len(speakers) != len(datasets) or not len(speakers):
        raise ValueError(f"bootstrap: {len(speakers)} speakers for {len(datasets)} datasets")
    rng = np.random.default_rng(seed)
    owners: dict[str, dict[str, list[int]]] = {}
    for index, (dataset, speaker) in enumerate(zip(datasets, speakers, strict=True)):
        owners.setdefault(dataset, {}).setdefault(speaker, []).append(index)
    weights = np.zeros((replicates, len(speakers)))
    for by_speaker in owners.values():
        groups = [np.asarray(clips) for clips in by_speaker.values()]
        for row in weights:
            for pick in rng.integers(len(groups), size=len(groups)):
                clips = groups[pick]
                row[clips] += rng.multinomial(len(clips), np.full(len(clips), 1.0 / len(clips)))
    return weights


def estimate(values: np.ndarray, weights: np.ndarray, *, level: float = 0.95) -> Estimate:
    """Mean of `values` `[clips]` (NaN: left out) and its interval over `weights` `[r, clips]`."""
    values = np.asarray(values, dtype=np.float64)
    present = np.isfinite(values)
    if not present.any():
        return Estimate(np.nan, np.nan, np.nan, 0)
    totals = weights @ present
    # a replicate may have drawn only clips without a value
    kept = totals > 0
    means = (weights @ np.where(present, values, 0.0))[kept] / totals[kept]
    tail = 50.0 * (1.0 - level)
    low, high = np.percentile(means, [tail, 100.0 - tail])
    return Estimate(float(values[present].mean()), float(low), float(high), int(present.sum()))


def interval(value: float, replicates: np.ndarray, count: int, *, level: float = 0.95) -> Estimate:
    """A statistic that is no mean over clips, with the percentiles of its replicates (NaN: left
    out)."""
    kept = np.asarray(replicates)[np.isfinite(replicates)]
    if not len(kept) or not np.isfinite(value):
        return Estimate(float(value), np.nan, np.nan, count)
    tail = 50.0 * (1.0 - level)
    low, high = np.percentile(kept, [tail, 100.0 - tail])
    return Estimate(float(value), float(low), float(high), count)
