# SPDX-License-Identifier: Apache-2.0
"""Runs codecs over clips: one row of metrics for each (clip, codec), kept in a JSONL file.

A row is reused when the codec's fingerprint, its delay, the clip's content and the version of the
metrics are the same; so a run that was cut off goes on where it stood, and a new codec is added
without measuring the others again.
"""

from __future__ import annotations

import hashlib
import json
import math
import multiprocessing
import queue
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from affectcodec.audio import load_audio
from affectcodec.evaluation.alignment import SAMPLE_RATE, align, shift
from affectcodec.evaluation.baselines import Codec
from affectcodec.evaluation.codecs import make_codecs
from affectcodec.evaluation.metrics import METRICS_VERSION, measure
from affectcodec.manifest import Clip, evenly

MAX_DELAY = 1600  # 100 ms
CALIBRATION_CLIPS = 16
_POLL_S = 5.0


@dataclass(frozen=True)
class Delay:
    """A codec's delay: the median over some clips, with the spread that the estimate had."""

    samples: int
    lowest: int
    highest: int
    clips: int


@dataclass(frozen=True)
class Row:
    """Result of one clip through one codec.

    Attributes:
        key: what it is a result of (see `row_key`).
        values: metric -> value, NaN where `failures` has the reason.
        bits, seconds: payload and duration of the whole clip, silence included.
    """

    key: str
    codec: str
    path: str
    dataset: str
    speaker: str
    emotion: str
    bits: float
    seconds: float
    values: dict[str, float]
    failures: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        data = asdict(self)
        data["values"] = {k: None if math.isnan(v) else v for k, v in self.values.items()}
        return json.dumps(data, sort_keys=True)

    @classmethod
    def from_json(cls, line: str) -> Row:
        data = json.loads(line)
        data["values"] = {k: math.nan if v is None else v for k, v in data["values"].items()}
        return cls(**data)


def load_clip(clip: Clip) -> np.ndarray:
    """The clip as float32 `[n]` at 16 kHz."""
    return load_audio(clip.file, sample_rate=SAMPLE_RATE)[0]


def row_key(clip: Clip, fingerprint: str, delay: int) -> str:
    """Names a result: same key, same row."""
    content = clip.sha256 or str(clip.file.stat().st_size)
    parts = (clip.dataset, clip.path, content, fingerprint, delay, METRICS_VERSION)
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=12).hexdigest()


def calibrate(codec: Codec, clips: Sequence[Clip], count: int = CALIBRATION_CLIPS) -> Delay:
    """Delay of a codec in samples at 16 kHz.

    A codec has one delay, and a parametric codec's envelope places it only to a few milliseconds
    on one clip: the median over several is the better estimate, and no clip gets its own favour.
    """
    found = []
    for clip in evenly(list(clips), count):
        wav = load_clip(clip)
        found.append(align(wav, codec.roundtrip(wav).wav, MAX_DELAY).delay)
    return Delay(int(np.median(found)), min(found), max(found), len(found))


def evaluate_clip(clip: Clip, codecs: Iterable[tuple[Codec, int, str]]) -> Iterator[Row]:
    """Measures one clip through (codec, delay, key) each."""
    wav = load_clip(clip)
    for codec, delay, key in codecs:
        coded = codec.roundtrip(wav)
        scores = measure(wav, shift(coded.wav, delay, len(wav)))
        yield Row(
            key=key,
            codec=codec.name,
            path=clip.path,
            dataset=clip.dataset,
            speaker=clip.speaker,
            emotion=clip.emotion,
            bits=coded.bits,
            seconds=len(wav) / SAMPLE_RATE,
            values=scores.values,
            failures=scores.failures,
        )


