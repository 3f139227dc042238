# SPDX-License-Identifier: Apache-2.0
"""The files of a part: written whole or not at all, the same bytes for the same content.

``tokens/part-000012.parquet`` (or ``.tar``) holds the clips, ``quarantine/part-000012.parquet``
those set aside, only if there are any. The first is renamed into place last: where it is, the part
is done.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from affectcodec.corpus.plan import Settings
    from affectcodec.corpus.work import Rejected, Row

TOKENS, QUARANTINE = "tokens", "quarantine"
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("codes", pa.list_(pa.list_(pa.int32()))),
        ("num_frames", pa.int64()),
        ("num_samples", pa.int64()),
        ("metadata", pa.string()),
    ]
)
QUARANTINE_SCHEMA = pa.schema([("id", pa.string()), ("reason", pa.string())])


@dataclass(frozen=True)
class PartResult:
    """Clips of a part and those set aside."""

    rows: list[Row]
    rejected: list[Rejected]


@dataclass(frozen=True)
class PartSummary:
    """What a written part holds; ``sha256`` is of its file."""

    number: int
    file: str
    clips: int
    frames: int
    samples: int
    rejected: int
    sha256: str


def part_path(folder: Path, number: int, file_format: str) -> Path:
    """Where the tokens of a part are."""
    return folder / TOKENS / f"part-{number:06d}.{file_format}"


def quarantine_path(folder: Path, number: int) -> Path:
    """Where the clips of a part that were set aside are listed."""
    return folder / QUARANTINE / f"part-{number:06d}.parquet"


def is_done(folder: Path, number: int, file_format: str) -> bool:
    """Whether a part is written."""
    return part_path(folder, number, file_format).is_file()


def write_part(folder: Path, number: int, settings: Settings, result: PartResult) -> None:
    """Write a part's files."""
    if result.rejected:
        table = pa.table(
            [[r.id for r in result.rejected], [r.reason for r in result.rejected]],
            schema=QUARANTINE_SCHEMA,
        )
        _write_atomically(quarantine_path(folder, number), _parquet_bytes(table))
    head = {
        "affectcodec": json.dumps(
            {
                "fingerprint": settings.fingerprint,
                "stages": settings.stages,
                "clips": len(result.rows),
                "frames": int(sum(row.codes.shape[1] for row in result.rows)),
                "samples": int(sum(row.num_samples for row in result.rows)),
                "rejected": len(result.rejected),
            },
            sort_keys=True,
        )
    }
    make = _tar_bytes if settings.format == "tar" else _table_bytes
    _write_atomically(part_path(folder, number, settings.format), make(result.rows, head))


def _table_bytes(rows: list[Row], head: dict[str, str]) -> bytes:
    codes = [row.codes for row in rows]
    inner = np.concatenate([c.ravel() for c in codes]) if codes else np.zeros(0, np.int32)
    frames = [c.shape[1] for c in codes for _ in range(c.shape[0])]
    stage_ends = np.concatenate([[0], np.cumsum(frames)]).astype(np.int32)
    clip_ends = np.concatenate([[0], np.cumsum([c.shape[0] for c in codes])]).astype(np.int32)
    stages = pa.ListArray.from_arrays(stage_ends, pa.array(inner.astype(np.int32)))
    table = pa.table(
        [
            pa.array([row.id for row in rows], pa.string()),
            pa.ListArray.from_arrays(clip_ends, stages),
            pa.array([row.codes.shape[1] for row in rows], pa.int64()),
            pa.array([row.num_samples for row in rows], pa.int64()),
            pa.array([json.dumps(row.metadata, sort_keys=True) for row in rows], pa.string()),
        ],
        schema=SCHEMA,
    )
    return _parquet_bytes(table.replace_schema_metadata(head))


def _parquet_bytes(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def _tar_bytes(rows: list[Row], head: dict[str, str]) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.PAX_FORMAT, pax_headers=head) as out:
        for index, row in enumerate(rows):
            data = io.BytesIO()
            np.save(data, row.codes)
            about: dict[str, Any] = {
                "id": row.id,
                "num_frames": int(row.codes.shape[1]),
                "num_samples": row.num_samples,
                "metadata": row.metadata,
            }
            about_bytes = json.dumps(about, sort_keys=True).encode()
            for extension, content in (("codes.npy", data.getvalue()), ("json", about_bytes)):
                member = tarfile.TarInfo(f"{index:08d}.{extension}")
                member.size = len(content)
                out.addfile(member, io.BytesIO(content))
    return sink.getvalue()


def _write_atomically(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Two writers of one part (a worker thought dead, and its successor) must not share a file.
    fresh = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with fresh.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def remove_leftovers(folder: Path) -> int:
    """Delete half-written files of an earlier run; returns how many."""
    found = [p for name in (TOKENS, QUARANTINE) for p in (folder / name).glob(".*.tmp")]
    for path in found:
        path.unlink(missing_ok=True)
    return len(found)


def summarize(folder: Path, number: int, file_format: str) -> PartSummary:
    """Read back what a part says of itself, with its checksum.

    Raises:
        ValueError: if the file is damaged.
    """
    path = part_path(folder, number, file_format)
    data = path.read_bytes()
    try:
        if file_format == "tar":
            with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                archive.next()
                text = archive.pax_headers["affectcodec"]
        else:
            text = pq.read_metadata(io.BytesIO(data)).metadata[b"affectcodec"].decode()
        about = json.loads(text)
    except (KeyError, TypeError, OSError, tarfile.TarError, pa.ArrowException) as error:
        raise ValueError(f"{path}: damaged ({error}); delete it and run again") from None
    return PartSummary(
        number=number,
        file=path.relative_to(folder).as_posix(),
        clips=about["clips"],
        frames=about["frames"],
        samples=about["samples"],
        rejected=about["rejected"],
        sha256=hashlib.sha256(data).hexdigest(),
    )
