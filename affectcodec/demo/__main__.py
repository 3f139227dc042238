# SPDX-License-Identifier: Apache-2.0
"""Command: ``python -m affectcodec.demo``."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from tqdm import tqdm

from affectcodec.cli.errors import OneLineErrorsCommand
from affectcodec.cli.options import checked_codec
from affectcodec.cli.outputs import replacing

if TYPE_CHECKING:
    from affectcodec.demo.coding import CodedClip, Row

# A folder with content but without this file is the user's own.
_MARK = "results.json"


@click.command(
    cls=OneLineErrorsCommand,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("affectcodec-demo"),
    show_default=True,
    help="Folder for the page, the .afc files and the audio.",
)
@click.option(
    "--clips",
    "files",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Your audio file, instead of the shipped clips. May be repeated.",
)
@click.option("--weights", metavar="NAME|FOLDER", help="Weights. Default: the shipped ones.")
def main(out: Path, files: tuple[Path, ...], weights: str | None) -> None:
    """Hear the codec: clips at 0.75, 1.5, 3 and 6 kbit/s.

    Codes each clip through .afc files on disk, prints a table of size, speed and quality, and
    writes a page with players, spectrograms and pictures of the tokens that needs no network.

    \b
    Examples:
      python -m affectcodec.demo
      python -m affectcodec.demo --clips me.wav --clips you.flac --out ours
    """
    import torch

    from affectcodec.demo.clips import own_clips, shipped_clips
    from affectcodec.demo.coding import code_clip, missing_metrics, rows_of
    from affectcodec.demo.page import render

    if out.is_dir() and any(out.iterdir()) and not (out / _MARK).is_file():
        raise click.BadParameter(
            f"{out} holds files that are not of this demo; name another folder",
            param_hint="--out",
        )
    codec = checked_codec(weights)
    rate = codec.config.sample_rate
    clips = own_clips(files, rate) if files else shipped_clips(rate)
    missing = missing_metrics()
    if missing:
        click.echo(
            f"Note: no quality figures, {', '.join(missing)} missing: "
            "pip install 'affectcodec[demo]'",
            err=True,
        )
    torch.set_num_threads(1)
    codec.decode(codec.encode(clips[0].wave))  # first calls set things up; they are not timed
    bar = tqdm(clips, unit="clip", disable=not sys.stderr.isatty(), file=sys.stderr)
    coded = [code_clip(codec, clip, out / clip.name) for clip in bar]
    means, each = rows_of(coded)
    click.echo(table(coded, means, each))
    facts = weight_facts(weights)
    with replacing(out / "report.html") as path:
        path.write_text(render(coded, means, each, codec, facts), encoding="utf-8")
    with replacing(out / _MARK) as path:
        path.write_text(json.dumps(results(means, each), indent=1, allow_nan=False) + "\n")
    size = (out / "report.html").stat().st_size
    click.echo(f"\nOpen {out / 'report.html'} in a browser ({size / 1e6:.1f} MB, no network).")


def table(coded: Sequence[CodedClip], means: Sequence[Row], each: Sequence[Row]) -> str:
    """The figures for a terminal."""
    from affectcodec.demo.coding import METRICS, shown

    width = max(len("all clips"), *(len(c.clip.name) for c in coded))
    titles = [title for _, title, _ in METRICS]
    head = f"{'clip':<{width}}  kbit/s   bytes  on disk  RTF enc  RTF dec  " + "  ".join(titles)
    lines = [head, "-" * len(head)]
    for rows in (each, means) if len(coded) > 1 else (each,):
        for index, row in enumerate(rows):
            new = index == 0 or rows[index - 1].title != row.title
            scores = "  ".join(
                f"{shown(row.scores[name], decimals):>{len(title)}}"
                for name, title, decimals in METRICS
            )
            lines.append(
                f"{row.title if new else '':<{width}}  {row.label:>6}  {row.size:>6.0f}  "
                f"{row.disk_kbps:>7.2f}  {row.encode_factor:>7.3f}  {row.decode_factor:>7.3f}  "
                f"{scores}"
            )
        lines.append("-" * len(head))
    lines.append(
        "on disk: kbit/s of the file, container included. RTF: seconds of work a second of audio,\n"
        "one thread, files included. PESQ-WB 1.02 to 4.64, STOI and F0 correlation up to 1."
    )
    return "\n".join(lines)


def results(means: Sequence[Row], each: Sequence[Row]) -> dict[str, Any]:
    """The figures as JSON types."""

    def plain(row: Row) -> dict[str, Any]:
        scores = {k: None if math.isnan(v) else round(v, 4) for k, v in row.scores.items()}
        return {
            "clip": row.title,
            "kbps": float(row.label),
            "bytes": row.size,
            "kbps_on_disk": round(row.disk_kbps, 4),
            "rtf_encode": round(row.encode_factor, 5),
            "rtf_decode": round(row.decode_factor, 5),
            **scores,
        }

    return {"means": [plain(row) for row in means], "clips": [plain(row) for row in each]}


def weight_facts(weights: str | None) -> dict[str, str]:
    """Name and licence of the weights, as far as their folder says."""
    from affectcodec.checkpoint import CONFIG_NAME, resolve

    folder = resolve(weights)
    record = json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))
    metadata = record.get("metadata") if isinstance(record, dict) else None
    facts = {"name": folder.name}
    if isinstance(metadata, dict):
        for key in ("licence", "license"):
            if isinstance(metadata.get(key), str):
                facts["licence"] = metadata[key]
    return facts


if __name__ == "__main__":
    main(prog_name="python -m affectcodec.demo")
