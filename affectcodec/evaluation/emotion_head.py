# SPDX-License-Identifier: Apache-2.0
"""Trains the emotion head of some weights and scores it against a judge that hears the originals.

    python -m affectcodec.evaluation.emotion_head data/manifest.csv --work runs/head --score test

The head learns from tokens of the training split, each clip also at 0.9 and 1.1 times its speed,
and lands beside the weights. C and gamma were chosen on a development split. Scoring compares it
with eGeMAPS + SVM on original audio, by unweighted average recall on the same clips of unseen
speakers, with a paired bootstrap over speakers; `kept` is the head's UAR over the judge's.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from tqdm import tqdm

from affectcodec import checkpoint
from affectcodec.audio import load_audio, resample
from affectcodec.codec import AffectCodec
from affectcodec.evaluation.assess import emotion_tasks, judge_clips, labelled
from affectcodec.evaluation.bootstrap import interval
from affectcodec.evaluation.campaign import ORIGINAL, measure_all
from affectcodec.evaluation.codecs import make_codecs
from affectcodec.evaluation.emotion import Decisions, statistics
from affectcodec.evaluation.evaluate import check_speakers
from affectcodec.evaluation.judges import JUDGES
from affectcodec.evaluation.measures import find_measures
from affectcodec.evaluation.store import Store, default_cache
from affectcodec.evaluation.tables import table
from affectcodec.manifest import Clip, read_manifest
from affectcodec.tokens import Tokens
from affectcodec.tokens.emotion import LIMIT, EmotionHead
from affectcodec.tokens.emotion_reader import BLOCK, EmotionReader

SPEEDS = (1.0, 0.9, 1.1)
LANDMARKS = 500
C = 3.0
GAMMA = 0.5  # times the number of statistics, which standardised distances grow with
LICENCE = (
    "CC BY-NC-SA 4.0, as the weights: learned from RAVDESS (Livingstone and Russo 2018) and nEMO "
    "(Christop 2024)"
)


def emotion_codes(
    codec: AffectCodec,
    clips: Sequence[Clip],
    stages: int,
    speeds: Sequence[float],
    cache: Path | None = None,
    *,
    quiet: bool = False,
) -> list[np.ndarray]:
    """Emotion codes uint8 `[stages, T]` of each clip at each speed, clip by clip.

    Args:
        cache: a file that keeps them; one of other clips, speeds or weights is made anew.
    """
    identity = json.dumps([codec.fingerprint, stages, list(speeds), [c.path for c in clips]])
    if cache is not None and cache.is_file():
        with np.load(cache) as kept:
            if str(kept["identity"]) == identity:
                return np.split(kept["codes"], kept["ends"][:-1], axis=1)
    found = []
    rate = codec.config.sample_rate
    counts = dict.fromkeys(codec.config.quantizer.names, 0) | {BLOCK: stages}
    for clip in tqdm(clips, desc="tokens", unit="clip", disable=quiet or None):
        wav = load_audio(clip.file, sample_rate=rate)[0]
        for speed in speeds:
            changed = wav if speed == 1.0 else resample(wav, round(rate * speed), rate)
            codes = codec.encode(changed, stages=counts).block_codes(BLOCK)[0]
            found.append(codes.numpy().astype(np.uint8))
    if cache is not None:
        cache.parent.mkdir(parents=True, exist_ok=True)
        part = cache.with_suffix(".part.npz")
        ends = np.cumsum([codes.shape[1] for codes in found])
        np.savez(part, identity=identity, codes=np.concatenate(found, 1), ends=ends)
        part.replace(cache)
    return found


def as_tokens(codec: AffectCodec, codes: np.ndarray) -> Tokens:
    """One emotion-only stream of emotion codes `[stages, T]`."""
    quantizer = codec.config.quantizer
    counts = dict.fromkeys(quantizer.names, 0) | {BLOCK: codes.shape[0]}
    whole = torch.from_numpy(codes.astype(np.int32))[None] * quantizer.token_bases()[BLOCK]
    frames = torch.tensor([codes.shape[1]])
    samples = (frames - 1).clamp(min=0) * codec.config.hop_length
    return Tokens(whole, frames, samples, counts, quantizer, codec.fingerprint)


def read_statistics(
    codec: AffectCodec, reader: EmotionReader, codes: Sequence[np.ndarray], *, quiet: bool = False
) -> np.ndarray:
    """Statistics `[clips, n]`, float64."""
    bar = tqdm(codes, desc="statistics", unit="clip", disable=quiet or None)
    return np.stack([reader(as_tokens(codec, own))[0].numpy() for own in bar]).astype(np.float64)


def fit_head(
    reader: EmotionReader,
    values: np.ndarray,
    labels: Sequence[str],
    *,
    c: float = C,
    gamma: float = GAMMA,
    landmarks: int = LANDMARKS,
    seed: int = 0,
    metadata: dict[str, str] | None = None,
) -> EmotionHead:
    """A head of statistics `[clips, n]` and one label a clip; classes weigh the same.

    Nystroem map (Williams and Seeger 2000) of the radial kernel at random landmarks, and
    multinomial logistic regression on it, folded into one product.

    Raises:
        ValueError: fewer than two classes.
        ImportError: scikit-learn missing.
    """
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise ImportError(
            "the head is trained by scikit-learn: pip install 'affectcodec[judges]'"
        ) from error
    classes = sorted(set(labels))
    if len(classes) < 2:
        raise ValueError(f"labels: got the classes {classes}, wanted two or more")
    mean, deviation = values.mean(0), values.std(0) + 1e-6
    x = np.clip((values - mean) / deviation, -LIMIT, LIMIT)
    chosen = np.random.default_rng(seed).permutation(len(x))[:landmarks]
    anchors, width = x[chosen], gamma / x.shape[1]
    u, s, vt = np.linalg.svd(_kernel(anchors, anchors, width))
    fold = (u / np.sqrt(np.maximum(s, 1e-9))) @ vt
    model = LogisticRegression(C=c, class_weight="balanced", max_iter=500)
    model.fit(_kernel(x, anchors, width) @ fold.T, np.asarray(labels))
    coefficients, bias = model.coef_, model.intercept_
    if len(classes) == 2:  # one row for two classes
        coefficients = np.concatenate([-coefficients, coefficients]) / 2
        bias = np.concatenate([-bias, bias]) / 2
    return EmotionHead(
        reader,
        classes,
        torch.from_numpy(mean),
        torch.from_numpy(deviation),
        torch.from_numpy(anchors),
        torch.from_numpy(coefficients @ fold),
        torch.from_numpy(bias),
        width,
        metadata,
    )


def _kernel(x: np.ndarray, y: np.ndarray, gamma: float) -> np.ndarray:
    squared = (x**2).sum(1)[:, None] - 2 * x @ y.T + (y**2).sum(1)
    return np.exp(-gamma * np.maximum(squared, 0.0))


def score(
    head: EmotionHead,
    values: np.ndarray,
    train: Sequence[Clip],
    clips: Sequence[Clip],
    cache: Path,
    *,
    jobs: int = 1,
    quiet: bool = False,
) -> dict[str, Any]:
    """UAR of the head and of eGeMAPS + SVM on original audio, by task, with their ratio.

    In the task of one corpus the head chooses among the classes of that corpus, as the judge does.

    Args:
        values: statistics of `clips`, `[clips, n]`.
    """
    judge = next(row for row in JUDGES if row.name == "egemaps_svm")
    weights: dict[str, str | None] = {"affectcodec": None}
    with Store(cache) as store:
        measured = measure_all(
            [([*train, *clips], [ORIGINAL], find_measures([judge.measure]))],
            make_codecs([ORIGINAL], weights),
            store,
            weights=weights,
            jobs=jobs,
            progress=not quiet,
        )
    row_of = {clip.file: i for i, clip in enumerate(clips)}
    logits = head.logits_of(torch.from_numpy(values)).numpy()
    out: dict[str, Any] = {}
    for task, datasets in emotion_tasks(train, clips).items():
        judged = judge_clips(
            judge, measured, labelled(train, datasets), labelled(clips, datasets), [ORIGINAL]
        )
        heard = judged.decisions[ORIGINAL]
        columns = [head.classes.index(name) for name in heard.classes]
        own = logits[[row_of[clip.file] for clip in judged.clips]][:, columns].argmax(1)
        decisions = Decisions(heard.classes, heard.truth, heard.original, own)
        once = np.ones((1, len(own)))
        value, drawn = statistics(decisions, once), statistics(decisions, judged.weights)
        before = statistics(heard, once)["uar"]
        out[task] = {
            "clips": len(own),
            "speakers": len({clip.speaker for clip in judged.clips}),
            "classes": len(heard.classes),
            "judge": float(before[0]),
            **{
                name: asdict(interval(float(value[name][0]), drawn[name], len(own)))
                for name in ("uar", "kept")
            },
        }
    return out


def markdown(results: dict[str, Any]) -> str:
    """One row a task."""
    rows = []
    for task, found in results.items():
        uar, kept = found["uar"], found["kept"]
        rows.append(
            [
                task,
                f"{found['clips']} ({found['speakers']})",
                str(found["classes"]),
                f"{found['judge']:.3f}",
                f"{uar['mean']:.3f} [{uar['low']:.3f}, {uar['high']:.3f}]",
                f"{kept['mean']:.2f} [{kept['low']:.2f}, {kept['high']:.2f}]",
            ]
        )
    header = ["task", "clips (speakers)", "classes", "eGeMAPS + SVM, original", "head", "kept"]
    return table(header, rows) + "\n"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("manifest", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--weights", help="Weights: the name of shipped ones, or a folder.")
@click.option("--stages", default=2, show_default=True, help="Emotion stages to read.")
@click.option("--train/--no-train", "learn", default=True, show_default=True,
              help="Train a head beside the weights, or score the one there.")  # fmt: skip
@click.option("--score", "split", default="dev", show_default=True, help="Split to score on.")
@click.option("--work", type=click.Path(file_okay=False, path_type=Path),
              help="Folder that keeps tokens between runs.")  # fmt: skip
@click.option("--cache", type=click.Path(file_okay=False, path_type=Path), default=default_cache,
              help="Measured values of the judge.")  # fmt: skip
@click.option("--jobs", default=1, show_default=True)
@click.option("--quiet", "-q", is_flag=True, help="No progress bar.")
def main(
    manifest: Path, weights: str | None, stages: int, learn: bool, split: str, work: Path | None,
    cache: Path, jobs: int, quiet: bool,
) -> None:  # fmt: skip
    """Train the emotion head on the labelled clips of MANIFEST and score it on another split.

    \b
    Examples:
      python -m affectcodec.evaluation.emotion_head data/manifest.csv --work runs/head
      python -m affectcodec.evaluation.emotion_head data/manifest.csv --no-train --score test
    """
    torch.set_num_threads(1)
    codec = AffectCodec.from_pretrained(weights)
    train = read_manifest(manifest, split="train")
    clips = read_manifest(manifest, split=split)
    check_speakers(train, clips)
    acted = {name for some in emotion_tasks(train, clips).values() for name in some}
    train, clips = labelled(train, sorted(acted)), labelled(clips, sorted(acted))
    if learn:
        reader = EmotionReader.of(codec, stages)
        kept = work / "train.npz" if work else None
        codes = emotion_codes(codec, train, stages, SPEEDS, kept, quiet=quiet)
        labels = [clip.emotion for clip in train for _ in SPEEDS]
        values = read_statistics(codec, reader, codes, quiet=quiet)
        head = fit_head(reader, values, labels, metadata={"licence": LICENCE})
        path = head.save(checkpoint.resolve(weights))
        click.echo(f"{path.name}: {path.stat().st_size} bytes, from {len(values)} clips")
    head = EmotionHead.from_pretrained(weights)
    kept = work / f"{split}.npz" if work else None
    codes = emotion_codes(codec, clips, head.reader.stages, (1.0,), kept, quiet=quiet)
    values = read_statistics(codec, head.reader, codes, quiet=quiet)
    found = score(head, values, train, clips, cache, jobs=jobs, quiet=quiet)
    page = markdown(found)
    if work:
        work.mkdir(parents=True, exist_ok=True)
        (work / f"{split}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    click.echo(page)


if __name__ == "__main__":
    main()
