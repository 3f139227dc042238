# SPDX-License-Identifier: Apache-2.0
"""From measured values to results: one JSON-able object with an interval on every figure.

    results = {
      "codecs": {name: {"kbps", "metrics": {metric: Estimate}, "failures"}},    by group of clips
      "concordance": {name: {eGeMAPS group: Estimate}},
      "words": {name: {"wer": Estimate, "cer": Estimate}},
      "emotion": {task: {judge: {...}}},
      "comparisons": [...],
    }

Emotion tasks: each labelled corpus for itself with its own classes, and `joint`, one judge over all
of them with the union of their classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from affectcodec.evaluation.bootstrap import draw_weights, estimate, interval
from affectcodec.evaluation.campaign import ORIGINAL, Measured, bitrate
from affectcodec.evaluation.concordance import egemaps_concordance
from affectcodec.evaluation.emotion import Decisions, emotion_scores, paired
from affectcodec.evaluation.judges import JUDGES, FittedJudge, Judge, fit
from affectcodec.evaluation.metrics import METRICS, Metric
from affectcodec.evaluation.speaker import similarity
from affectcodec.evaluation.words import count_errors, error_rate
from affectcodec.manifest import Clip

EXTRA_METRICS: tuple[Metric, ...] = (
    Metric("visqol", "ViSQOL", 1, 2, "MOS-LQO, speech mode, 1 to 5"),
    Metric("dnsmos_ovrl", "DNSMOS overall", 1, 2, "P.835, no reference, 1 to 5"),
    Metric("dnsmos_sig", "DNSMOS signal", 1, 2, "likewise"),
    Metric("dnsmos_bak", "DNSMOS background", 1, 2, "likewise"),
    Metric("speaker_similarity", "speaker similarity", 1, 3, "cosine of speaker embeddings"),
)
CLIP_METRICS = (*METRICS, *EXTRA_METRICS)
JOINT = "joint"
MIN_CLASSES = 3


def emotion_tasks(train: Sequence[Clip], clips: Sequence[Clip]) -> dict[str, tuple[str, ...]]:
    """Task -> datasets: those with three classes or more in both splits, and all of them joint."""

    def classes(some: Sequence[Clip], dataset: str) -> set[str]:
        return {clip.emotion for clip in some if clip.dataset == dataset and clip.emotion}

    fit_for = [
        name
        for name in sorted({clip.dataset for clip in train})
        if len(classes(train, name) & classes(clips, name)) >= MIN_CLASSES
        and len({clip.speaker for clip in train if clip.dataset == name}) >= 2
    ]
    tasks: dict[str, tuple[str, ...]] = {name: (name,) for name in fit_for}
    if len(fit_for) > 1:
        tasks[JOINT] = tuple(fit_for)
    return tasks


def labelled(clips: Sequence[Clip], datasets: Sequence[str]) -> list[Clip]:
    return [clip for clip in clips if clip.dataset in datasets and clip.emotion]


def _features(
    measured: Measured, clips: Sequence[Clip], codec: str, measure: str
) -> tuple[np.ndarray, list[int]]:
    """`[found, features]` and the indices of the clips that have them."""
    values = [measured.value(clip, codec, measure) for clip in clips]
    index = [i for i, value in enumerate(values) if isinstance(value, np.ndarray)]
    if not index:
        return np.zeros((0, 0)), []
    return np.stack([np.asarray(values[i]) for i in index]).astype(np.float64), index


def train_judge(
    judge: Judge, measured: Measured, train: Sequence[Clip], codec: str, c: float | None = None
) -> FittedJudge:
    """A judge on the training clips as `codec` left them (`original`: the recordings)."""
    features, index = _features(measured, train, codec, judge.measure)
    return fit(
        judge,
        features,
        [train[i].emotion for i in index],
        [f"{train[i].dataset}/{train[i].speaker}" for i in index],
        c=c,
    )


def assess_emotion(
    measured: Measured,
    train: Sequence[Clip],
    clips: Sequence[Clip],
    codecs: Sequence[str],
    *,
    judges: Sequence[Judge] = JUDGES,
    matched: Sequence[str] = (),
    comparisons: Sequence[tuple[str, str]] = (),
) -> dict[str, Any]:
    """All tasks and judges. `original` must be measured on both splits.

    Args:
        codecs: names to judge.
        judges: those whose measures were taken.
        matched: those whose training split is measured, too: gives `uar_matched`, a judge of the
            same C trained and tested on coded clips. What it still finds is still there; the rest
            of the loss is mismatch.
        comparisons: pairs for paired differences in `kept`.
    """
    out: dict[str, Any] = {}
    for task, datasets in emotion_tasks(train, clips).items():
        own_train, own_clips = labelled(train, datasets), labelled(clips, datasets)
        out[task] = {
            judge.name: _assess_judge(
                judge, measured, own_train, own_clips, codecs, matched, comparisons
            )
            for judge in judges
        }
    return out


@dataclass(frozen=True)
class Judged:
    """What one judge decided on the clips of one task.

    Attributes:
        fitted: the judge, trained on originals.
        clips: those that have features for every codec.
        weights: bootstrap draws `[replicates, clips]`.
        decisions: codec -> decisions; `original` among them.
        features: codec -> `[clips, features]`.
        left_out: clips without features for some codec.
    """

    fitted: FittedJudge
    clips: list[Clip]
    weights: np.ndarray
    decisions: dict[str, Decisions]
    features: dict[str, np.ndarray]
    left_out: int


def judge_clips(
    judge: Judge,
    measured: Measured,
    train: Sequence[Clip],
    clips: Sequence[Clip],
    codecs: Sequence[str],
) -> Judged:
    """Trains a judge on the originals of labelled training clips and lets it decide on every codec.

    Raises:
        ValueError: fewer than two classes or training speakers.
    """
    fitted = train_judge(judge, measured, train, ORIGINAL)
    known = [clip for clip in clips if clip.emotion in fitted.classes]
    # the same clips for every codec: one without features for any of them is left out for all
    there = set(range(len(known)))
    found = {}
    for name in dict.fromkeys((ORIGINAL, *codecs)):
        features, index = _features(measured, known, name, judge.measure)
        found[name] = dict(zip(index, features, strict=True))
        there &= set(index)
    rows = sorted(there)
    if not rows:
        raise ValueError(f"judge {judge.name}: no labelled clip has features for every codec")
    kept = [known[i] for i in rows]
    features_of = {name: np.stack([own[i] for i in rows]) for name, own in found.items()}
    truth = np.array([fitted.classes.index(clip.emotion) for clip in kept])
    on_original = fitted.decide(features_of[ORIGINAL])
    decisions = {
        name: Decisions(fitted.classes, truth, on_original, fitted.decide(features))
        for name, features in features_of.items()
    }
    weights = draw_weights([clip.speaker for clip in kept], [clip.dataset for clip in kept])
    return Judged(fitted, kept, weights, decisions, features_of, len(known) - len(kept))


def _assess_judge(
    judge: Judge,
    measured: Measured,
    train: list[Clip],
    clips: list[Clip],
    codecs: Sequence[str],
    matched: Sequence[str],
    comparisons: Sequence[tuple[str, str]],
) -> dict[str, Any]:
    judged = judge_clips(judge, measured, train, clips, codecs)
    fitted, weights, decisions = judged.fitted, judged.weights, judged.decisions
    genders = [clip.gender for clip in judged.clips]
    scores = {}
    for name, own in decisions.items():
        scores[name] = emotion_scores(own, genders, weights)
        if name in matched and name != ORIGINAL:
            again = train_judge(judge, measured, train, name, c=fitted.c)
            answers = again.decide(judged.features[name])
            coded = Decisions(fitted.classes, own.truth, own.original, answers)
            found = emotion_scores(coded, genders, weights)
            scores[name] |= {"uar_matched": found["uar"], "kept_matched": found["kept"]}
    return {
        "title": judge.title,
        "classes": list(fitted.classes),
        "c": fitted.c,
        "cross_validated_uar": fitted.cross_validated,
        "train_clips": len(train),
        "clips": len(judged.clips),
        "left_out": judged.left_out,
        "speakers": len({clip.speaker for clip in judged.clips}),
        "codecs": scores,
        "comparisons": [
            {"codec": a, "against": b, "kept": paired(decisions[a], decisions[b], weights)}
            for a, b in comparisons
            if a in decisions and b in decisions
        ],
    }


def assess_concordance(
    measured: Measured, clips: Sequence[Clip], codecs: Sequence[str]
) -> dict[str, Any]:
    """eGeMAPS concordance with the original by feature group, for each codec."""
    original, index = _features(measured, clips, ORIGINAL, "egemaps")
    there = set(index)
    found = {}
    for name in codecs:
        features, own = _features(measured, clips, name, "egemaps")
        found[name] = dict(zip(own, features, strict=True))
        there &= set(own)
    rows = sorted(there)
    if not rows:
        return {}
    kept = [clips[i] for i in rows]
    speakers = [f"{clip.dataset}/{clip.speaker}" for clip in kept]
    weights = draw_weights([clip.speaker for clip in kept], [clip.dataset for clip in kept])
    before = dict(zip(index, original, strict=True))
    reference = np.stack([before[i] for i in rows])
    out = {}
    for name in codecs:
        coded = np.stack([found[name][i] for i in rows])
        groups = egemaps_concordance(reference, coded, speakers, weights)
        out[name] = {group: asdict(value) for group, value in groups.items()}
    return out


def assess_words(
    measured: Measured,
    clips: Sequence[Clip],
    codecs: Sequence[str],
    comparisons: Sequence[tuple[str, str]] = (),
) -> dict[str, Any]:
    """WER and CER for each codec, over all clips with a transcript and by language."""
    spoken = [clip for clip in clips if clip.transcript]
    if not spoken:
        return {}
    counts = {}
    for name in codecs:
        rows: list[tuple[float, ...]] = []
        for clip in spoken:
            value = measured.value(clip, name, "transcript")
            if isinstance(value, dict):
                e = count_errors(clip.transcript, str(value["text"]), clip.language or "en")
                rows.append((e.word_edits, e.words, e.character_edits, e.characters))
            else:
                rows.append((np.nan,) * 4)
        counts[name] = np.array(rows, dtype=np.float64)
    languages = np.array([clip.language or "en" for clip in spoken])
    out: dict[str, Any] = {}
    groups = sorted(set(languages))
    for group in ("all", *(groups if len(groups) > 1 else ())):
        own = np.ones(len(spoken), dtype=bool) if group == "all" else languages == group
        some = [clip for clip, mine in zip(spoken, own, strict=True) if mine]
        weights = draw_weights([clip.speaker for clip in some], [clip.dataset for clip in some])
        entry: dict[str, Any] = {"clips": len(some), "codecs": {}, "comparisons": []}
        for name in codecs:
            edits = counts[name][own]
            entry["codecs"][name] = {
                "wer": asdict(error_rate(edits[:, 0], edits[:, 1], weights)),
                "cer": asdict(error_rate(edits[:, 2], edits[:, 3], weights)),
            }
        for a, b in comparisons:
            if a in counts and b in counts:
                entry["comparisons"].append(
                    {"codec": a, "against": b, "wer": _difference(counts, a, b, own, weights)}
                )
        out[group] = entry
    return out


def _difference(
    counts: Mapping[str, np.ndarray], a: str, b: str, own: np.ndarray, weights: np.ndarray
) -> dict[str, Any]:
    """Paired difference in WER over the clips that both have."""
    first, second = counts[a][own], counts[b][own]
    there = np.isfinite(first[:, 0]) & np.isfinite(second[:, 0])
    edits = np.where(there, first[:, 0] - second[:, 0], 0.0)
    words = np.where(there, first[:, 1], 0.0)
    if not words.sum():
        return asdict(interval(float("nan"), np.zeros(0), 0))
    replicates = (weights @ edits) / np.maximum(weights @ words, 1e-9)
    return asdict(interval(float(edits.sum() / words.sum()), replicates, int(there.sum())))


def clip_metrics(
    measured: Measured, clip: Clip, codec: str
) -> tuple[dict[str, float], dict[str, str]]:
    """Metrics of one clip through one codec, and the reasons of those that have none."""
    values: dict[str, float] = {}
    reasons: dict[str, str] = {}
    for measure in ("reconstruction", "visqol", "dnsmos"):
        found = measured.value(clip, codec, measure)
        if isinstance(found, dict):
            reasons |= found.get("failures", {})
            values |= {m.name: found[m.name] for m in CLIP_METRICS if m.name in found}
        elif reason := measured.reason(clip, codec, measure):
            reasons[measure] = reason
    voices = [measured.value(clip, name, "speaker") for name in (ORIGINAL, codec)]
    if all(isinstance(voice, np.ndarray) for voice in voices):
        values["speaker_similarity"] = similarity(np.asarray(voices[0]), np.asarray(voices[1]))
    elif reason := measured.reason(clip, codec, "speaker"):
        reasons["speaker_similarity"] = reason
    return values, reasons


def assess_metrics(
    measured: Measured,
    clips: Sequence[Clip],
    codecs: Sequence[str],
    comparisons: Sequence[tuple[str, str]] = (),
) -> dict[str, Any]:
    """Clip-wise metrics: mean and interval for each codec, over all clips and by dataset."""
    datasets = sorted({clip.dataset for clip in clips})
    groups: dict[str, list[Clip]] = {"all": list(clips)}
    if len(datasets) > 1:
        groups |= {name: [c for c in clips if c.dataset == name] for name in datasets}
    return {
        name: _assess_group(measured, some, codecs, comparisons) for name, some in groups.items()
    }


def _assess_group(
    measured: Measured,
    clips: list[Clip],
    codecs: Sequence[str],
    comparisons: Sequence[tuple[str, str]],
) -> dict[str, Any]:
    weights = draw_weights([clip.speaker for clip in clips], [clip.dataset for clip in clips])
    values: dict[str, dict[str, np.ndarray]] = {}
    out: dict[str, Any] = {
        "clips": len(clips),
        "speakers": len({clip.speaker for clip in clips}),
        "codecs": {},
        "comparisons": [],
    }
    for name in codecs:
        columns = {metric.name: np.full(len(clips), np.nan) for metric in CLIP_METRICS}
        failures: dict[str, Counter[str]] = {}
        for i, clip in enumerate(clips):
            found, reasons = clip_metrics(measured, clip, name)
            for metric_name, value in found.items():
                columns[metric_name][i] = value
            for metric_name, reason in reasons.items():
                failures.setdefault(metric_name, Counter())[reason] += 1
        values[name] = columns
        out["codecs"][name] = {
            "kbps": bitrate(measured, clips, name),
            "metrics": {m: asdict(estimate(v, weights)) for m, v in columns.items()},
            "failures": {m: dict(counts) for m, counts in sorted(failures.items())},
        }
    for a, b in comparisons:
        if a in values and b in values:
            out["comparisons"].append(
                {
                    "codec": a,
                    "against": b,
                    "difference": {
                        m.name: asdict(estimate(values[a][m.name] - values[b][m.name], weights))
                        for m in CLIP_METRICS
                    },
                }
            )
    return out
