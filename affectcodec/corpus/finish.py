# SPDX-License-Identifier: Apache-2.0
"""The end of a run: are all parts there, and what do they hold."""

from __future__ import annotations

import dataclasses
import functools
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from affectcodec.corpus.parts import (
    QUARANTINE_SCHEMA,
    PartSummary,
    is_done,
    quarantine_path,
    summarize,
)
from affectcodec.corpus.plan import Plan

MANIFEST_NAME = "manifest.json"
QUARANTINE_NAME = "quarantine.parquet"
_READERS = 8


def missing_parts(plan: Plan) -> list[int]:
    """Numbers of the parts that are not written."""
    done = plan.settings.format
    return [number for number in range(plan.count) if not is_done(plan.folder, number, done)]


def finish(plan: Plan, sample_rate: int) -> dict[str, Any]:
    """Write manifest and quarantine table of a complete run; returns the manifest.

    Raises:
        ValueError: if a part is missing or damaged.
    """
    missing = missing_parts(plan)
    if missing:
        raise ValueError(
            f"{plan.folder}: {len(missing)} of {plan.count} parts are missing; run again"
        )
    # Checksums are made outside of the interpreter's lock.
    with ThreadPoolExecutor(_READERS) as pool:
        read = functools.partial(summarize, plan.folder, file_format=plan.settings.format)
        parts = list(pool.map(read, range(plan.count)))
    _write_quarantine(plan, parts)
    manifest = {
        "format": "affectcodec-corpus",
        "version": 1,
        **totals(parts, sample_rate),
        "plan": plan.record(),
        "files": [dataclasses.asdict(part) for part in parts],
    }
    _replace(
        plan.folder / MANIFEST_NAME,
        (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode(),
    )
    return manifest


def totals(parts: list[PartSummary], sample_rate: int) -> dict[str, Any]:
    """Sums over parts."""
    samples = sum(part.samples for part in parts)
    return {
        "clips": sum(part.clips for part in parts),
        "rejected": sum(part.rejected for part in parts),
        "frames": sum(part.frames for part in parts),
        "hours": samples / sample_rate / 3600,
    }


def _write_quarantine(plan: Plan, parts: list[PartSummary]) -> None:
    tables = [
        pq.read_table(quarantine_path(plan.folder, part.number)) for part in parts if part.rejected
    ]
    table = pa.concat_tables(tables) if tables else QUARANTINE_SCHEMA.empty_table()
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    _replace(plan.folder / QUARANTINE_NAME, sink.getvalue().to_pybytes())


def _replace(path: Path, data: bytes) -> None:
    fresh = path.with_name(f".{path.name}.tmp")
    fresh.write_bytes(data)
    fresh.replace(path)


def verify(folder: Path) -> list[str]:
    """What is wrong with a finished run: files missing, changed or damaged; empty if nothing.

    Raises:
        ValueError: if there is no manifest.
    """
    path = folder / MANIFEST_NAME
    if not path.is_file():
        raise ValueError(f"{folder}: holds no {MANIFEST_NAME}; the run is not finished")
    manifest = json.loads(path.read_text())
    wrong = []
    for record in manifest["files"]:
        try:
            found = summarize(folder, record["number"], manifest["plan"]["format"])
        except (OSError, ValueError) as error:
            wrong.append(f"{record['file']}: {error}")
            continue
        if dataclasses.asdict(found) != record:
            wrong.append(f"{record['file']}: differs from the manifest")
    return wrong
