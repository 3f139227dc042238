# SPDX-License-Identifier: Apache-2.0
"""Which F0 tracker can be trusted? ``python -m affectcodec.evaluation.trackers MANIFEST``.

What a codec does to pitch can be told only down to what a tracker does of itself. Two tests, whose
right answers are known:

- clips changed in ways that move no pitch, against the same tracker's reading of the original: a
  perfect tracker has F0 corr 1 and no errors;
- clips that WORLD synthesises again with a contour that is given, changed likewise, against that
  contour.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from tqdm import tqdm

from affectcodec.audio import load_audio
from affectcodec.evaluation.alignment import SAMPLE_RATE, active_frames, active_region
from affectcodec.evaluation.controls import MuLaw
from affectcodec.evaluation.pitch import (
    FRAME_MS,
    METHODS,
    Method,
    f0_metrics,
    f0_track,
    spread_to_f0_frames,
)
from affectcodec.evaluation.tables import table
from affectcodec.evaluation.world import load_world
from affectcodec.manifest import read_manifest
from affectcodec.pages import replace_part

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]
AS_IS = "as it is"
ITSELF, GIVEN = "own track of the original", "given contour"
SCORES = ("f0_corr", "gross_pitch_error", "vuv_error")
_GIVEN_RANGE_HZ = (65.0, 650.0)  # inside that of the trackers, which may stop at its ends
_MARKERS = ("<!-- evaluation:trackers -->", "<!-- /evaluation -->")


def _filtered(wav: np.ndarray, order: int, hz: float, kind: str) -> np.ndarray:
    from scipy.signal import butter, sosfiltfilt

    # forwards and backwards: the order counts twice and nothing moves in time
    sections = butter(order, hz, kind, fs=SAMPLE_RATE, output="sos")
    return np.asarray(sosfiltfilt(sections, wav, padlen=0))


def _noise(wav: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return wav + rng.standard_normal(len(wav)) * np.sqrt(np.mean(wav**2) / 10 ** (20.0 / 10.0))


CHANGES: dict[str, Change] = {
    "8-bit mu-law": lambda wav, _: MuLaw().roundtrip(wav).wav,
    "white noise, 20 dB SNR": _noise,
    "high-pass, 250 Hz": lambda wav, _: _filtered(wav, 2, 250.0, "highpass"),
    "low-pass, 3.4 kHz": lambda wav, _: _filtered(wav, 3, 3400.0, "lowpass"),
    "20 dB softer": lambda wav, _: 0.1 * wav,
}


@dataclass(frozen=True)
class Line:
    """Scores of one tracker on one changed clip.

    Attributes:
        truth: what it was compared with, `ITSELF` or `GIVEN`.
        change: a key of `CHANGES`, or `AS_IS`.
        scores: `SCORES`; NaN where undefined. With a given contour also `cents`: the median
            magnitude of its error over frames voiced in both.
    """

    truth: str
    change: str
    tracker: Method
    scores: dict[str, float]


@dataclass
class Clock:
    """CPU seconds of each tracker, and seconds of the audio that it was given."""

    spent: dict[Method, float]
    heard: float = 0.0

    def track(self, wav: np.ndarray, method: Method) -> np.ndarray:
        """`f0_track`, timed."""
        started = time.process_time()
        found = f0_track(wav, method)
        self.spent[method] += time.process_time() - started
        return found


def with_given_contour(wav: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """The clip `[n]` from WORLD with another melody, and its F0 in Hz each 5 ms `[1 + n // 80]`.

    The melody swings smoothly by about half an octave around the clip's median F0, whatever the
    voice did. Where harvest hears a voice in the clip there is one; there F0 is what the synthesis
    was told to do, so no tracker's errors are in it. None for a clip without a voiced frame.

    Raises:
        ImportError: package pyworld missing.
    """
    world = load_world()
    x = np.ascontiguousarray(wav, dtype=np.float64)
    heard = f0_track(x, "harvest")
    voiced = heard > 0
    if not voiced.any():
        return None
    seconds = np.arange(len(heard)) * FRAME_MS / 1000.0
    octaves = 0.5 * np.sin(2 * np.pi * 0.9 * seconds) + 0.08 * np.sin(2 * np.pi * 3.7 * seconds)
    contour = np.clip(np.median(heard[voiced]) * 2**octaves, *_GIVEN_RANGE_HZ)
    given = np.where(voiced, contour, 0.0)
    envelope = world.cheaptrick(x, heard, seconds, SAMPLE_RATE)
    # threshold 0: no frame that is called voiced is made of noise alone
    aperiodicity = world.d4c(x, heard, seconds, SAMPLE_RATE, threshold=0.0)
    out = world.synthesize(given, envelope, aperiodicity, SAMPLE_RATE, FRAME_MS)
    return np.asarray(out[: len(x)]), given


def measure(wav: np.ndarray, seed: int, clock: Clock) -> list[Line]:
    """Both tests of every tracker on one clip `[n]` at 16 kHz; none on a silent one.

    Raises:
        ImportError: a package of the extra `eval` is missing.
    """
    region = active_region(np.asarray(wav, np.float32))
    if region is None:
        return []
    wav = np.asarray(wav, np.float64)[slice(*region)]
    sources: list[tuple[str, np.ndarray, np.ndarray | None]] = [(ITSELF, wav, None)]
    synthesised = with_given_contour(wav)
    if synthesised is not None:
        sources.append((GIVEN, *synthesised))
    lines = []
    for truth, source, given in sources:
        active = active_frames(source.astype(np.float32))
        versions = {AS_IS: source} | {
            name: change(source, np.random.default_rng(seed)) for name, change in CHANGES.items()
        }
        for method in METHODS:
            tracks = {name: clock.track(version, method) for name, version in versions.items()}
            reference = tracks[AS_IS] if given is None else given
            mask = spread_to_f0_frames(active, len(reference))
            for name, track in tracks.items():
                if given is None and name == AS_IS:
                    continue
                found = f0_metrics(reference, track, mask)
                scores = {score: found[score] for score in SCORES}
                if given is not None:
                    scores["cents"] = _fine_error(given, track, mask)
                lines.append(Line(truth, name, method, scores))
        clock.heard += len(versions) * len(source) / SAMPLE_RATE
    return lines


def _fine_error(truth: np.ndarray, track: np.ndarray, active: np.ndarray) -> float:
    both = active & (truth > 0) & (track > 0)
    if not both.any():
        return float("nan")
    return float(np.median(np.abs(1200.0 * np.log2(track[both] / truth[both]))))


def markdown(lines: Sequence[Line], clock: Clock) -> str:
    """A table a test, a row a change; and what a second of audio costs.

    A score is the mean over those clips for which every tracker has it under that change.
    """
    parts = []
    for truth, heading in (
        (ITSELF, "Changed clips against each tracker's own reading of the original"),
        (GIVEN, "Clips from WORLD with a given contour, against that contour"),
    ):
        mine = [line for line in lines if line.truth == truth]
        scores = (*SCORES, "cents") if truth == GIVEN else SCORES
        what = "F0 corr, gross errors, V/UV errors"
        what += ", median error in cents" if truth == GIVEN else ""
        changes = [AS_IS, *CHANGES] if truth == GIVEN else [*CHANGES]
        rows = [[change, *_cells(mine, change, scores)] for change in changes]
        parts.append(f"{heading}: {what}.\n\n{table(['change', *METHODS], rows)}")
    per_second = (f"{clock.spent[m] / max(clock.heard, 1e-9):.4f} ({m})" for m in METHODS)
    parts.append(f"CPU seconds a second of audio, one thread: {', '.join(per_second)}.")
    return "\n\n".join(parts)


def _cells(lines: Sequence[Line], change: str, scores: Sequence[str]) -> list[str]:
    values = np.array(
        [
            [
                [line.scores[score] for score in scores]
                for line in lines
                if line.change == change and line.tracker == method
            ]
            for method in METHODS
        ]
    )
    if not values.size:
        return ["-"] * len(METHODS)
    values = np.where(np.isfinite(values).all(axis=0), values, np.nan)  # [tracker, clip, score]
    cells = []
    for own in values:
        means = [column[np.isfinite(column)] for column in own.T]
        shown = [
            "-" if not len(column) else _shown(float(column.mean()), score)
            for column, score in zip(means, scores, strict=True)
        ]
        cells.append(", ".join(shown))
    return cells


def _shown(value: float, score: str) -> str:
    if score == "cents":
        return f"{value:.1f}"
    return f"{value:.3f}" if score == "f0_corr" else f"{100 * value:.2f} %"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("manifest", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--split", default="dev", show_default=True)
@click.option("--dataset", "datasets", multiple=True, help="Only this one. May be repeated.")
@click.option("--limit", type=click.IntRange(min=1), help="At most this many clips, evenly spread.")
@click.option(
    "--docs",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A page to write the tables into, between its marks `evaluation:trackers`.",
)
def main(
    manifest: Path, split: str, datasets: tuple[str, ...], limit: int | None, docs: Path | None
) -> None:
    """Compare F0 trackers on the clips of MANIFEST, where the right answer is known.

    Needs the extra `eval`. Harvest takes most of the time, about two seconds a second of audio.
    """
    try:
        clips = read_manifest(manifest, split=split, datasets=datasets, limit=limit)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    clock = Clock(dict.fromkeys(METHODS, 0.0))
    lines: list[Line] = []
    for seed, clip in enumerate(tqdm(clips, unit="clip", disable=None)):
        lines += measure(load_audio(clip.file, sample_rate=SAMPLE_RATE, mono=True)[0], seed, clock)
    found = f"{len(clips)} clips of `{split}`.\n\n{markdown(lines, clock)}"
    click.echo(found)
    if docs is not None:
        replace_part(docs, *_MARKERS, f"{found}\n")


if __name__ == "__main__":
    main()
