# SPDX-License-Identifier: Apache-2.0
"""Results as Markdown tables: emotion first, then prosody, words and quality."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from affectcodec.evaluation.assess import CLIP_METRICS
from affectcodec.evaluation.bootstrap import REPLICATES
from affectcodec.evaluation.egemaps import GROUPS

_BY_NAME = {metric.name: metric for metric in CLIP_METRICS}
PROSODY = (
    "f0_corr",
    "f0_rmse_cents",
    "gross_pitch_error",
    "vuv_error",
    "f0_range_ratio",
    "energy_corr",
    "level_diff_db",
)
QUALITY = ("pesq_wb", "stoi", "estoi", "visqol", "dnsmos_ovrl", "speaker_similarity")
SPECTRUM = ("mel_db", "mel_4k_db", "dnsmos_sig", "dnsmos_bak")
AUTOCORRELATION = ("ac_f0_corr", "ac_f0_rmse_cents", "ac_vuv_error", "ac_gross_pitch_error")
COMPARED = ("f0_corr", "vuv_error", "pesq_wb", "stoi", "estoi", "visqol", "speaker_similarity")
NOTES = f"""\
How it was measured
- Whole clips are coded; kbit/s is the payload over the whole duration, silence and flushing frames
  in, containers and padding to whole bytes out.
- A codec's delay is one constant (the median over the clips that ship with the package) and is
  removed. Everything is taken where the original speaks: first to last frame less than 40 dB below
  the loudest, 100 ms on both sides, the same samples for every codec.
- The judges learned on original recordings of other speakers. UAR: unweighted average recall; kept:
  UAR coded over UAR original; degradation: relative loss of right decisions; macro degradation:
  mean over classes heard better than by chance of the relative loss of recall, gains counted
  against losses; lost: clips right on the original that are wrong when coded, mean
  over classes; agreement: same decision as on the original; UAR-M: the judge trained on coded
  speech.
- Concordance: Lin's, of eGeMAPS functionals relative to the speaker's mean, averaged by group.
- F0: 5 ms frames, 60-700 Hz, by SwiftF0, from which no codec learns; beside it by the best path
  through the autocorrelation, from which codecs learn.
