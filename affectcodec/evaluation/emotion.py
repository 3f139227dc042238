# SPDX-License-Identifier: Apache-2.0
"""What coding does to recognised emotion.

Of the decisions of one judge on the same clips, original and coded:

    uar                 unweighted average recall, on coded
    kept                uar on coded over uar on originals
    degradation         (a_o - a_c) / a_o, a the share of clips decided rightly
    macro_degradation   mean over classes of (r_o - r_c) / r_o, r the recall of a class on originals
                        and coded, of the classes that the judge hears on originals better than by
                        chance (1 / classes): a fraction of nearly nothing tells nothing. Gains
                        count as negative: clipping them would find degradation in noise.
    lost                mean over classes of the share of clips, right on the original, that are
                        wrong when coded
    agreement           share of clips with the same decision on original and coded

Every one comes with a paired bootstrap interval over speakers: both sides of a ratio see the same
draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from affectcodec.evaluation.bootstrap import interval

STATISTICS = ("uar", "kept", "degradation", "macro_degradation", "lost", "agreement")


@dataclass(frozen=True)
class Decisions:
    """Decisions of one judge; all arrays int `[clips]`, indices into `classes`."""

    classes: tuple[str, ...]
    truth: np.ndarray
    original: np.ndarray
    coded: np.ndarray

    def __post_init__(self) -> None:
        if not self.truth.shape == self.original.shape == self.coded.shape:
            raise ValueError(
                f"decisions: {self.truth.shape} labels, {self.original.shape} decisions on "
                f"originals, {self.coded.shape} on coded; wanted one of each a clip"
            )


def recalls(
    truth: np.ndarray, answer: np.ndarray, num_classes: int, weights: np.ndarray
) -> np.ndarray:
    """Recall of each class under each row of weights `[r, clips]`: `[r, classes]`, NaN: absent."""
    one_hot = truth[:, None] == np.arange(num_classes)
    right = one_hot & (answer == truth)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        return (weights @ right) / (weights @ one_hot)


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis without NaN; NaN where nothing is left."""
    present = np.isfinite(values)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(present, values, 0.0).sum(axis=-1) / present.sum(axis=-1)


def statistics(decisions: Decisions, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Each of `STATISTICS` under each row of weights `[r, clips]`: `[r]`."""
    d, count = decisions, len(decisions.classes)
    before = recalls(d.truth, d.original, count, weights)
    after = recalls(d.truth, d.coded, count, weights)
    one_hot = d.truth[:, None] == np.arange(count)
    was_right = one_hot & (d.original == d.truth)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        kept = _mean(after) / _mean(before)
        right_before = weights @ (d.original == d.truth)
        right_after = weights @ (d.coded == d.truth)
        heard = recalls(d.truth, d.original, count, np.ones((1, len(d.truth)))) > 1.0 / count
        degradation = (right_before - right_after) / right_before
        relative = np.where(heard & (before > 0), (before - after) / before, np.nan)
        gone = (weights @ (was_right & (d.coded != d.truth)[:, None])) / (weights @ was_right)
        agreement = (weights @ (d.original == d.coded)) / weights.sum(axis=1)
    return {
        "uar": _mean(after),
        "kept": kept,
        "degradation": degradation,
        "macro_degradation": _mean(relative),
        "lost": _mean(gone),
        "agreement": agreement,
    }


def emotion_scores(
    decisions: Decisions, genders: Sequence[str], weights: np.ndarray
) -> dict[str, Any]:
    """Statistics with intervals, recall by class and gender, and the confusion matrix on coded.

    Args:
        genders: one a clip, "" where unknown.
        weights: `[replicates, clips]` of the bootstrap.

    Returns:
        JSON-able: one `Estimate` as a mapping for each of `STATISTICS`; `recall` and
        `recall_original` by class; `by_gender` with uar and kept; `confusion` `[true][decided]`.
    """
    d, count = decisions, len(decisions.classes)
    once = np.ones((1, len(d.truth)))
    values, replicates = statistics(d, once), statistics(d, weights)
    out: dict[str, Any] = {
        name: asdict(interval(float(values[name][0]), replicates[name], len(d.truth)))
        for name in STATISTICS
    }
    by_class: tuple[tuple[str, np.ndarray], ...] = (
        ("recall", d.coded),
        ("recall_original", d.original),
    )
    for name, answer in by_class:
        own, drawn = (recalls(d.truth, answer, count, w) for w in (once, weights))
        out[name] = {
            emotion: asdict(interval(float(own[0, c]), drawn[:, c], int(np.sum(d.truth == c))))
            for c, emotion in enumerate(d.classes)
        }
    out["by_gender"] = {}
    for gender in sorted(set(genders) - {""}):
        where = np.asarray(genders) == gender
        part = Decisions(d.classes, d.truth[where], d.original[where], d.coded[where])
        own_values = statistics(part, np.ones((1, int(where.sum()))))
        own_replicates = statistics(part, weights[:, where])
        out["by_gender"][gender] = {
            name: asdict(
                interval(float(own_values[name][0]), own_replicates[name], len(part.truth))
            )
            for name in ("uar", "kept")
        }
    confusion = np.zeros((count, count), dtype=int)
    np.add.at(confusion, (d.truth, d.coded), 1)
    out["confusion"] = confusion.tolist()
    return out


def paired(
    first: Decisions, second: Decisions, weights: np.ndarray, name: str = "kept"
) -> dict[str, float]:
    """Difference of one statistic between two codecs, judged on the same clips, with interval."""

    def compute(decisions: Decisions, draws: np.ndarray) -> np.ndarray:
        return statistics(decisions, draws)[name]

    once = np.ones((1, len(first.truth)))
    value = float(compute(first, once)[0] - compute(second, once)[0])
    replicates = compute(first, weights) - compute(second, weights)
    return asdict(interval(value, replicates, len(first.truth)))
