# SPDX-License-Identifier: Apache-2.0
"""The page: one HTML file that holds its audio, pictures, style and script."""

from __future__ import annotations

import base64
import io
import platform
from collections.abc import Sequence
from html import escape

import numpy as np

from affectcodec import __version__
from affectcodec.audio import save_audio
from affectcodec.codec import AffectCodec
from affectcodec.demo.coding import METRICS, CodedClip, Row, Version, shown
from affectcodec.demo.pictures import (
    codes_png,
    contour_paths,
    contour_range,
    spectrogram_png,
    spectrum_db,
)
from affectcodec.demo.style import SCRIPT, STYLE
from affectcodec.evaluation.pitch import f0_track


def render(
    coded: Sequence[CodedClip],
    means: Sequence[Row],
    each: Sequence[Row],
    codec: AffectCodec,
    facts: dict[str, str],
) -> str:
    """HTML of the report.

    Args:
        coded: clips in the order of the page.
        means, each: as ``rows_of`` gives them.
        codec: what coded them.
        facts: ``name`` and, where known, ``licence`` of the weights.
    """
    body = [_opening(codec, facts), _summary(means, each, single=len(coded) == 1)]
    body += [_clip(item) for item in coded]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>AffectCodec demo</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(body)
        + f"\n</main>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def _opening(codec: AffectCodec, facts: dict[str, str]) -> str:
    config = codec.config
    shares = "; ".join(
        f"{escape(block.name)} {block.bits:g} bits ({block.bits / config.quantizer.token_bits:.0%})"
        for block in config.quantizer.blocks
    )
    licence = f", licence {escape(facts['licence'])}" if "licence" in facts else ""
    return (
        "<header>\n<h1>AffectCodec, heard and seen</h1>\n"
        "<p>A speech codec in which a fixed share of the bits belongs to emotion. Every version "
        "below was written to an <code>.afc</code> file, read back and decoded; the files lie "
        "beside this page.</p>\n"
        f"<p>Each of {config.frame_rate:g} frames a second is coded in up to "
        f"{config.quantizer.num_stages} stages, each finer than the one before. A stage costs "
        f"{1000 * config.kbps(1):g} bit/s and holds one token: {shares}. Lower rates use the "
        "first stages of the same code.</p>\n"
        f'<p class="soft">affectcodec {escape(__version__)}, weights {escape(facts["name"])} '
        f"({codec.fingerprint}{licence}), {sum(p.numel() for p in codec.parameters()) / 1e6:.1f} M "
        f"parameters, latency {codec.latency.milliseconds:g} ms.</p>\n</header>"
    )


def _summary(means: Sequence[Row], each: Sequence[Row], *, single: bool) -> str:
    rows = each if single else means
    details = ""
    if not single:
        details = (
            '<details><summary class="soft">Each clip</summary>\n'
            f"{_table(each, titled=True)}</details>\n"
        )
    machine = platform.machine() or "unknown machine"
    return (
        "<section>\n<h2>Size, speed, quality</h2>\n"
        + _table(rows, titled=False)
        + '<p class="soft">On disk: bytes of the file, header and checksums included, as a rate; '
        "the shorter a clip, the more the header weighs. Real-time factor: seconds of work a "
        f"second of audio, files included, on one thread ({escape(machine)}); 0.01 is a hundred "
        "times faster than real time. PESQ-WB reaches from 1.02 to 4.64, STOI and the "
        "correlation of F0 up to 1. A few clips are an illustration, not an evaluation.</p>\n"
        + details
        + "</section>"
    )


def _table(rows: Sequence[Row], *, titled: bool) -> str:
    heads = ["kbit/s", "bytes", "kbit/s on disk", "RTF encode", "RTF decode"]
    heads += [title for _, title, _ in METRICS]
    if titled:
        heads.insert(0, "clip")
    lines = []
    for index, row in enumerate(rows):
        new = titled and index > 0 and rows[index - 1].title != row.title
        first = titled and (index == 0 or new)
        cells = [escape(row.title) if first else ""] if titled else []
        cells += [row.label, f"{row.size:.0f}", f"{row.disk_kbps:.2f}"]
        cells += [f"{row.encode_factor:.3f}", f"{row.decode_factor:.3f}"]
        cells += [shown(row.scores[name], decimals) for name, _, decimals in METRICS]
        mark = ' class="new"' if new else ""
        lines.append(f"<tr{mark}>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    head = "".join(f'<th scope="col">{title}</th>' for title in heads)
    return (
        '<div class="scroll"><table>\n<thead><tr>'
        f"{head}</tr></thead>\n<tbody>\n" + "\n".join(lines) + "\n</tbody></table></div>\n"
    )


def _clip(item: CodedClip) -> str:
    clip = item.clip
    top = float(spectrum_db(clip.wave).max())
    cards = [_card(clip.wave, item, top, None)]
    cards += [_card(version.wave, item, top, version) for version in item.versions]
    text = f"<blockquote>{escape(clip.text)}</blockquote>\n" if clip.text else ""
    credit = f'<p class="credit">{escape(clip.credit)}</p>\n' if clip.credit else ""
    return (
        f"<section>\n<h2>{escape(clip.title)}</h2>\n{text}"
        f'<div class="cards">\n{"".join(cards)}</div>\n{_tracks(item)}{credit}</section>'
    )


def _card(wave: np.ndarray, item: CodedClip, top_db: float, version: Version | None) -> str:
    rate = item.sample_rate
    if version is None:
        title, note = "Original", f"{item.seconds:.1f} s"
        facts = [("16-bit PCM", f"{rate * 16 / 1000:g} kbit/s"), ("bytes", f"{2 * len(wave)}")]
    else:
        title, note = f"{version.label} kbit/s", f"{version.size} bytes"
        facts = [("on disk", f"{version.disk_kbps:.2f} kbit/s")]
        facts += [(name, shown(version.scores[key], n)) for key, name, n in METRICS]
    rows = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts)
    sound = io.BytesIO()
    save_audio(sound, wave, rate, format=".flac")
    label = escape(f"{item.clip.title}, {title}")
    picture = _data("image/png", spectrogram_png(wave, top_db))
    return (
        f'<div class="card"><h4>{title} <span>{note}</span></h4>\n<div class="picture">'
        f'<img alt="Spectrogram: {label}" src="{picture}">'
        f'<span class="axis" style="top:5px">{rate / 2000:g} kHz</span>'
        '<span class="axis" style="bottom:5px">0</span><div class="head"></div></div>\n'
        f'<audio controls preload="metadata" aria-label="{label}" '
        f'src="{_data("audio/flac", sound.getvalue())}"></audio>\n<dl>{rows}</dl></div>\n'
    )


