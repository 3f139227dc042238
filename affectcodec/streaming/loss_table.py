# SPDX-License-Identifier: Apache-2.0
"""What packet loss costs: ``python -m affectcodec.streaming.loss_table DATA --split dev``.

Clips are coded in packets of one frame, packets are lost by a seeded model, and each way of
concealment decodes the same losses. Scores are of the decoded audio against the original, those of
pitch by the first tracker of `affectcodec evaluate` (extra `eval`); beside their means stand the
paired differences of the prediction to frame repetition and to silence, with bootstrap intervals
over clips. Recovery is the distance to the undisturbed decoding, by the number of frames since the
last loss.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field
from pathlib import Path

import click
import numpy as np
import torch
from tqdm import tqdm

from affectcodec.audio import load_audio
from affectcodec.codec import AffectCodec
from affectcodec.evaluation.alignment import active_frames
from affectcodec.evaluation.bootstrap import REPLICATES, Estimate, estimate
from affectcodec.evaluation.metrics import pesq_wb, stoi
from affectcodec.evaluation.pitch import HEADLINE, f0_metrics, f0_track, spread_to_f0_frames
from affectcodec.manifest import read_manifest
from affectcodec.pages import replace_part
from affectcodec.streaming import StreamingDecoder, StreamingEncoder
from affectcodec.streaming.concealment import CONCEALMENTS
from affectcodec.streaming.engine import Floats
from affectcodec.streaming.loss import LossModel
from affectcodec.streaming.loss_scores import contour_correlation, frame_error, lost_f0_frames

SCORES = ("pesq_wb", "stoi", "f0_contour", "f0_corr", "vuv_error", "lost_pitch")
COMPARED = ("pesq_wb", "stoi", "f0_contour", "lost_pitch")
TITLES = {
    "pesq_wb": "PESQ-WB",
    "stoi": "STOI",
    "f0_contour": "F0 contour",
    "f0_corr": "F0 corr, voiced in both",
    "vuv_error": "V/UV error",
    "lost_pitch": "pitch error in losses",
}
NAMES = {"repeat": "frame repetition", "silence": "silence"}
RECOVERY_FRAMES = 10
_MARKERS = ("<!-- streaming:loss -->", "<!-- /streaming -->")
_HEAD_FRAMES = 3  # never lost: a stream that never began cannot be concealed


@dataclass
class Row:
    """Scores of one model of loss and one concealment, a value a clip."""

    rate: float
    mean_burst: float
    concealment: str
    scores: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in SCORES})
    recovery: list[list[float]] = field(
        default_factory=lambda: [[] for _ in range(RECOVERY_FRAMES)]
    )

    def mean(self, name: str) -> float:
        """Mean over the clips for which the score is defined."""
        values = np.array(self.scores[name])
        return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def decode(decoder: StreamingDecoder, packets: list[bytes], lost: np.ndarray, size: int) -> Floats:
    """Audio ``[size]`` of packets of which some are lost, the latency taken off."""
    decoder.reset()
    parts = [decoder.push(None if gone else p) for p, gone in zip(packets, lost, strict=True)]
    return np.concatenate(parts)[decoder.latency.samples :][:size]


def scores_of(
    ref: Floats, deg: Floats, f0: np.ndarray, lost: np.ndarray, frame_rate: float
) -> dict[str, float]:
    """The scores of a pair whose frames ``lost [T]`` did not come; NaN where one is undefined."""
    found = dict.fromkeys(SCORES, float("nan"))
    for name, measure in (("pesq_wb", pesq_wb), ("stoi", stoi)):
        with contextlib.suppress(ValueError):
            found[name] = measure(ref, deg)
    track, active = f0_track(deg), spread_to_f0_frames(active_frames(ref), len(f0))
    pitch = f0_metrics(f0, track, active)
    return {
        **found,
        "f0_contour": contour_correlation(f0, track, active),
        "f0_corr": pitch["f0_corr"],
        "vuv_error": pitch["vuv_error"],
        "lost_pitch": frame_error(f0, track, active & lost_f0_frames(lost, frame_rate, len(f0))),
    }


def difference(row: Row, other: Row, name: str, seed: int = 0) -> Estimate:
    """Mean paired difference ``row - other`` over clips, with its 95 % bootstrap interval."""
    values = np.array(row.scores[name]) - np.array(other.scores[name])
    if not len(values):
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    chance = np.full(len(values), 1 / len(values))
    weights = np.random.default_rng(seed).multinomial(len(values), chance, REPLICATES)
    return estimate(values, weights.astype(np.float64))


def distances(clean: Floats, deg: Floats, hop: int) -> np.ndarray:
    """Mean distance in dB of the spectra of each hop, levels under -60 dBFS cut off."""
    count = len(clean) // hop
    window = np.hanning(hop)
    both = [
        10
        * np.log10(np.abs(np.fft.rfft(x[: count * hop].reshape(count, hop) * window)) ** 2 + 0.02)
        for x in (clean, deg)
    ]
    return np.abs(both[0] - both[1]).mean(1)


def note_recovery(row: Row, clean: Floats, deg: Floats, lost: np.ndarray, hop: int) -> None:
    """Add the distances of the frames after each loss."""
    distance = distances(clean, deg, hop)
    since = 0
    for frame, gone in enumerate(lost[1:]):  # the hop at `frame` comes with packet `frame + 1`
        since = 0 if gone else since + 1
        if lost[: frame + 2].any() and 1 <= since <= RECOVERY_FRAMES and frame < len(distance):
            row.recovery[since - 1].append(float(distance[frame]))


def run(
    codec: AffectCodec,
    clips: list[Floats],
    models: list[LossModel],
    *,
    kbps: float = 3.0,
    seed: int = 0,
) -> list[Row]:
    """A row for each model of loss and concealment; the first one is without loss."""
    encoder = StreamingEncoder(codec, kbps=kbps)
    decoders = {kind: StreamingDecoder(codec, concealment=kind) for kind in CONCEALMENTS}
    rows = [Row(0.0, 1.0, "none")]
    rows += [Row(m.rate, m.mean_burst, kind) for m in models for kind in CONCEALMENTS]
    hop = codec.config.hop_length
    for index, wav in enumerate(tqdm(clips, unit="clip", disable=None)):
        packets = encoder.push(wav) + encoder.flush()
        f0 = f0_track(wav)
        nothing = np.zeros(len(packets), np.bool_)
        clean = decode(decoders["predict"], packets, nothing, len(wav))
        found = [(rows[0], clean, nothing)]
        for i, model in enumerate(models):
            lost = model.draw(len(packets), seed + index)
            lost[:_HEAD_FRAMES] = False
            for j, (_, decoder) in enumerate(decoders.items()):
                row = rows[1 + i * len(decoders) + j]
                found.append((row, decode(decoder, packets, lost, len(wav)), lost))
        for row, audio, lost in found:
            scores = scores_of(wav, audio, f0, lost, codec.config.frame_rate)
            for name, value in scores.items():
                row.scores[name].append(value)
            note_recovery(row, clean, audio, lost, hop)
    return rows


def markdown(rows: list[Row]) -> str:
    """The table, the differences to the prediction, and its recovery."""
    lines = [f"| loss | bursts of | concealment | {' | '.join(TITLES[n] for n in SCORES)} |"]
    lines.append("|---" * (3 + len(SCORES)) + "|")
    for row in rows:
        values = " | ".join(_number(row.mean(name)) for name in SCORES)
        kind = NAMES.get(row.concealment, row.concealment)
        lines.append(f"| {row.rate:.0%} | {row.mean_burst:g} | {kind} | {values} |")
    lines += ["", "Prediction less the other, mean over clips of the paired differences:", ""]
    lines.append(f"| loss | bursts of | less | {' | '.join(TITLES[n] for n in COMPARED)} |")
    lines.append("|---" * (3 + len(COMPARED)) + "|")
    found = {(r.rate, r.mean_burst, r.concealment): r for r in rows}
    for row in rows:
        for kind, title in NAMES.items() if row.concealment == "predict" else ():
            other = found.get((row.rate, row.mean_burst, kind))
            if other is None:
                continue
            values = " | ".join(_interval(difference(row, other, name)) for name in COMPARED)
            lines.append(f"| {row.rate:.0%} | {row.mean_burst:g} | {title} | {values} |")
    lines += ["", "Distance to the undisturbed decoding in dB, by ms since the last loss:", ""]
    for row in rows[1:]:
        if row.concealment == "predict":
            values = ", ".join(f"{np.mean(v):.1f}" for v in row.recovery if v)
            lines.append(f"- {row.rate:.0%}, bursts of {row.mean_burst:g}: {values}")
    return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:.3f}" if np.isfinite(value) else ""


def _interval(found: Estimate) -> str:
    if not found.count:
        return ""
    return f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("data", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--split", default="dev", show_default=True)
@click.option("--limit", type=int, help="At most this many clips, spread evenly.")
@click.option("--rates", default="0.05,0.1,0.2", show_default=True, help="Shares of lost packets.")
@click.option("--bursts", default="1,4", show_default=True, help="Mean lengths of bursts, packets.")
@click.option("--kbps", default=3.0, show_default=True)
@click.option("--weights", help="Weights: the name of shipped ones, or a folder.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="All values a clip.")
@click.option(
    "--docs",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A page to write the table into, between its marks `streaming:loss`.",
)
def main(
    data: Path,
    split: str,
    limit: int | None,
    rates: str,
    bursts: str,
    kbps: float,
    weights: str | None,
    json_path: Path | None,
    docs: Path | None,
) -> None:
    """Print the table of losses for the clips of DATA/manifest.csv."""
    torch.set_num_threads(1)
    codec = AffectCodec.from_pretrained(weights)
    rate = codec.config.sample_rate
    clips = [
        load_audio(clip.file, sample_rate=rate)[0].astype(np.float32)
        for clip in read_manifest(data / "manifest.csv", split=split, limit=limit)
    ]
    models = [LossModel(float(r), float(b)) for r in rates.split(",") for b in bursts.split(",")]
    rows = run(codec, clips, models, kbps=kbps)
    table = markdown(rows)
    click.echo(table)
    if docs is not None:
        about = f"{len(clips)} clips of `{split}`, {kbps:g} kbit/s, packets of one frame, "
        about += f"F0 by {HEADLINE}:"
        replace_part(docs, *_MARKERS, f"{about}\n\n{table}\n")
    if json_path is not None:
        json_path.write_text(json.dumps([vars(row) for row in rows]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
