# SPDX-License-Identifier: Apache-2.0
"""From rows to results.json and a Markdown page."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from affectcodec.evaluation.bootstrap import REPLICATES, Estimate, draw_weights, estimate
from affectcodec.evaluation.metrics import METRICS, Metric
from affectcodec.evaluation.reconstruct import Delay, Row

_BY_NAME = {metric.name: metric for metric in METRICS}
MAIN_TABLE = (
    "pesq_wb",
    "stoi",
    "estoi",
    "f0_corr",
    "f0_rmse_cents",
    "vuv_error",
    "mel_db",
    "mel_4k_db",
    "level_error_db",
)
PROSODY_TABLE = (
    "gross_pitch_error",
    "f0_range_ratio",
    "energy_corr",
    "level_diff_db",
    "ac_f0_corr",
    "ac_f0_rmse_cents",
    "ac_vuv_error",
    "ac_gross_pitch_error",
)
COMPARED = (
    "stoi",
    "estoi",
    "pesq_wb",
    "f0_corr",
    "f0_rmse_cents",
    "vuv_error",
    "mel_db",
    "mel_4k_db",
)
NOTES = """\
How it was measured
- Every codec codes whole clips; the bitrate is its payload over the whole duration, silence and
  flushing frames in, containers and padding to whole bytes out.
- Each codec's delay (one constant, the median of the delays found on {calibration} clips) is
  removed. Metrics are taken on the active region of the original (first to last frame less than
  40 dB below the loudest, 100 ms on both sides), the same samples for every codec.
- Codec 2 works at 8 kHz: clips are resampled to 8 kHz for it and its output back to 16 kHz. The mel
  distance is therefore given over 0-8 kHz and over 0-4 kHz, Codec 2's own band; PESQ-WB judges the
  whole band. `narrowband` shows what 8 kHz costs by itself. `@-26`: each clip is brought to
  -26 dB, the level Codec 2 is made for, and back afterwards, at no bits.
- Mel distance: 80 bands, 25 ms windows each 10 ms, mean absolute difference in dB over active
  frames, bands more than 70 dB under the original's strongest left equal. It is level-sensitive.
- F0: 5 ms frames, 60-700 Hz, SwiftF0, a network that no codec learns from. Beside it the best path
  through the autocorrelation, from which codecs learn: a few octave jumps of its own weigh on its
  means. F0 corr and RMSE: over frames voiced in both (at least 20) in log F0, for each clip, then
  the mean over clips.
- Brackets: 95 % intervals, paired bootstrap ({replicates} replicates) over speakers within
  datasets, then clips within speakers.
