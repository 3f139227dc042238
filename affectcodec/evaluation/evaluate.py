# SPDX-License-Identifier: Apache-2.0
"""One run of `affectcodec evaluate`: manifests and codec names in, results on disk out.

Writes into the plan's folder: results.json (every figure with its interval, the command, versions
and fingerprints), results.md (the tables) and report.html (curves, bars, matrices, sound).
"""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from affectcodec.evaluation.assess import (
    assess_concordance,
    assess_emotion,
    assess_metrics,
    assess_words,
    emotion_tasks,
)
from affectcodec.evaluation.baselines import Codec
from affectcodec.evaluation.campaign import ORIGINAL, Measured, load_clip, measure_all
from affectcodec.evaluation.codecs import make_codecs
from affectcodec.evaluation.corpora import scan
from affectcodec.evaluation.judges import JUDGES
from affectcodec.evaluation.measures import available_measures, find_measures
from affectcodec.evaluation.neural import NeuralCodec
from affectcodec.evaluation.page import make_sounds, render
from affectcodec.evaluation.runs import (
    parse_comparisons,
    parse_weights,
    shown_path,
    write_results,
)
from affectcodec.evaluation.store import Store, default_cache
from affectcodec.evaluation.tables import markdown
from affectcodec.info import version_of
from affectcodec.manifest import Clip, evenly, read_manifest
from affectcodec.nn.diagnostics import usage_report

DEFAULT_CODECS = ("affectcodec:0.75", "affectcodec:1.5", "affectcodec:3", "affectcodec:6")
# Each against a codec at a higher rate; those whose codecs are both in the run are shown.
DEFAULT_COMPARISONS = (
    ("affectcodec:0.75", "codec2:3200"),
    ("affectcodec:1.5", "opus:6"),
    ("affectcodec:1.5", "codec2:2400"),
    ("affectcodec:3", "opus:9"),
    ("affectcodec:3", "opus:6"),
    ("affectcodec:6", "opus:6"),
)
TOKEN_USE_CLIPS = 40
PACKAGES = (
    "affectcodec",
    "torch",
    "numpy",
    "opensmile",
    "scikit-learn",
    "faster-whisper",
    "ctranslate2",
    "pesq",
    "pystoi",
    "pyworld",
    "swift-f0",
    "onnxruntime",
    "rapidfuzz",
    "visqol-python",
    "ai-edge-litert",
    "speechmos",
    "resemblyzer",
)


@dataclass(frozen=True)
class Plan:
    """What to measure; the options of the command, see `affectcodec evaluate --help`."""

    manifests: Sequence[Path]
    out: Path
    codecs: Sequence[str] = ()
    weights: Sequence[str] = ()
    split: str = "test"
    train_split: str = "train"
    datasets: Sequence[str] = ()
    measures: Sequence[str] = ()
    matched: Sequence[str] = ()
    compare: Sequence[str] = ()
    limit: int | None = None
    train_limit: int | None = None
    cache: Path | None = None
    jobs: int = 1
    quiet: bool = False


def read_clips(plan: Plan, split: str, limit: int | None) -> list[Clip]:
    """Clips of one split of all manifests that have it.

    Raises:
        ValueError: no clip at all.
    """
    clips, reasons = [], []
    for manifest in plan.manifests:
        try:
            if Path(manifest).is_dir():
                some = [clip for clip in scan(manifest) if clip.split == split]
            else:
                some = read_manifest(manifest, split=split)
        except ValueError as error:
            if not Path(manifest).is_file():
                raise
            reasons.append(str(error))
            continue
        some = [clip for clip in some if not plan.datasets or clip.dataset in plan.datasets]
        clips += some if limit is None or not some else evenly(some, limit)
    if not clips:
        raise ValueError("; ".join(reasons) or f"datasets: no clip of {list(plan.datasets)}")
    return clips


def check_speakers(train: Sequence[Clip], clips: Sequence[Clip]) -> None:
    """A judge that knows the speaker tells nothing.

    Raises:
        ValueError: a speaker is in both splits.
    """
    known = {(clip.dataset, clip.speaker) for clip in train}
    shared = sorted({(c.dataset, c.speaker) for c in clips} & known)
    if shared:
        raise ValueError(
            f"splits: {shared[0][1]} of {shared[0][0]} (and {len(shared) - 1} more) are in the "
            "training split and in the measured one; wanted speakers that the judges never heard"
        )


def shown_command(plan: Plan) -> str:
    """The command line that repeats the run, without what does not change its results."""
    parts = ["affectcodec", "evaluate", *(shown_path(path) for path in plan.manifests)]
    for name in ("split", "train_split", "limit", "train_limit"):
        value = getattr(plan, name)
        if value is not None and value != getattr(Plan, name):
            parts += [f"--{name.replace('_', '-')}", str(value)]
    for option, values in (
        ("--dataset", plan.datasets),
        ("--codec", plan.codecs),
        ("--measure", plan.measures),
        ("--matched", plan.matched),
        ("--compare", plan.compare),
    ):
        for value in values:
            parts += [option, value]
    for value in plan.weights:
        label, separator, path = value.rpartition("=")
        parts += ["--weights", label + separator + shown_path(path)]
    return shlex.join([*parts, "--out", shown_path(plan.out)])


