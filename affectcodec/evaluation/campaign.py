# SPDX-License-Identifier: Apache-2.0
"""Clips x codecs x measures: what is missing is measured, the rest comes from the store.

    measured = measure_all(clips, codecs, measures, store, weights=..., jobs=2)
    measured.value(clip, "opus:6", "egemaps")

A clip is coded once for all measures that it lacks. What a value depends on is in its key: content
of the clip, fingerprint of the codec, the delay that was removed, name and version of the measure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from affectcodec.audio import load_audio
from affectcodec.evaluation.alignment import SAMPLE_RATE, align, shift
from affectcodec.evaluation.baselines import Codec
from affectcodec.evaluation.codecs import make_codecs
from affectcodec.evaluation.measures import BY_NAME, Measure, Pair
from affectcodec.evaluation.store import Store, Value, entry_key
from affectcodec.evaluation.workers import run_tasks
from affectcodec.manifest import Clip

ORIGINAL = "original"
CODING = "coding"  # what coding itself gives: bits and seconds
FAILED = "failed"
MAX_DELAY = 1600  # 100 ms
_CODING_VERSION = 1


@dataclass(frozen=True)
class Delay:
    """A codec's delay: the median over some clips, with the spread that the estimate had."""

    samples: int
    lowest: int
    highest: int
    clips: int


@dataclass(frozen=True)
class Task:
    """One clip through one codec: what to measure, and the key of each result."""

    clip: Clip
    codec: str
    delay: int
    keys: tuple[tuple[str, str], ...]  # (measure, key)


@dataclass(frozen=True)
class Measured:
    """All values of a run, by clip, codec and measure."""

    keys: Mapping[tuple[str, str, str], str]
    values: Mapping[str, Value]
    delays: Mapping[str, Delay]

    def value(self, clip: Clip, codec: str, measure: str) -> Value | None:
        """The value; None where the measure was not asked for or has none (see `reason`)."""
        found = self.values.get(self.keys.get((_identity(clip), codec, measure), ""))
        if isinstance(found, dict) and set(found) == {FAILED}:
            return None
        return found

    def reason(self, clip: Clip, codec: str, measure: str) -> str:
        """Why there is no value; empty where there is one, or where none was asked for."""
        found = self.values.get(self.keys.get((_identity(clip), codec, measure), ""))
        if isinstance(found, dict) and set(found) == {FAILED}:
            return str(found[FAILED])
        return ""


def _identity(clip: Clip) -> str:
    return f"{clip.dataset}/{clip.file}"


def load_clip(clip: Clip) -> np.ndarray:
    """The clip as float32 `[n]` at 16 kHz."""
    return load_audio(clip.file, sample_rate=SAMPLE_RATE)[0]


def content_hash(path: Path) -> str:
    """Digest of a file's bytes: what a manifest claims about it is not enough for a cache."""
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()


def calibrate(codec: Codec) -> Delay:
    """Delay of a codec in samples at 16 kHz, on the speech that ships with the package.

    A codec has one delay, and the envelope of a parametric codec places it only to a few
    milliseconds on one clip: the median over several is the better estimate, no clip gets its own
    favour, and the result does not depend on what is evaluated.
    """
    found = []
    folder = files("affectcodec") / "samples"
    for name in sorted(item.name for item in folder.iterdir() if item.name.endswith(".flac")):
        wav, _ = load_audio(Path(str(folder / name)), sample_rate=SAMPLE_RATE)
        found.append(align(wav, codec.roundtrip(wav).wav, MAX_DELAY).delay)
    return Delay(int(np.median(found)), min(found), max(found), len(found))


def find_delay(codec: Codec, store: Store) -> Delay:
    """As `calibrate`, from the store where it has it."""
    key = entry_key("delay", 2, codec.fingerprint)
    known = store.get([key]).get(key)
    if isinstance(known, dict):
        return Delay(**{name: int(value) for name, value in known.items()})
    delay = calibrate(codec)
    store.put([(key, asdict(delay))])
    return delay