"""


def summarise(
    rows: Sequence[Row], codecs: Sequence[str], comparisons: Sequence[tuple[str, str]]
) -> dict[str, Any]:
    """Estimates by codec, over all clips and by dataset, and paired differences.

    Args:
        rows: one for each clip and codec.
        codecs: names in the order wanted.
        comparisons: (codec, against) pairs; both in `codecs`.
    """
    datasets = sorted({row.dataset for row in rows})
    groups = {"all": rows}
    if len(datasets) > 1:
        groups |= {name: [row for row in rows if row.dataset == name] for name in datasets}
    return {name: _summarise(group, codecs, comparisons) for name, group in groups.items()}


def _summarise(
    rows: Sequence[Row], codecs: Sequence[str], comparisons: Sequence[tuple[str, str]]
) -> dict[str, Any]:
    by_codec = {
        name: {r.dataset + "/" + r.path: r for r in rows if r.codec == name} for name in codecs
    }
    clips = sorted(by_codec[codecs[0]])
    for name in codecs:
        if sorted(by_codec[name]) != clips:
            raise ValueError(f"{name} and {codecs[0]} were not run over the same clips")
    some = [by_codec[codecs[0]][clip] for clip in clips]
    weights = draw_weights([row.speaker for row in some], [row.dataset for row in some])
    values = {
        name: {
            metric.name: np.array([by_codec[name][clip].values[metric.name] for clip in clips])
            for metric in METRICS
        }
        for name in codecs
    }
    out: dict[str, Any] = {
        "clips": len(clips),
        "speakers": len({row.speaker for row in some}),
        "seconds": sum(row.seconds for row in some),
        "codecs": {},
        "comparisons": [],
    }
    for name in codecs:
        own = by_codec[name].values()
        failures: dict[str, Counter[str]] = {}
        for row in own:
            for metric_name, reason in row.failures.items():
                failures.setdefault(metric_name, Counter())[reason] += 1
        out["codecs"][name] = {
            "kbps": sum(row.bits for row in own) / sum(row.seconds for row in own) / 1000.0,
            "metrics": {m: asdict(estimate(v, weights)) for m, v in values[name].items()},
            "failures": {m: dict(counts) for m, counts in sorted(failures.items())},
        }
    for name, against in comparisons:
        differences = {
            metric.name: asdict(
                estimate(values[name][metric.name] - values[against][metric.name], weights)
            )
            for metric in METRICS
        }
        out["comparisons"].append({"codec": name, "against": against, "difference": differences})
    return out


def verdict(metric: Metric, difference: Mapping[str, float], clips: int) -> str:
    """One of better, worse, open.

    Open: the interval holds 0, the metric has no direction, or fewer than half of the clips have
    the metric for both codecs; those that do are then no fair sample.
    """
    if not metric.better or difference["count"] < max(1, clips / 2):
        return "open"
    low, high = sorted((metric.better * difference["low"], metric.better * difference["high"]))
    return "better" if low > 0 else "worse" if high < 0 else "open"


def _number(value: float, decimals: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{decimals}f}"


def _cell(metric: Metric, data: Mapping[str, Any], clips: int) -> str:
    e = Estimate(**data)
    if not e.count:
        return "-"
    mean, low, high = (_number(v, metric.decimals) for v in (e.mean, e.low, e.high))
    # a mean over fewer clips than its neighbours must show it
    few = f" (n={e.count})" if e.count < clips else ""
    return f"{mean} [{low}, {high}]{few}"


def _table(header: list[str], lines: list[list[str]]) -> str:
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _codec_table(group: Mapping[str, Any], columns: Sequence[str]) -> str:
    header = ["codec", "kbit/s", *(_BY_NAME[c].title for c in columns), "clips"]
    lines = []
    for name, codec in group["codecs"].items():
        cells = [_cell(_BY_NAME[c], codec["metrics"][c], group["clips"]) for c in columns]
        lines.append([f"`{name}`", f"{codec['kbps']:.2f}", *cells, str(group["clips"])])
    return _table(header, lines)


def markdown(
    summary: Mapping[str, Any], *, title: str, command: str, delays: Mapping[str, Delay]
) -> str:
    """The page: command, tables for all clips and each dataset, differences, failures, notes."""
    parts = [f"# {title}", f"```\n{command}\n```"]
    for name, group in summary.items():
        seconds = group["seconds"]
        heading = "All clips" if name == "all" else name
        parts.append(
            f"## {heading}: {group['clips']} clips, {group['speakers']} speaker(s), "
            f"{seconds / 60:.1f} minutes"
        )
        if group["speakers"] < 10:
            parts.append(
                f"{group['speakers']} speaker(s): the intervals show little of how speakers differ."
            )
        parts.append(_codec_table(group, MAIN_TABLE))
        parts.append(_codec_table(group, PROSODY_TABLE))
        if group["comparisons"]:
            header = ["difference (paired)", *(_BY_NAME[c].title for c in COMPARED)]
            lines = []
            for pair in group["comparisons"]:
                cells = []
                for column in COMPARED:
                    metric, difference = _BY_NAME[column], pair["difference"][column]
                    cell = _cell(metric, difference, group["clips"])
                    cells.append(f"{cell} {verdict(metric, difference, group['clips'])}")
                lines.append([f"`{pair['codec']}` - `{pair['against']}`", *cells])
            parts.append(_table(header, lines))
    failed = [
        f"- `{name}`: {_BY_NAME[metric].title}: "
        + "; ".join(f"{count} x {reason}" for reason, count in reasons.items())
        for name, codec in summary["all"]["codecs"].items()
        for metric, reasons in codec["failures"].items()
    ]
    parts.append("Clips without a value (left out of the means marked n)\n" + "\n".join(failed))
    if not failed:
        parts[-1] = "Every metric had a value on every clip."
    parts.append(
        "Delay removed (samples at 16 kHz; lowest and highest found on one clip): "
        + ", ".join(f"`{n}` {d.samples} ({d.lowest} to {d.highest})" for n, d in delays.items())
    )
    calibration = max((delay.clips for delay in delays.values()), default=0)
    parts.append(NOTES.format(calibration=calibration, replicates=REPLICATES).rstrip())
    return "\n\n".join(parts) + "\n"
