# SPDX-License-Identifier: Apache-2.0
"""Comparison of runs whose loss of emotion is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from affectcodec.evaluation import ablation_report
from affectcodec.evaluation.ablation import plan_runs
from affectcodec.evaluation.ablation_report import by_name, codecs_of, compare, markdown
from affectcodec.evaluation.assess import CLIP_METRICS
from affectcodec.evaluation.campaign import Measured, _identity
from affectcodec.evaluation.evaluate import Collected
from affectcodec.evaluation.judges import JUDGES
from affectcodec.manifest import Clip
from tests.training.sounds import tiny_run

pytest.importorskip("sklearn")

EMOTIONS = ("angry", "happy", "sad")
LABELS = ("rfsq-s1", "rfsq-s2", "bd-rfsq-s1", "bd-rfsq-s2")


def made_up() -> Collected:
    """Features are the emotion itself; `rfsq` confuses half of the angry clips, seed 2 all."""
    rng = np.random.default_rng(0)
    keys, values = {}, {}
    splits: dict[str, list[Clip]] = {"train": [], "test": []}
    for i in range(120):
        emotion = i % 3
        split = "train" if i < 60 else "test"
        clip = Clip(f"{i}", Path(f"{i}"), "made", f"{split}{i // 3 % 4}", emotion=EMOTIONS[emotion])
        splits[split].append(clip)
        for name in ("original", *(f"{label}:1.5" for label in LABELS)):
            seen = emotion
            if name == "rfsq-s1:1.5" and emotion == 0 and i % 2:
                seen = 1
            if name == "rfsq-s2:1.5" and emotion == 0:
                seen = 1
            key = f"{name}-{i}"
            keys[_identity(clip), name, "egemaps"] = key
            values[key] = (10.0 * np.eye(3)[seen] + rng.standard_normal(3)).astype("f4")
    metrics = {metric.name: {"mean": 0.5} for metric in CLIP_METRICS}
    results = {
        "metrics": {
            "all": {"codecs": {f"{o}:1.5": {"kbps": 1.5, "metrics": metrics} for o in LABELS}}
        }
    }
    measured = Measured(keys, values, {})
    return Collected(results, measured, [], splits["train"], splits["test"])


def test_labels_belong_to_configurations() -> None:
    assert by_name(["bd-rfsq+mrt-s1", "rvq-s2", "rvq-s1"]) == {
        "bd-rfsq+mrt": ["bd-rfsq+mrt-s1"],
        "rvq": ["rvq-s2", "rvq-s1"],
    }


def test_runs_with_blocks_are_compared_with_emotion_ahead_as_well() -> None:
    runs = [run for run in plan_runs(tiny_run(), seeds=1) if run.name in ("rvq", "bd-rfsq")]
    assert codecs_of(runs, 1.5) == {
        "rvq-s1": "rvq-s1:1.5",
        "bd-rfsq-s1": "bd-rfsq-s1:1.5",
        "bd-rfsq@lead-s1": "bd-rfsq-s1:1.5@lead",
    }


def test_known_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ablation_report, "JUDGES", JUDGES[:1])
    compared = compare(made_up(), {o: f"{o}:1.5" for o in LABELS}, 1.5)
    assert compared["task"] == "made"
    judge = compared["judges"]["egemaps_svm"]
    assert judge["original_uar"] == 1.0 and judge["clips"] == 60
    dense, blocks = (judge["configurations"][name] for name in ("rfsq", "bd-rfsq"))
    # half of a third, and a third: 5/6 and 2/3
    assert dense["kept"]["seeds"] == pytest.approx([5 / 6, 2 / 3])
    assert dense["kept"]["mean"] == pytest.approx(0.75)
    assert blocks["kept"]["mean"] == 1.0 and blocks["macro_degradation"]["mean"] == 0.0
    assert dense["macro_degradation"]["mean"] == pytest.approx(0.25)
    (pair,) = judge["differences"]
    assert (pair["first"], pair["second"]) == ("bd-rfsq", "rfsq")
    assert pair["kept"]["mean"] == pytest.approx(0.25) and pair["kept"]["low"] > 0.1
    dense = {"log-mel": 0.3, "shape": 0.2, "detail": 0.123}
    prosody = {"log-mel": 0.54, "shape": 0.16, "detail": 0.0}
    leakage = {"rfsq-s1": {"r2": dense, "prosody": prosody, "uar": 0.5}}
    page = markdown(compared, leakage, "2 runs", "affectcodec ablate x")
    for words in (
        "`bd-rfsq` - `rfsq`",
        "better",
        "0.667 to 0.833",
        "0.300",
        "0.123",
        "true prosody",
        "0.540",
        "2 runs",
    ):
        assert words in page
