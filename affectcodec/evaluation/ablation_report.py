# SPDX-License-Identifier: Apache-2.0
"""Trained ablations compared: emotion kept by both judges, leakage, and the other figures.

Seeds of a configuration are averaged inside every bootstrap draw, so an interval is over speakers
and clips; how far seeds lie apart is shown beside it as their lowest and highest value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from affectcodec.evaluation import lead
from affectcodec.evaluation.ablation import Run
from affectcodec.evaluation.assess import JOINT, emotion_tasks, judge_clips, labelled
from affectcodec.evaluation.bootstrap import interval
from affectcodec.evaluation.emotion import statistics
from affectcodec.evaluation.evaluate import Collected
from affectcodec.evaluation.judges import JUDGES
from affectcodec.evaluation.tables import cell, number, table, verdict

FULL = "bd-rfsq+mrt+cem"
AHEAD = f"@{lead.ENGINE}"  # which blocks alone can be
_PARTS = (
    ("bd-rfsq", "rfsq"),
    ("bd-rfsq", "rvq"),
    (FULL, "bd-rfsq+mrt"),
    (FULL, "bd-rfsq"),
    (FULL, "rfsq"),
    (FULL, "rvq"),
)
# better first: what the method promises; then blocks with emotion ahead, against blocks as ahead
# and against what has none
PAIRS = (
    *_PARTS,
    (f"bd-rfsq{AHEAD}", "bd-rfsq"),
    *((a + AHEAD, b + AHEAD if b.startswith("bd-") else b) for a, b in _PARTS),
)
SHOWN = ("f0_corr", "vuv_error", "pesq_wb", "stoi", "mel_db")


def by_name(labels: Sequence[str]) -> dict[str, list[str]]:
    """Configuration -> its labels: `bd-rfsq-s2` belongs to `bd-rfsq`."""
    out: dict[str, list[str]] = {}
    for label in labels:
        out.setdefault(label.rpartition("-s")[0], []).append(label)
    return out


def over_seeds(values: Sequence[np.ndarray]) -> np.ndarray:
    """Mean over seeds, draw by draw."""
    return np.asarray(np.mean(np.stack(list(values)), axis=0))


def codecs_of(runs: Sequence[Run], kbps: float) -> dict[str, str]:
    """Label -> codec name of every run at a rate; runs with blocks with emotion ahead as well."""
    plain = {run.label: f"{run.label}:{kbps:g}" for run in runs}
    ahead = {
        f"{run.name}{AHEAD}-s{run.seed}": f"{run.label}:{kbps:g}{AHEAD}"
        for run in runs
        if run.config.codec.quantizer.has_blocks
    }
    return {**plain, **ahead}


def compare(
    found: Collected, codec: Mapping[str, str], kbps: float, measures: Sequence[str] = ()
) -> dict[str, Any]:
    """Figures of every configuration and paired differences.

    Args:
        codec: label -> codec that was measured, as of `codecs_of`.
        measures: what was measured, for the judges of it (default: all judges).
    """
    labels = list(codec)
    names = by_name(labels)
    tasks = emotion_tasks(found.train, found.clips)
    task = JOINT if JOINT in tasks else next(iter(tasks), None)
    out: dict[str, Any] = {"kbps": kbps, "task": task, "judges": {}, "metrics": {}}
    everyone = found.results["metrics"]["all"]["codecs"]
    words = found.results.get("words", {}).get("all", {}).get("codecs", {})
    for name, own in names.items():
        measured = everyone[codec[own[0]]]["metrics"]
        entry = {
            metric: float(np.mean([everyone[codec[o]]["metrics"][metric]["mean"] for o in own]))
            for metric in SHOWN
            if metric in measured
        }
        if words:
            entry["wer"] = float(np.mean([words[codec[o]]["wer"]["mean"] for o in own]))
        entry["kbps"] = float(np.mean([everyone[codec[o]]["kbps"] for o in own]))
        out["metrics"][name] = entry
    if task is None:
        return out
    for judge in JUDGES:
        if measures and judge.measure not in measures:
            continue
        judged = judge_clips(
            judge,
            found.measured,
            labelled(found.train, tasks[task]),
            labelled(found.clips, tasks[task]),
            list(codec.values()),
        )
        once = np.ones((1, len(judged.clips)))
        drawn, own_values = {}, {}
        for label in labels:
            decisions = judged.decisions[codec[label]]
            drawn[label] = statistics(decisions, judged.weights)
            own_values[label] = statistics(decisions, once)
        configurations: dict[str, dict[str, Any]] = {}
        differences = []
        for name, own in names.items():
            scores: dict[str, Any] = {}
            for key in ("uar", "kept", "macro_degradation"):
                seeds = [float(own_values[o][key][0]) for o in own]
                spread = over_seeds([drawn[o][key] for o in own])
                value = interval(float(np.mean(seeds)), spread, len(judged.clips))
                scores[key] = {**asdict(value), "seeds": seeds}
            configurations[name] = scores
        for first, second in PAIRS:
            if first in names and second in names:
                apart = (
                    configurations[first]["kept"]["mean"] - configurations[second]["kept"]["mean"]
                )
                spread = over_seeds([drawn[o]["kept"] for o in names[first]]) - over_seeds(
                    [drawn[o]["kept"] for o in names[second]]
                )
                kept = asdict(interval(apart, spread, len(judged.clips)))
                differences.append({"first": first, "second": second, "kept": kept})
        out["judges"][judge.name] = {
            "title": judge.title,
            "clips": len(judged.clips),
            "original_uar": float(statistics(judged.decisions["original"], once)["uar"][0]),
            "configurations": configurations,
            "differences": differences,
        }
    return out


def markdown(
    compared: Mapping[str, Any], leakage: Mapping[str, Mapping[str, Any]], budget: str, command: str
) -> str:
    """The page: budget, emotion by both judges, differences, leakage, other figures."""
    parts = [
        f"# Ablations at {compared['kbps']:g} kbit/s",
        f"```\n{command}\n```",
        f"```\n{budget}\n```",
    ]
    for judge in compared["judges"].values():
        parts.append(
            f"## Emotion, {compared['task']}: {judge['title']} (UAR on originals "
            f"{judge['original_uar']:.3f}, {judge['clips']} clips)"
        )
        lines = []
        for name, entry in judge["configurations"].items():
            seeds = entry["kept"]["seeds"]
            apart = f"{min(seeds):.3f} to {max(seeds):.3f}" if len(seeds) > 1 else "-"
            lines.append(
                [
                    f"`{name}`",
                    str(len(seeds)),
                    cell(entry["uar"], 3),
                    cell(entry["kept"], 3),
                    apart,
                    cell(entry["macro_degradation"], 3),
                ]
            )
        header = ["configuration", "seeds", "UAR", "kept", "kept by seed", "macro degradation"]
        parts.append(table(header, lines))
        lines = [
            [
                f"`{pair['first']}` - `{pair['second']}`",
                cell(pair["kept"], 3),
                verdict(pair["kept"], 1),
            ]
            for pair in judge["differences"]
        ]
        if lines:
            parts.append(table(["kept, difference (paired)", "", ""], lines))
    if leakage:
        parts.append("## Leakage of the emotion tokens, all stages")
        lines = [
            [
                f"`{label}`",
                number(own["r2"]["detail"], 3),
                number(own["r2"]["shape"], 3),
                number(own["r2"]["log-mel"], 3),
                number(own["uar"], 3),
            ]
            for label, own in leakage.items()
        ]
        prosody = next(iter(leakage.values())).get("prosody", {})
        said = [number(prosody.get(target), 3) for target in ("detail", "shape", "log-mel")]
        lines.append(["true prosody", *said, "-"])
        parts.append(
            table(
                [
                    "run",
                    "R2 of spectral detail from emotion tokens",
                    "of log-mel without its level",
                    "of log-mel",
                    "UAR from acoustic tokens",
                ],
                lines,
            )
        )
        parts.append(
            "Detail is the log-mel spectrum less what energy, voicing and F0 of the original "
            "explain of it (the last row): those are taught to the emotion block."
        )
    known = {column for own in compared["metrics"].values() for column in own}
    columns = [column for column in (*SHOWN, "wer") if column in known]
    if columns:
        lines = [
            [f"`{name}`", number(own["kbps"], 2), *(number(own.get(c), 3) for c in columns)]
            for name, own in compared["metrics"].items()
        ]
        parts.append("## Other figures")
        parts.append(table(["configuration", "kbit/s", *columns], lines))
    parts.append(
        "Intervals: 95 %, paired bootstrap over speakers and clips, seeds averaged in every draw; "
        "how far seeds lie apart stands beside them."
    )
    return "\n\n".join(parts) + "\n"