def build_worker(
    names: Sequence[str], weights: Mapping[str, str | None]
) -> Callable[[Task], list[tuple[str, Value]]]:
    """Function that measures a task; codecs are made when first used."""
    codecs: dict[str, Codec] = {}

    def work(task: Task) -> list[tuple[str, Value]]:
        if task.codec not in codecs:
            codecs[task.codec] = make_codecs([task.codec], weights)[0]
        return measure_clip(task, codecs[task.codec])

    return work


def measure_clip(task: Task, codec: Codec) -> list[tuple[str, Value]]:
    """Codes a clip and measures it: (key, value) each, `{"failed": reason}` where there is none."""
    wav = load_clip(task.clip)
    coded = codec.roundtrip(wav)
    pair = Pair(task.clip, wav, shift(coded.wav, task.delay, len(wav)))
    out: list[tuple[str, Value]] = []
    for name, key in task.keys:
        if name == CODING:
            value: Value = {"bits": float(coded.bits), "seconds": len(wav) / SAMPLE_RATE}
        else:
            try:
                value = BY_NAME[name].compute(pair)
            except ValueError as error:
                value = {FAILED: str(error)}
        out.append((key, value))
    return out


def measure_all(
    work: Sequence[tuple[Sequence[Clip], Sequence[str], Sequence[Measure]]],
    codecs: Sequence[Codec],
    store: Store,
    *,
    weights: Mapping[str, str | None],
    jobs: int = 1,
    progress: bool = True,
) -> Measured:
    """All values of some (clips, codec names, measures) triples.

    Args:
        codecs: every codec that `work` names.
        weights: as for `make_codecs`; processes build their own codecs.
        jobs: processes; 1 stays in this one.

    Raises:
        RuntimeError: a process failed; what was measured until then is in the store.
    """
    from tqdm import tqdm

    fingerprints = {codec.name: codec.fingerprint for codec in codecs}
    delays = {codec.name: find_delay(codec, store) for codec in codecs}
    contents: dict[Path, str] = {}
    keys: dict[tuple[str, str, str], str] = {}
    wanted: dict[tuple[str, str], tuple[Clip, dict[str, str]]] = {}
    for clips, names, measures in work:
        for clip in clips:
            if clip.file not in contents:
                contents[clip.file] = content_hash(clip.file)
            for name in names:
                base = (contents[clip.file], fingerprints[name], delays[name].samples)
                own = {CODING: entry_key(*base, CODING, _CODING_VERSION)}
                for row in measures:
                    if row.wants(clip):
                        extra = (clip.language,) if row.name == "transcript" else ()
                        own[row.name] = entry_key(*base, row.name, row.version, *extra)
                _, so_far = wanted.setdefault((_identity(clip), name), (clip, {}))
                so_far.update(own)
                keys |= {(_identity(clip), name, measure): key for measure, key in own.items()}
    values = store.get(list(keys.values()))
    tasks = []
    for (_, name), (clip, own) in wanted.items():
        missing = tuple((measure, key) for measure, key in own.items() if key not in values)
        if missing:
            tasks.append(Task(clip, name, delays[name].samples, missing))
    # clips of a file stay together: an interrupted run has whole clips
    tasks.sort(key=lambda task: _identity(task.clip))
    done = len(wanted) - len(tasks)
    names = [codec.name for codec in codecs]
    with tqdm(total=len(wanted), initial=done, unit="clip", disable=not progress) as bar:
        for results in run_tasks(tasks, build_worker, (names, dict(weights)), jobs):
            store.put(results)
            values |= dict(results)
            bar.update()
    return Measured(keys, values, delays)


def bitrate(measured: Measured, clips: Sequence[Clip], codec: str) -> float:
    """kbit/s over all clips: payload over duration, silence included; NaN where not coded."""
    entries: list[Any] = [measured.value(clip, codec, CODING) for clip in clips]
    seconds = sum(entry["seconds"] for entry in entries if entry)
    bits = sum(entry["bits"] for entry in entries if entry)
    return bits / seconds / 1000.0 if seconds else float("nan")