def _tracks(item: CodedClip) -> str:
    """Pitch and tokens of a clip over one time axis."""
    best = item.versions[-1]
    quantizer = best.tokens.quantizer
    rows = [_pitch_row(item)]
    for block in quantizer.blocks:
        codes = best.tokens.block_codes(block.name)[0].numpy()
        # The last frame only flushes the overlap: without it the axis is that of the audio.
        codes = codes[:, : max(1, codes.shape[1] - 1)]
        name = escape(block.name)
        rows.append(
            f'<div class="name">{name} codes<br>{block.bits:g} bits</div>\n'
            f'<div class="box tokens"><img alt="{name} codes of every stage and frame" '
            f'src="{_data("image/png", codes_png(codes, block.codebook_size))}">'
            f'{_rate_lines(item, len(codes))}<div class="head"></div></div>\n'
            f'<div class="side">{_rate_labels(item, len(codes))}</div>\n'
        )
    eight = any(block.codebook_size == 8 for block in quantizer.blocks)
    wide = any(block.codebook_size == 4096 for block in quantizer.blocks)
    frame_ms = 1000 * best.tokens.hop_length / item.sample_rate
    legend = f"Each column is a frame of {frame_ms:g} ms, each row a stage, the first on top. "
    if eight:
        legend += "The eight emotion codes have a colour each. "
    if wide:
        legend += "The 12 bits of an acoustic code are the 12 bits of its colour. "
    legend += "What lies above a line is all that the rate beside it sends."
    return (
        f'<figure>\n<div class="tracks">\n{"".join(rows)}<div></div><div class="time">'
        f"<span>0 s</span><span>{item.seconds:.1f} s</span></div><div></div>\n</div>\n"
        f"<figcaption>{legend}</figcaption>\n</figure>\n"
    )


def _pitch_row(item: CodedClip) -> str:
    low, high = item.versions[0], item.versions[-1]
    lines = [("o", "original", item.clip.wave), ("l", low.label, low.wave)]
    if high is not low:
        lines.append(("h", high.label, high.wave))
    tracks = [f0_track(wave, "autocorrelation") for _, _, wave in lines]
    bottom, top = contour_range(tracks[:1])
    paths = "".join(
        f'<path class="key-{key}" stroke="currentColor" d="{contour_paths(f0, bottom, top)}"/>'
        for (key, _, _), f0 in zip(lines, tracks, strict=True)
    )
    legend = "".join(
        f'<b class="key-{key}">{name}{"" if key == "o" else " kbit/s"}</b>'
        for key, name, _ in lines
    )
    return (
        f'<div class="name">F0<br>{bottom:.0f} to {top:.0f} Hz</div>\n'
        '<div class="box contour"><svg viewBox="0 0 1000 100" preserveAspectRatio="none" '
        f'role="img" aria-label="Pitch contours">{paths}</svg><div class="head"></div></div>\n'
        f'<div class="legend">{legend}</div>\n'
    )


def _rate_lines(item: CodedClip, stages: int) -> str:
    places = [len(v.tokens.codes[0]) / stages for v in item.versions]
    return "".join(
        f'<i style="top:calc({100 * place:.3f}% - 1px)"></i>' for place in places if place < 1
    )


def _rate_labels(item: CodedClip, stages: int) -> str:
    labels = []
    for index, version in enumerate(item.versions):
        place = 100 * len(version.tokens.codes[0]) / stages
        unit = " kbit/s" if index == len(item.versions) - 1 else ""
        labels.append(f'<span style="top:{place:.3f}%">{version.label}{unit}</span>')
    return "".join(labels)


def _data(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
