# SPDX-License-Identifier: Apache-2.0
"""The report as one HTML file: curves, bars, matrices, token use, tables and sound.

Sound is made of the clips that ship with the package (public domain and CC BY): no clip of a
corpus goes into a page that may be passed on.
"""

from __future__ import annotations

import base64
import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from affectcodec import __version__
from affectcodec.audio import load_audio, save_audio
from affectcodec.evaluation.alignment import SAMPLE_RATE, shift
from affectcodec.evaluation.assess import CLIP_METRICS, JOINT
from affectcodec.evaluation.baselines import Codec
from affectcodec.evaluation.campaign import ORIGINAL
from affectcodec.evaluation.charts import (
    Point,
    class_bars,
    curves,
    heat_map,
    legend,
    matrix,
)
from affectcodec.evaluation.codecs import CONTROLS
from affectcodec.evaluation.page_style import STYLE
from affectcodec.evaluation.tables import verdict

CURVES = (
    "f0_corr",
    "f0_range_ratio",
    "vuv_error",
    "energy_corr",
    "pesq_wb",
    "stoi",
    "visqol",
    "dnsmos_ovrl",
    "speaker_similarity",
    "mel_db",
)
_BY_NAME = {metric.name: metric for metric in CLIP_METRICS}
_MOST_BARS = 6
_MOST_MATRICES = 9
SOUND_CLIPS = ("female-1.flac", "male-3.flac")


def family(name: str) -> str:
    """What stands before the colon; a control stands for itself."""
    return name.partition(":")[0]


def is_control(name: str) -> bool:
    """Whether the bits of a codec mean nothing."""
    return name in CONTROLS or family(name) == "lowpass"


def render(
    results: Mapping[str, Any],
    markdown: str,
    *,
    sounds: Sequence[tuple[str, str, Sequence[tuple[str, bytes]]]] = (),
    token_use: Mapping[str, Mapping[str, Sequence[Sequence[float]]]] | None = None,
) -> str:
    """HTML of a run.

    Args:
        results: as `evaluate.collect` gives them.
        markdown: the page of tables, shown at the end.
        sounds: (title, credit, [(codec, FLAC bytes)]) of each clip.
        token_use: label -> block -> share of each digit's entropy `[stage][dim]`.
    """
    everyone = results["metrics"]["all"]["codecs"]
    rates = {name: float(own["kbps"]) for name, own in everyone.items()}
    families = list(dict.fromkeys(family(name) for name in rates if not is_control(name)))
    colours = {name: index for index, name in enumerate(families)}
    body = [
        f"<header><h1>Evaluation, {escape(str(results['split']))} split</h1>",
        f"<pre>{escape(results['command'])}</pre>",
        _weak_spots(results),
        "</header>",
        "<section><h2>Over the bit rate</h2>",
        legend(families, colours),
        '<div class="charts">',
        *_emotion_curves(results, rates, colours),
        *_word_curves(results, rates, colours),
        *_metric_curves(everyone, rates, colours),
        "</div></section>",
    ]
    for task, judges in results.get("emotion", {}).items():
        body.append(_emotion(task, judges))
    if token_use:
        body.append(_token_use(token_use))
    if sounds:
        body.append(_sounds(sounds))
    body.append(f"<section><h2>All figures</h2>{tables_html(markdown)}</section>")
    packages = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    body.append(f'<p class="soft">affectcodec {escape(__version__)}; {escape(packages)}</p>')
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>AffectCodec evaluation</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(body)
        + "\n</main>\n</body>\n</html>\n"
    )


