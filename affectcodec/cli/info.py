# SPDX-License-Identifier: Apache-2.0
"""``affectcodec info``: what is in ``.afc`` files, or what is installed."""

from __future__ import annotations

import io
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import click

from affectcodec.cli.errors import EXIT_DAMAGED, EXIT_FAILED, describe
from affectcodec.cli.inputs import STREAM, find_inputs
from affectcodec.cli.outputs import binary_stdin


@click.command(short_help="What is in .afc files, or what is installed.")
@click.argument("inputs", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="JSON: a list of objects, one a file.")
def info(inputs: tuple[str, ...], as_json: bool) -> None:
    """Show what .afc files hold; no weights are needed.

    INPUTS are .afc files, folders, quoted patterns, or '-' for standard input. Without any, show
    which parts of AffectCodec are on and why each other one is off.

    \b
    Examples:
      affectcodec info speech.afc
      affectcodec info coded/ --json
      affectcodec info                       the installation
      affectcodec encode a.wav -o - | affectcodec info -

    Of files that were encoded with --compact the coded bit rate is shown, and the most stages that
    any frame of a packet has: frames are not decoded.

    Exit code: 0 all well, 1 some file is unreadable, 3 some file is damaged or cut.
    """
    if not inputs:
        from affectcodec.info import main as installation

        click.get_current_context().exit(installation(["--json"] if as_json else []))
    records, failures = _records(inputs)
    if as_json:
        listed = [*records, *({"error": line} for line in failures)]
        click.echo(json.dumps(listed, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        click.echo("\n\n".join(_rendered(record) for record in records), nl=bool(records))
    for line in failures:
        click.echo(f"Error: {line}", err=True)
    if failures:
        click.get_current_context().exit(EXIT_FAILED)
    if not all(record["ok"] for record in records):
        click.get_current_context().exit(EXIT_DAMAGED)


def _records(inputs: tuple[str, ...]) -> tuple[list[dict[str, Any]], list[str]]:
    failures: list[str] = []
    data: bytes | None = None
    if STREAM in inputs:
        if len(inputs) > 1:
            raise click.UsageError("'-' (standard input) cannot be combined with other inputs.")
        names = ["standard input"]
        data = binary_stdin().read()
    else:
        found, failures = find_inputs(inputs, (".afc",))
        names = [str(item.source) for item in found]
    records = []
    for name in names:
        try:
            records.append(inspect(name, data))
        except (OSError, ValueError) as error:
            failures.append(describe(error, name))
    return records, failures


def inspect(name: str, data: bytes | None = None) -> dict[str, Any]:
    """Everything about one stream, as JSON types.

    Args:
        name: path; only a title where ``data`` holds the stream.
        data: the stream.

    Raises:
        AfcError: the header cannot be read.
        OSError: the file cannot be read.
    """
    import numpy as np

    from affectcodec.bitstream import AfcReader

    if data is None and not Path(name).is_file():
        data = Path(name).read_bytes()
    # Coded payloads are measured and checked, not decoded: that would need weights and minutes.
    size = Path(name).stat().st_size if data is None else len(data)
    packets: Counter[str] = Counter()
    with AfcReader(name if data is None else io.BytesIO(data), decode=False) as reader:
        header = reader.header
        spread: list[Counter[int]] = [Counter() for _ in header.blocks]
        for packet in reader:
            packets[packet.status] += 1
            if packet.status == "lost":
                continue
            for counter, row in zip(spread, packet.frame_stages, strict=True):
                for count, frames in zip(*np.unique(row, return_counts=True), strict=True):
                    counter[int(count)] += int(frames)
        total, report, samples = reader.total_frames, reader.report, header.num_samples
        if samples is None:
            samples = reader.trailer_samples
    heard = report.frames_recovered
    held = max(0, heard + report.frames_lost - 1) * header.hop_length
    seconds = (held if samples is None else samples) / header.sample_rate
    decodable = min(seconds, held / header.sample_rate)
    coded = header.coder is not None
    blocks, rate = [], 0.0
    for block, counter in zip(header.blocks, spread, strict=True):
        bits = math.log2(block.codebook_size)
        mean = sum(count * frames for count, frames in counter.items()) / max(1, heard)
        rate += mean * bits * header.frame_rate / 1000
        blocks.append(
            {
                "name": block.name,
                "levels": list(block.levels),
                "bits_per_stage": round(bits, 4),
                "stages": {str(count): counter[count] for count in sorted(counter)},
                "kbps": None if coded else round(mean * bits * header.frame_rate / 1000, 4),
            }
        )
    return {
        "file": name,
        "bytes": size,
        "fingerprint": header.config_hash,
        "weights": _weights_with(header.config_hash),
        "sample_rate": header.sample_rate,
        "hop_length": header.hop_length,
        "num_stages": header.num_stages,
        "num_samples": samples,
        "seconds": round(seconds, 6),
        "seconds_decodable": round(decodable, 6),
        "frames": heard,
        "frames_expected": total,
        "coder": header.coder,
        "kbps_nominal": None if coded else round(rate, 4),
        "kbps_payload": _kbps(report.payload_bytes, decodable),
        "kbps_on_disk": _kbps(size, decodable),
        "blocks": blocks,
        "packets": {status: packets[status] for status in ("ok", "partial", "lost")},
        "seek_table": report.trailer,
        "loudness_dbfs": header.loudness_dbfs,
        "metadata": dict(header.metadata),
        "ok": report.ok,
        "findings": "" if report.ok else str(report),
    }


def _kbps(size: int, seconds: float) -> float | None:
    return round(size * 8 / seconds / 1000, 4) if seconds else None


def _weights_with(fingerprint: str) -> str | None:
    """Name of the shipped weights with this fingerprint; read without loading torch."""
    import affectcodec

    folder = Path(affectcodec.__file__).parent / "pretrained"
    for path in sorted(folder.glob("*/config.json")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(record, dict) and record.get("fingerprint") == fingerprint:
            return path.parent.name
    return None


def _rendered(record: dict[str, Any]) -> str:
    weights = record["weights"] or "none of the shipped ones"
    length = f"{record['seconds']:.2f} s"
    if record["seconds_decodable"] < record["seconds"] - 1e-6:
        length += f", of which {record['seconds_decodable']:.2f} s are there"
    if record["num_samples"] is not None:
        length += f" ({record['num_samples']} samples at {record['sample_rate']} Hz)"
    disk, coded = record["kbps_on_disk"], record["kbps_payload"] or 0.0
    if record["coder"] is None:
        rate = f"{record['kbps_nominal']:.3g} kbit/s of tokens"
    else:
        rate = f"{coded:.3g} kbit/s of entropy-coded tokens"
    rows = [
        ("length", length),
        ("size", f"{record['bytes']} bytes"),
        (
            "bit rate",
            rate + ("" if disk is None else f", {disk:.3g} kbit/s on disk"),
        ),
        (
            "frames",
            f"{record['frames']}, "
            f"{record['sample_rate'] / record['hop_length']:g} a second, "
            f"up to {record['num_stages']} stages",
        ),
    ]
    for block in record["blocks"]:
        most = "" if record["coder"] is None else "at most "
        stages = ", ".join(
            f"{most}{count} stages" + ("" if len(block["stages"]) == 1 else f" in {frames} frames")
            for count, frames in block["stages"].items()
        )
        rows.append(
            (
                block["name"],
                f"{stages or 'no frame'}; {block['bits_per_stage']:g} bits each"
                + (" before coding" if most else f", {block['kbps']:.3g} kbit/s"),
            )
        )
    packets = record["packets"]
    text = f"{packets['ok']} whole"
    text += "".join(f", {packets[s]} {s}" for s in ("partial", "lost") if packets[s])
    rows.append(("packets", text + {"ok": ", seek table"}.get(record["seek_table"], "")))
    if record["loudness_dbfs"] is not None:
        rows.append(("loudness", f"{record['loudness_dbfs']:.1f} dBFS"))
    rows.append(("weights", f"{weights} (fingerprint {record['fingerprint']})"))
    if record["coder"] is not None:
        rows.append(("coder", record["coder"]))
    if record["metadata"]:
        rows.append(("metadata", json.dumps(record["metadata"], ensure_ascii=True)))
    rows.append(("state", "all well" if record["ok"] else f"DAMAGED: {record['findings']}"))
    return "\n".join([record["file"], *(f"  {title:<10} {text}" for title, text in rows)])