- WER and CER: by Whisper base, all errors over all words. A recogniser errs on originals, too.
- Brackets: 95 % intervals, paired bootstrap ({REPLICATES} replicates) over speakers within
  datasets, then clips within speakers. Few speakers show little of how speakers differ."""


def table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def number(value: float | None, decimals: int) -> str:
    """The value, or a dash for NaN and None."""
    return "-" if value is None or math.isnan(value) else f"{value:.{decimals}f}"


def cell(entry: Mapping[str, Any], decimals: int, clips: int | None = None) -> str:
    """`mean [low, high]`, with the count where it is smaller than `clips`."""
    if not entry["count"]:
        return "-"
    mean, low, high = (number(entry[name], decimals) for name in ("mean", "low", "high"))
    few = f" (n={entry['count']})" if clips is not None and entry["count"] < clips else ""
    return f"{mean} [{low}, {high}]{few}"


def verdict(entry: Mapping[str, Any], better: int) -> str:
    """better, worse or open: on which side of 0 the interval of a difference lies, if on one."""
    low, high = entry["low"], entry["high"]
    if not better or low is None or high is None or math.isnan(low) or math.isnan(high):
        return "open"
    low, high = sorted((better * low, better * high))
    return "better" if low > 0 else "worse" if high < 0 else "open"


def markdown(results: Mapping[str, Any]) -> str:
    """The page."""
    parts = [f"# Evaluation, {results['split']} split", f"```\n{results['command']}\n```"]
    everyone = results["metrics"]["all"]
    rates = {name: codec["kbps"] for name, codec in everyone["codecs"].items()}
    for task, judges in results.get("emotion", {}).items():
        for judge in judges.values():
            parts += _emotion(task, judge, rates)
    if results.get("concordance"):
        parts.append("## Concordance of eGeMAPS features with the original")
        header = ["codec", "kbit/s", "all", *GROUPS]
        lines = [
            [f"`{name}`", number(rates[name], 2), *(cell(own[g], 3) for g in ("all", *GROUPS))]
            for name, own in results["concordance"].items()
        ]
        parts.append(table(header, lines))
    for language, words in results.get("words", {}).items():
        heading = "Words" if language == "all" else f"Words: {language}"
        parts.append(f"## {heading}, {words['clips']} clips")
        lines = [
            [f"`{name}`", number(rates[name], 2), cell(own["wer"], 3), cell(own["cer"], 3)]
            for name, own in words["codecs"].items()
        ]
        parts.append(table(["codec", "kbit/s", "WER", "CER"], lines))
        parts += _comparisons(words["comparisons"], "wer", "WER", -1)
    for name, group in results["metrics"].items():
        heading = "All clips" if name == "all" else name
        parts.append(f"## {heading}: {group['clips']} clips, {group['speakers']} speaker(s)")
        parts += [
            _metrics(group, columns) for columns in (PROSODY, QUALITY, SPECTRUM, AUTOCORRELATION)
        ]
        if group["comparisons"]:
            parts.append(_metric_comparisons(group))
    parts.append(_failures(everyone))
    parts.append(
        "Delay removed (samples at 16 kHz; lowest and highest found on one clip): "
        + ", ".join(
            f"`{name}` {delay['samples']} ({delay['lowest']} to {delay['highest']})"
            for name, delay in results["delays"].items()
        )
    )
    parts.append(NOTES)
    return "\n\n".join(part for part in parts if part) + "\n"


def _emotion(task: str, judge: Mapping[str, Any], rates: Mapping[str, float]) -> list[str]:
    parts = [
        f"## Emotion, {task}: {judge['title']}",
        f"{len(judge['classes'])} classes, {judge['clips']} clips of {judge['speakers']} "
        f"speaker(s); trained on {judge['train_clips']} clips, UAR over held-out training speakers "
        f"{judge['cross_validated_uar']:.3f} (C = {judge['c']:g}).",
    ]
    columns = ("uar", "kept", "degradation", "macro_degradation", "lost", "agreement")
    titles = ["UAR", "kept", "degradation", "macro degradation", "lost", "agreement"]
    matched = any("uar_matched" in codec for codec in judge["codecs"].values())
    genders = sorted({g for codec in judge["codecs"].values() for g in codec["by_gender"]})
    header = ["codec", "kbit/s", *titles, *(["UAR-M"] if matched else [])]
    header += [f"kept, {gender}" for gender in genders]
    lines = []
    for name, codec in judge["codecs"].items():
        line = [f"`{name}`", number(rates.get(name), 2), *(cell(codec[c], 3) for c in columns)]
        if matched:
            line.append(cell(codec["uar_matched"], 3) if "uar_matched" in codec else "-")
        line += [
            cell(codec["by_gender"][g]["kept"], 2) if g in codec["by_gender"] else "-"
            for g in genders
        ]
        lines.append(line)
    parts.append(table(header, lines))
    lines = [
        [f"`{name}`", *(number(codec["recall"][c]["mean"], 2) for c in judge["classes"])]
        for name, codec in judge["codecs"].items()
    ]
    parts.append(table(["recall by class", *judge["classes"]], lines))
    parts += _comparisons(judge["comparisons"], "kept", "kept", 1)
    return parts


def _comparisons(
    pairs: Sequence[Mapping[str, Any]], name: str, title: str, better: int
) -> list[str]:
    if not pairs:
        return []
    lines = [
        [
            f"`{pair['codec']}` - `{pair['against']}`",
            cell(pair[name], 3),
            verdict(pair[name], better),
        ]
        for pair in pairs
    ]
    return [table([f"{title}, difference (paired)", "", ""], lines)]


def _metrics(group: Mapping[str, Any], columns: Sequence[str]) -> str:
    columns = [
        c for c in columns if any(own["metrics"][c]["count"] for own in group["codecs"].values())
    ]
    if not columns:
        return ""
    header = ["codec", "kbit/s", *(_BY_NAME[c].title for c in columns)]
    lines = []
    for name, codec in group["codecs"].items():
        cells = [cell(codec["metrics"][c], _BY_NAME[c].decimals, group["clips"]) for c in columns]
        lines.append([f"`{name}`", number(codec["kbps"], 2), *cells])
    return table(header, lines)


def _metric_comparisons(group: Mapping[str, Any]) -> str:
    lines = []
    columns = [
        c for c in COMPARED if any(p["difference"][c]["count"] for p in group["comparisons"])
    ]
    if not columns:
        return ""
    header = ["difference (paired)", *(_BY_NAME[c].title for c in columns)]
    for pair in group["comparisons"]:
        cells = []
        for column in columns:
            metric, entry = _BY_NAME[column], pair["difference"][column]
            # those few clips that have the metric for both are no fair sample
            fair = entry["count"] >= max(1, group["clips"] / 2)
            says = verdict(entry, metric.better) if fair else "open"
            cells.append(f"{cell(entry, metric.decimals, group['clips'])} {says}")
        lines.append([f"`{pair['codec']}` - `{pair['against']}`", *cells])
    return table(header, lines)


def _failures(group: Mapping[str, Any]) -> str:
    lines = [
        f"- `{name}`: {_BY_NAME[metric].title if metric in _BY_NAME else metric}: "
        + "; ".join(f"{count} x {reason}" for reason, count in reasons.items())
        for name, codec in group["codecs"].items()
        for metric, reasons in codec["failures"].items()
    ]
    if not lines:
        return "Every metric had a value on every clip."
    return "Clips without a value (left out of the means marked n)\n" + "\n".join(lines)