def _weak_spots(results: Mapping[str, Any]) -> str:
    """Comparisons that were lost, first; a page that opens with them hides nothing."""
    lost, open_ = [], 0
    for task, judges in results.get("emotion", {}).items():
        for judge in judges.values():
            for pair in judge["comparisons"]:
                says = verdict(pair["kept"], 1)
                where = f"emotion kept ({task}, {judge['title']})"
                lost += [(pair, where)] if says == "worse" else []
                open_ += says == "open"
    for pair in results.get("words", {}).get("all", {}).get("comparisons", []):
        says = verdict(pair["wer"], -1)
        lost += [(pair, "WER")] if says == "worse" else []
        open_ += says == "open"
    for pair in results["metrics"]["all"]["comparisons"]:
        for name in CURVES:
            entry = pair["difference"][name]
            says = verdict(entry, _BY_NAME[name].better) if entry["count"] else ""
            lost += [(pair, _BY_NAME[name].title)] if says == "worse" else []
            open_ += says == "open" and bool(_BY_NAME[name].better)
    if not lost:
        return f'<p class="weak">No comparison was lost; {open_} are open.</p>'
    by_pair: dict[str, list[str]] = {}
    for pair, where in lost:
        by_pair.setdefault(f"{pair['codec']} against {pair['against']}", []).append(where)
    items = "".join(
        f"<li><code>{escape(pair)}</code>: {escape(', '.join(where))}</li>"
        for pair, where in by_pair.items()
    )
    return (
        f'<div class="weak"><b>Lost comparisons</b> ({open_} more are open)<ul>{items}</ul></div>'
    )


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _points(entries: Mapping[str, Mapping[str, Any]], rates: Mapping[str, float]) -> Any:
    series: dict[str, list[Point]] = {}
    for name, entry in entries.items():
        if is_control(name):
            continue
        mean, low, high = (_number(entry[key]) for key in ("mean", "low", "high"))
        series.setdefault(family(name), []).append(Point(name, rates[name], mean, low, high))
    return series


def _emotion_curves(
    results: Mapping[str, Any], rates: Mapping[str, float], colours: Mapping[str, int]
) -> list[str]:
    tasks = results.get("emotion", {})
    chosen = JOINT if JOINT in tasks else next(iter(tasks), None)
    if chosen is None:
        return []
    out = []
    for judge in tasks[chosen].values():
        for name, title, better in (
            ("kept", "emotion kept", 1),
            ("macro_degradation", "macro emotion degradation", -1),
        ):
            entries = {codec: own[name] for codec, own in judge["codecs"].items()}
            reference = _number(entries.get(ORIGINAL, {}).get("mean"))
            out.append(
                curves(
                    f"{title}, {chosen}: {judge['title']}",
                    _points(entries, rates),
                    colours,
                    reference=reference,
                    better=better,
                )
            )
    return out


def _word_curves(
    results: Mapping[str, Any], rates: Mapping[str, float], colours: Mapping[str, int]
) -> list[str]:
    out = []
    for group, words in results.get("words", {}).items():
        entries = {name: own["wer"] for name, own in words["codecs"].items()}
        reference = _number(entries.get(ORIGINAL, {}).get("mean"))
        title = "word error rate" + ("" if group == "all" else f", {group}")
        out.append(curves(title, _points(entries, rates), colours, reference=reference, better=-1))
    return out


def _metric_curves(
    everyone: Mapping[str, Any], rates: Mapping[str, float], colours: Mapping[str, int]
) -> list[str]:
    out = []
    for name in CURVES:
        entries = {
            codec: own["metrics"][name]
            for codec, own in everyone.items()
            if own["metrics"][name]["count"]
        }
        reference = _number(entries.get(ORIGINAL, {}).get("mean"))
        metric = _BY_NAME[name]
        out.append(
            curves(
                metric.title,
                _points(entries, rates),
                colours,
                reference=reference,
                better=metric.better,
            )
        )
    return out


def _emotion(task: str, judges: Mapping[str, Any]) -> str:
    parts = [f"<section><h2>Emotion, {escape(task)}</h2>"]
    for judge in judges.values():
        names = list(judge["codecs"])
        parts.append(
            f"<h3>{escape(judge['title'])}</h3>"
            f'<p class="soft">{judge["clips"]} clips of {judge["speakers"]} speakers. '
            f"Recall by class:</p>"
        )
        rows = [(name, judge["codecs"][name]["recall"]) for name in names[:_MOST_BARS]]
        parts.append(class_bars(rows, judge["classes"]))
        parts.append('<div class="matrices">')
        parts += [
            matrix(name, judge["codecs"][name]["confusion"], judge["classes"])
            for name in names[:_MOST_MATRICES]
        ]
        parts.append("</div>")
    return "".join(parts) + "</section>"


