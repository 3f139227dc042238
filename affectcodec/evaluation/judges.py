# SPDX-License-Identifier: Apache-2.0
"""Two emotion judges that never teach.

    judge         what it hears                                       classifier
    egemaps_svm   88 eGeMAPS functionals                              SVM, radial basis functions
    whisper_lr    mean and deviation of Whisper base's encoder        logistic regression

Each is trained on original recordings of the training speakers; its one free constant C is chosen
there, too, by cross-validation over speakers. No codec is trained with either, or with what they
hear. They disagree often enough that both have to be quoted.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

FOLDS = 5
SEED = 0


@dataclass(frozen=True)
class Judge:
    """One row of `JUDGES`: which measure it hears and which values of C it may choose."""

    name: str
    title: str
    measure: str
    kind: str
    grid: tuple[float, ...]


JUDGES: tuple[Judge, ...] = (
    Judge("egemaps_svm", "eGeMAPS + SVM", "egemaps", "svm", (0.3, 1.0, 3.0, 10.0)),
    Judge(
        "whisper_lr", "Whisper encoder + LR", "whisper", "lr", (0.0003, 0.001, 0.003, 0.01, 0.03)
    ),
)


@dataclass(frozen=True)
class FittedJudge:
    """A trained judge.

    Attributes:
        judge: which.
        classes: emotions in the order of the indices it answers.
        c: the chosen constant.
        cross_validated: UAR over held-out training speakers with it.
        model: scikit-learn pipeline.
    """

    judge: Judge
    classes: tuple[str, ...]
    c: float
    cross_validated: float
    model: Any

    def decide(self, features: np.ndarray) -> np.ndarray:
        """Index into `classes` of each clip, `[clips, features]` -> int `[clips]`."""
        if not len(features):
            return np.zeros(0, dtype=np.int64)
        return np.asarray(self.model.predict(np.asarray(features, np.float64)), dtype=np.int64)


def _pipeline(kind: str, c: float) -> Any:
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
        from sklearn.svm import SVC
    except ImportError as error:
        raise ImportError(
            "the judges need the package scikit-learn: pip install 'affectcodec[judges]'"
        ) from error
    if kind == "svm":
        classifier: Any = SVC(C=c, kernel="rbf", gamma="scale", class_weight="balanced")
    else:
        classifier = LogisticRegression(C=c, class_weight="balanced", max_iter=300)
    return make_pipeline(StandardScaler(), _clipper(), classifier)


@functools.cache
def _clipper() -> Any:
    """Standardised features beyond 10 deviations are outliers of a division by nearly 0."""
    from sklearn.preprocessing import FunctionTransformer

    return FunctionTransformer(_clip)


def _clip(features: np.ndarray) -> np.ndarray:
    return np.clip(features, -10.0, 10.0)


def uar(truth: np.ndarray, answer: np.ndarray, num_classes: int) -> float:
    """Unweighted average recall over the classes that occur in `truth`."""
    recalls = [
        float(np.mean(answer[truth == c] == c)) for c in range(num_classes) if np.any(truth == c)
    ]
    return float(np.mean(recalls)) if recalls else float("nan")


def fit(
    judge: Judge,
    features: np.ndarray,
    labels: Sequence[str],
    speakers: Sequence[str],
    *,
    c: float | None = None,
) -> FittedJudge:
    """Trains a judge; C is chosen by cross-validation that holds out whole speakers.

    Args:
        features: `[clips, features]` of original recordings.
        labels, speakers: one a clip.
        c: fixes C (no cross-validation).

    Raises:
        ValueError: lengths differ, fewer than two classes, or fewer than two speakers while C is
            to be chosen.
        ImportError: scikit-learn missing.
    """
    x = np.asarray(features, dtype=np.float64)
    if x.ndim != 2 or not len(x) == len(labels) == len(speakers):
        raise ValueError(
            f"judge {judge.name}: {x.shape} features for {len(labels)} labels and "
            f"{len(speakers)} speakers; wanted [clips, features] and one of each a clip"
        )
    classes = tuple(sorted(set(labels)))
    if len(classes) < 2:
        raise ValueError(f"judge {judge.name}: got the classes {list(classes)}, wanted two or more")
    y = np.array([classes.index(label) for label in labels])
    cross_validated = float("nan")
    if c is None:
        c, cross_validated = _choose(judge, x, y, speakers, len(classes))
    model = _pipeline(judge.kind, c).fit(x, y)
    return FittedJudge(judge, classes, c, cross_validated, model)


def _choose(
    judge: Judge, x: np.ndarray, y: np.ndarray, speakers: Sequence[str], num_classes: int
) -> tuple[float, float]:
    groups = np.unique(np.asarray(speakers), return_inverse=True)[1]
    count = int(groups.max()) + 1
    if count < 2:
        raise ValueError(
            f"judge {judge.name}: one training speaker, wanted two or more to choose C"
        )
    # whole speakers, dealt out like cards: deterministic, and every fold has some
    fold_of = groups % min(FOLDS, count)
    best = (-1.0, judge.grid[0])
    for c in judge.grid:
        answer = np.empty_like(y)
        for fold in range(min(FOLDS, count)):
            held = fold_of == fold
            answer[held] = _pipeline(judge.kind, c).fit(x[~held], y[~held]).predict(x[held])
        best = max(best, (uar(y, answer, num_classes), c), key=lambda pair: pair[0])
    return best[1], best[0]
