# SPDX-License-Identifier: Apache-2.0
"""Does moving or removing the emotion stream of tokens move what emotion judges hear?

    python -m affectcodec.evaluation.algebra data/manifest.csv --split test --out results/algebra

Every labelled clip is paired with a donor: same speaker, another emotion, the nearest in length
of speech (the same sentence where there is one). Both are cut to their speech, and decoded

    coded      as they are
    emotion    with the emotion codes of the donor
    acoustic   with as many acoustic bits a frame of the donor, those of the first stages
    detail     the same with those of the last stages
    neutral    with the emotion codes of a neutral clip of the speaker
    cut        with no emotion stage at all

`moved` is the share of clips that a judge gives the donor's label, less the share that it gave it
before; `margin` the change of its score for the donor's label less that for the own one, in
deviations of that score over the coded clips. Both compare emotion with acoustic and with detail,
paired, with a bootstrap over speakers. Stripping is measured by UAR and, where there are
transcripts, WER.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from tqdm import tqdm

from affectcodec.codec import AffectCodec
from affectcodec.evaluation.algebra_tokens import Trio, make_trios, speech_tokens, variants
from affectcodec.evaluation.alignment import active_region
from affectcodec.evaluation.assess import emotion_tasks, labelled, train_judge
from affectcodec.evaluation.bootstrap import draw_weights, estimate, interval
from affectcodec.evaluation.campaign import ORIGINAL, content_hash, load_clip, measure_all
from affectcodec.evaluation.codecs import make_codecs
from affectcodec.evaluation.emotion import recalls
from affectcodec.evaluation.evaluate import check_speakers
from affectcodec.evaluation.judges import JUDGES, FittedJudge
from affectcodec.evaluation.measures import BY_NAME, Pair, find_measures
from affectcodec.evaluation.runs import write_results
from affectcodec.evaluation.store import Store, Value, default_cache, entry_key
from affectcodec.evaluation.tables import table
from affectcodec.evaluation.words import count_errors, error_rate
from affectcodec.manifest import Clip, evenly, read_manifest

CONDITIONS = ("coded", "emotion", "acoustic", "detail", "neutral", "cut")
TRANSCRIBED = ("coded", "emotion", "acoustic", "neutral", "cut")
CONTROLS = ("acoustic", "detail")
VERSION = 1


def hear(
    codec: AffectCodec,
    trios: Sequence[Trio],
    stages: int,
    measures: Sequence[str],
    words: Sequence[bool],
    store: Store,
    *,
    quiet: bool = False,
) -> list[dict[str, dict[str, Value]]]:
    """Measured values `[trio][condition][measure]`; from the store where it has them.

    Args:
        measures: of the judges.
        words: whether a trio is transcribed, too.
    """
    out = []
    for trio, spoken in zip(tqdm(trios, unit="clip", disable=quiet or None), words, strict=True):
        own = [*measures, *(["transcript"] if spoken and trio.clip.transcript else [])]
        parts = [content_hash(c.file) for c in (trio.clip, trio.donor, trio.neutral)]
        names = {
            (condition, name): entry_key(
                "algebra", VERSION, codec.fingerprint, stages, *parts, condition, name,
                BY_NAME[name].version,
            )
            for condition in CONDITIONS
            for name in own
            if name != "transcript" or condition in TRANSCRIBED
        }  # fmt: skip
        values = store.get(list(names.values()))
        if len(values) < len(names):
            some = (speech_tokens(codec, c, stages) for c in (trio.clip, trio.donor, trio.neutral))
            for condition, tokens in variants(*some).items():
                missing = [
                    (name, key)
                    for (where, name), key in names.items()
                    if where == condition and key not in values
                ]
                if not missing:
                    continue
                wav = codec.decode(tokens)[0, 0].numpy()
                # heard whole: the speech of the clip, whatever a condition makes of its level
                pair = Pair(trio.clip, np.ones_like(wav), wav)
                fresh = [(key, _value(name, pair)) for name, key in missing]
                store.put(fresh)
                values |= dict(fresh)
        found: dict[str, dict[str, Value]] = {condition: {} for condition in CONDITIONS}
        for (condition, name), key in names.items():
            found[condition][name] = values[key]
        out.append(found)
    return out


def _value(name: str, pair: Pair) -> Value:
    try:
        return BY_NAME[name].compute(pair)
    except ValueError as error:
        return {"failed": str(error)}


def compare(
    judge: FittedJudge,
    trios: Sequence[Trio],
    heard: Sequence[Mapping[str, Mapping[str, Value]]],
) -> dict[str, Any]:
    """What one judge makes of the conditions, with intervals.

    Raises:
        ValueError: no clip that has features in all conditions and labels that the judge knows.
    """
    name = judge.judge.measure
    rows = [
        i
        for i, trio in enumerate(trios)
        if {trio.clip.emotion, trio.donor.emotion} <= set(judge.classes)
        and all(isinstance(heard[i][c].get(name), np.ndarray) for c in CONDITIONS)
    ]
    if not rows:
        raise ValueError(f"algebra: no clip that {judge.judge.name} could hear in all conditions")
    clips = [trios[i].clip for i in rows]
    weights = draw_weights([c.speaker for c in clips], [c.dataset for c in clips])
    own = np.array([judge.classes.index(c.emotion) for c in clips])
    donor = np.array([judge.classes.index(trios[i].donor.emotion) for i in rows])
    answers, margins = {}, {}
    for condition in CONDITIONS:
        values = np.stack([np.asarray(heard[i][condition][name], np.float64) for i in rows])
        answers[condition] = judge.decide(values)
        scores = judge.model.decision_function(values)
        if scores.ndim == 1:
            scores = np.stack([-scores, scores], 1)
        each = np.arange(len(rows))
        margins[condition] = scores[each, donor] - scores[each, own]
    spread = float(np.std(margins["coded"])) or 1.0
    count = len(judge.classes)
    out: dict[str, Any] = {"clips": len(rows), "speakers": len({c.speaker for c in clips})}
    moved = {
        c: (answers[c] == donor).astype(float) - (answers["coded"] == donor) for c in CONDITIONS
    }
    pulled = {c: (margins[c] - margins["coded"]) / spread for c in CONDITIONS}
    for condition in CONDITIONS:
        once = np.ones((1, len(rows)))
        recall = [
            np.nanmean(recalls(own, answers[condition], count, w), axis=1) for w in (once, weights)
        ]
        out[condition] = {
            "uar": asdict(interval(float(recall[0][0]), recall[1], len(rows))),
            "moved": asdict(estimate(moved[condition], weights)),
            "margin": asdict(estimate(pulled[condition], weights)),
            "changed": float(np.mean(answers[condition] != answers["coded"])),
        }
    for control in CONTROLS:
        out[f"emotion_over_{control}"] = {
            "moved": asdict(estimate(moved["emotion"] - moved[control], weights)),
            "margin": asdict(estimate(pulled["emotion"] - pulled[control], weights)),
        }
    return out


def compare_words(
    trios: Sequence[Trio], heard: Sequence[Mapping[str, Mapping[str, Value]]]
) -> dict[str, Any]:
    """WER of the conditions, by language, and its change from `coded`, in points."""
    out: dict[str, Any] = {}
    rows = [i for i, one in enumerate(heard) if "transcript" in one["coded"]]
    for language in sorted({trios[i].clip.language or "en" for i in rows}):
        some = [i for i in rows if (trios[i].clip.language or "en") == language]
        clips = [trios[i].clip for i in some]
        weights = draw_weights([c.speaker for c in clips], [c.dataset for c in clips])
        entry: dict[str, Any] = {"clips": len(some)}
        edits: dict[str, np.ndarray] = {}
        length = np.zeros(len(some))
        for condition in TRANSCRIBED:
            counts = [_errors(heard[i][condition].get("transcript"), trios[i].clip) for i in some]
            edits[condition] = np.array([c[0] for c in counts])
            length = np.array([c[1] for c in counts])
            entry[condition] = {
                "wer": asdict(error_rate(edits[condition], length, weights)),
                "change": asdict(error_rate(edits[condition] - edits["coded"], length, weights)),
            }
        out[language] = entry
    return out


def _errors(value: Value | None, clip: Clip) -> tuple[float, float]:
    if not isinstance(value, dict) or "text" not in value:
        return float("nan"), float("nan")
    found = count_errors(clip.transcript, str(value["text"]), clip.language or "en")
    return float(found.word_edits), float(found.words)


def markdown(results: Mapping[str, Any]) -> str:
    """One table a judge, and one of words."""
    parts = []
    for name, found in results["judges"].items():
        rows = [
            [
                f"`{c}`",
                _shown(found[c]["uar"]),
                _shown(found[c]["moved"]),
                _shown(found[c]["margin"]),
            ]
            for c in CONDITIONS
        ]
        for control in CONTROLS:
            more = found[f"emotion_over_{control}"]
            shown = [_shown(more["moved"]), _shown(more["margin"])]
            rows.append([f"emotion less {control}", "", *shown])
        parts.append(f"{name}: {found['clips']} clips, {found['speakers']} speakers")
        parts.append(table(["condition", "UAR", "moved to the donor", "margin"], rows))
    for language, found in results["words"].items():
        rows = [
            [f"`{c}`", _shown(found[c]["wer"]), _shown(found[c]["change"])] for c in TRANSCRIBED
        ]
        parts.append(f"words, {language}: {found['clips']} clips")
        parts.append(table(["condition", "WER", "change"], rows))
    return "\n\n".join(parts) + "\n"


def _shown(value: Mapping[str, Any]) -> str:
    return f"{value['mean']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("manifest", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--weights", help="Weights: the name of shipped ones, or a folder.")
@click.option("--split", default="test", show_default=True, help="Split to measure on.")
@click.option("--stages", default=4, show_default=True,
              help="Stages of the tokens: emotion bits must fill acoustic stages.")  # fmt: skip
@click.option("--limit", type=click.IntRange(min=1), help="At most so many clips, evenly chosen.")
@click.option("--words", default=60, show_default=True, help="Clips that are transcribed, too.")
@click.option("--judge", "judges", multiple=True, type=click.Choice([j.name for j in JUDGES]),
              help="Default: both.")  # fmt: skip
@click.option("--out", type=click.Path(file_okay=False, path_type=Path))
@click.option("--cache", type=click.Path(file_okay=False, path_type=Path), default=default_cache,
              help="Measured values.")  # fmt: skip
@click.option("--quiet", "-q", is_flag=True, help="No progress bar.")
def main(
    manifest: Path, weights: str | None, split: str, stages: int, limit: int | None, words: int,
    judges: tuple[str, ...], out: Path | None, cache: Path, quiet: bool,
) -> None:  # fmt: skip
    """Swap and strip the emotion stream of the clips of MANIFEST, and ask the emotion judges.

    \b
    Examples:
      python -m affectcodec.evaluation.algebra data/manifest.csv --out results/algebra
      python -m affectcodec.evaluation.algebra data/manifest.csv --split dev --limit 60 --words 0
    """
    torch.set_num_threads(1)
    codec = AffectCodec.from_pretrained(weights)
    train, clips = read_manifest(manifest, split="train"), read_manifest(manifest, split=split)
    check_speakers(train, clips)
    acted = sorted({name for some in emotion_tasks(train, clips).values() for name in some})
    train, clips = labelled(train, acted), labelled(clips, acted)
    seconds = {}
    for clip in clips:
        region = active_region(load_clip(clip)) or (0, 0)
        seconds[clip.file] = (region[1] - region[0]) / 16000.0
    trios = make_trios([clip for clip in clips if seconds[clip.file] > 0], seconds)
    if limit is not None:
        keep = set(evenly([trio.clip for trio in trios], limit))
        trios = [trio for trio in trios if trio.clip in keep]
    if not trios:
        raise click.ClickException(f"{manifest}: no speaker of {split!r} with two emotions")
    chosen = [judge for judge in JUDGES if judge.name in judges or not judges]
    measures = find_measures([judge.measure for judge in chosen])
    spoken = set(evenly([trio.clip for trio in trios], words)) if words else set()
    with Store(cache) as store:
        plain: dict[str, str | None] = {"affectcodec": None}
        originals = make_codecs([ORIGINAL], plain)
        measured = measure_all(
            [(train, [ORIGINAL], measures)], originals, store, weights=plain, progress=not quiet
        )
        heard = hear(
            codec,
            trios,
            stages,
            [row.name for row in measures],
            [trio.clip in spoken for trio in trios],
            store,
            quiet=quiet,
        )
    results = {
        "split": split,
        "stages": stages,
        "fingerprint": codec.fingerprint,
        "judges": {
            judge.name: compare(train_judge(judge, measured, train, ORIGINAL), trios, heard)
            for judge in chosen
        },
        "words": compare_words(trios, heard),
    }
    page = markdown(results)
    if out is not None:
        write_results(out, "algebra", results, page)
    click.echo(page)


if __name__ == "__main__":
    main()