def _token_use(token_use: Mapping[str, Mapping[str, Sequence[Sequence[float]]]]) -> str:
    parts = [
        "<section><h2>Use of the tokens</h2><p>Entropy of each digit over the most it can "
        'carry: 1 uses every level alike, 0 is a constant.</p><div class="matrices">'
    ]
    for label, blocks in token_use.items():
        parts += [
            heat_map(f"{label}, {block}", values, "stage", "dim")
            for block, values in blocks.items()
        ]
    return "".join(parts) + "</div></section>"


def _sounds(sounds: Sequence[tuple[str, str, Sequence[tuple[str, bytes]]]]) -> str:
    parts = ["<section><h2>Listen</h2>"]
    for title, credit, versions in sounds:
        parts.append(f"<h3>{escape(title)}</h3><div class='players'>")
        for name, data in versions:
            source = base64.b64encode(data).decode()
            parts.append(
                f"<div><code>{escape(name)}</code><audio controls preload='none' "
                f'aria-label="{escape(name)}" src="data:audio/flac;base64,{source}"></audio></div>'
            )
        parts.append(f"</div><p class='soft'>{escape(credit)}</p>")
    return "".join(parts) + "</section>"


def make_sounds(
    codecs: Sequence[Codec], delays: Mapping[str, int], names: Sequence[str] = SOUND_CLIPS
) -> list[tuple[str, str, list[tuple[str, bytes]]]]:
    """The package's own clips through every codec, as FLAC."""
    folder = Path(str(files("affectcodec") / "samples"))
    with (folder / "manifest.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    out = []
    for name in names:
        wav, _ = load_audio(folder / name, sample_rate=SAMPLE_RATE)
        versions = []
        for codec in codecs:
            coded = shift(codec.roundtrip(wav).wav, delays.get(codec.name, 0), len(wav))
            buffer = io.BytesIO()
            save_audio(buffer, np.clip(coded, -1.0, 1.0), SAMPLE_RATE, format=".flac")
            versions.append((codec.name, buffer.getvalue()))
        row = rows[name]
        out.append((row["transcript"], f"{row['attribution']}; {row['licence']}", versions))
    return out


_CODE = re.compile(r"`([^`]+)`")


def tables_html(markdown: str) -> str:
    """The Markdown that `tables.py` writes, as HTML: headings, tables, lists, code, paragraphs."""
    out = []
    for part in markdown.strip().split("\n\n"):
        lines = part.splitlines()
        if part.startswith("```"):
            continue
        if part.startswith("#"):
            level = min(len(part) - len(part.lstrip("#")) + 1, 4)
            if level > 2:
                out.append(f"<h{level}>{_inline(part.lstrip('# '))}</h{level}>")
        elif part.startswith("|"):
            rows = [line.strip("| ").split(" | ") for line in lines]
            head = "".join(f"<th>{_inline(cell)}</th>" for cell in rows[0])
            cells = "".join(
                "<tr>" + "".join(f"<td>{_inline(cell)}</td>" for cell in row) + "</tr>"
                for row in rows[2:]
            )
            out.append(f'<div class="scroll"><table><tr>{head}</tr>{cells}</table></div>')
        elif len(lines) > 1 and lines[1].startswith("- "):
            items = "\n".join(lines[1:])[2:].split("\n- ")
            listed = "".join(f"<li>{_inline(item)}</li>" for item in items)
            out.append(f"<p>{_inline(lines[0])}</p><ul>{listed}</ul>")
        else:
            out.append(f"<p>{_inline(part)}</p>")
    return "\n".join(out)


def _inline(text: str) -> str:
    return _CODE.sub(r"<code>\1</code>", escape(text, quote=False))