class RowStore:
    """Rows in a JSONL file, appended as they come; a line cut off by a crash is ignored."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[str, Row] = {}
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    row = Row.from_json(line)
                except (ValueError, TypeError, KeyError):
                    continue
                self.rows[row.key] = row
            # a new row must not be glued to a cut one
            if not path.read_bytes().endswith(b"\n") and path.stat().st_size:
                with path.open("a", encoding="utf-8") as file:
                    file.write("\n")

    def add(self, rows: Iterable[Row]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            for row in rows:
                self.rows[row.key] = row
                file.write(row.to_json() + "\n")


def run(
    clips: Sequence[Clip],
    codecs: Sequence[Codec],
    delays: Mapping[str, int],
    store: RowStore,
    *,
    weights: Mapping[str, str | None] | None = None,
    jobs: int = 1,
    progress: bool = True,
) -> list[Row]:
    """All rows of clips x codecs, from the store where it has them.

    Args:
        delays: codec name -> samples to remove.
        weights: as for `make_codecs`; needed only for jobs > 1, whose processes build their own.
        jobs: processes. 1 stays in this one.

    Raises:
        RuntimeError: a process failed or died; its message. What was measured is in the store.
    """
    from tqdm import tqdm

    fingerprints = {codec.name: codec.fingerprint for codec in codecs}
    keys = {
        (clip.dataset, clip.path, name): row_key(clip, fingerprint, delays[name])
        for clip in clips
        for name, fingerprint in fingerprints.items()
    }
    tasks: list[tuple[Clip, dict[str, tuple[int, str]]]] = []
    for clip in clips:
        missing = {}
        for codec in codecs:
            key = keys[clip.dataset, clip.path, codec.name]
            if key not in store.rows:
                missing[codec.name] = (delays[codec.name], key)
        if missing:
            tasks.append((clip, missing))
    cached = len(clips) - len(tasks)
    with tqdm(total=len(clips), initial=cached, unit="clip", disable=not progress) as bar:
        if jobs == 1 or len(tasks) < 2:
            by_name = {codec.name: codec for codec in codecs}
            for clip, missing in tasks:
                wanted = [(by_name[name], *rest) for name, rest in missing.items()]
                store.add(list(evaluate_clip(clip, wanted)))
                bar.update()
        else:
            names = [codec.name for codec in codecs]
            for rows in _run_in_processes(tasks, names, dict(weights or {}), jobs):
                store.add(rows)
                bar.update()
    return [store.rows[key] for key in keys.values()]


def _work(tasks: Any, results: Any, names: list[str], weights: dict[str, str | None]) -> None:
    """Body of a worker: None ends it; an exception goes back as text."""
    import torch

    torch.set_num_threads(1)
    try:
        codecs = {codec.name: codec for codec in make_codecs(names, weights)}
        while (task := tasks.get()) is not None:
            clip, missing = task
            wanted = [(codecs[name], *rest) for name, rest in missing.items()]
            results.put(list(evaluate_clip(clip, wanted)))
    except Exception as error:  # noqa: BLE001 - the parent must hear of any failure
        results.put(f"{type(error).__name__}: {error}")


def _run_in_processes(
    tasks: list[Any], names: list[str], weights: dict[str, str | None], jobs: int
) -> Iterator[list[Row]]:
    # spawn: forking a process in which torch has started threads can deadlock
    context = multiprocessing.get_context("spawn")
    inbox, outbox = context.Queue(), context.Queue()
    for task in [*tasks, *[None] * jobs]:
        inbox.put(task)
    workers = [
        context.Process(target=_work, args=(inbox, outbox, names, weights), daemon=True)
        for _ in range(jobs)
    ]
    for worker in workers:
        worker.start()
    try:
        remaining = len(tasks)
        while remaining:
            try:
                answer = outbox.get(timeout=_POLL_S)
            except queue.Empty:
                if any(worker.exitcode not in (None, 0) for worker in workers):
                    codes = [worker.exitcode for worker in workers]
                    raise RuntimeError(f"a worker died (exit codes {codes})") from None
                continue
            if isinstance(answer, str):
                raise RuntimeError(f"a worker failed: {answer}")
            remaining -= 1
            yield answer
    finally:
        for worker in workers:
            if worker.is_alive():
                worker.terminate()
            worker.join()