@dataclass(frozen=True)
class Collected:
    """All of a run: results as they are written, and what they were made of."""

    results: dict[str, Any]
    measured: Measured
    codecs: list[Codec]
    train: list[Clip]
    clips: list[Clip]


def collect(plan: Plan) -> Collected:
    """Measures all that the plan asks for.

    Raises: as `run`.
    """
    names = list(dict.fromkeys(plan.codecs or DEFAULT_CODECS))
    comparisons = parse_comparisons(plan.compare, names, DEFAULT_COMPARISONS)
    if set(plan.matched) - set(names):
        raise ValueError(f"matched: got {list(plan.matched)}, wanted some of {names}")
    measures, not_installed = available_measures()
    if plan.measures:
        measures, not_installed = find_measures(plan.measures), {}
    for name, fix in not_installed.items():
        warnings.warn(f"measure {name} is left out: {fix}", stacklevel=2)
    weights = parse_weights(plan.weights)
    clips = read_clips(plan, plan.split, plan.limit)
    asked = {row.name for row in measures}
    judges = [judge for judge in JUDGES if judge.measure in asked]
    heard = tuple(row for row in measures if row.name in {judge.measure for judge in judges})
    train: list[Clip] = []
    if judges:
        try:
            train = read_clips(plan, plan.train_split, plan.train_limit)
        except ValueError:
            train = []
        check_speakers(train, clips)
        taught = {dataset for task in emotion_tasks(train, clips).values() for dataset in task}
        train = [clip for clip in train if clip.emotion and clip.dataset in taught]
    codecs = make_codecs(list(dict.fromkeys((ORIGINAL, *names))), weights)
    everyone = [codec.name for codec in codecs]
    with Store(plan.cache or default_cache()) as store:
        measured = measure_all(
            [(train, [ORIGINAL, *plan.matched], heard), (clips, everyone, measures)],
            codecs,
            store,
            weights=weights,
            jobs=plan.jobs,
            progress=not plan.quiet,
        )
    results: dict[str, Any] = {
        "command": shown_command(plan),
        "split": plan.split,
        "versions": {name: version_of(name) for name in PACKAGES},
        "not_measured": not_installed,
        "fingerprints": {codec.name: codec.fingerprint for codec in codecs},
        "delays": {name: asdict(delay) for name, delay in measured.delays.items()},
        "metrics": assess_metrics(measured, clips, everyone, comparisons),
    }
    if "egemaps" in asked:
        results["concordance"] = assess_concordance(measured, clips, everyone)
    if "transcript" in asked:
        results["words"] = assess_words(measured, clips, everyone, comparisons)
    if train:
        results["emotion"] = assess_emotion(
            measured,
            train,
            clips,
            everyone,
            judges=judges,
            matched=plan.matched,
            comparisons=comparisons,
        )
    return Collected(results, measured, codecs, train, clips)


def run(plan: Plan) -> str:
    """Measures, writes the results; the Markdown page.

    Raises:
        ValueError: a manifest, codec, measure or comparison that cannot be.
        BaselineError: the program of a baseline is missing or failed.
        ImportError: a package of a measure is missing.
    """
    plan.out.mkdir(parents=True, exist_ok=True)
    found = collect(plan)
    results, codecs, clips = found.results, found.codecs, found.clips
    page = markdown(results)
    write_results(plan.out, "results", results, page)
    delays = {name: int(delay["samples"]) for name, delay in results["delays"].items()}
    html = render(
        results, page, sounds=make_sounds(codecs, delays), token_use=digit_shares(codecs, clips)
    )
    (plan.out / "report.html").write_text(html, encoding="utf-8")
    return page


def digit_shares(
    codecs: Sequence[Codec], clips: Sequence[Clip]
) -> dict[str, dict[str, list[list[float]]]]:
    """Share of its entropy that each digit uses, on a few clips: label -> block `[stage][dim]`."""
    import torch

    from affectcodec.evaluation.token_use import join

    out: dict[str, dict[str, list[list[float]]]] = {}
    for own in codecs:
        if not isinstance(own, NeuralCodec) or own.label in out:
            continue
        with torch.inference_mode():
            tokens = join(
                own.codec.encode(torch.from_numpy(load_clip(clip)))
                for clip in evenly(list(clips), TOKEN_USE_CLIPS)
            )
        report = usage_report(tokens, own.codec.config.quantizer)
        blocks: dict[str, list[list[float]]] = {}
        for digit in report.digits:
            stages = blocks.setdefault(digit.block, [])
            while len(stages) < digit.stage:
                stages.append([])
            stages[digit.stage - 1].append(digit.share)
        out[own.label] = blocks
    return out
