# SPDX-License-Identifier: Apache-2.0
"""What a corpus holds, cut into parts that are worked on alone.

A part is a plain dictionary of JSON types, so that plans are files and parts travel to other
machines. Its ``kind`` says how :func:`read_part` opens it.
"""

from __future__ import annotations

import csv
import functools
import io
import json
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

AUDIO_EXTENSIONS = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif", ".w64", ".au")
_ID_COLUMNS = ("id", "key", "utt_id")
_PATH_COLUMNS = ("path", "file", "audio_filepath", "audio")

Part = dict[str, Any]


class SourceError(ValueError):
    """A source that cannot be listed, with the reason."""


@dataclass(frozen=True)
class Entry:
    """One clip: its name, where its sound is, and what is known of it.

    Attributes:
        id: unique within the corpus.
        open: gives the encoded audio; may raise ``OSError`` or ``ValueError``.
        metadata: JSON types.
        problem: why the clip is not worth opening, else None.
    """

    id: str
    open: Callable[[], BinaryIO | Path]
    metadata: dict[str, Any]
    problem: str | None = None


def list_parts(source: str | Path, clips_per_part: int) -> Iterator[Part]:
    """Parts of a source, in an order that depends on nothing but its content.

    Args:
        source: a folder of audio files, of tar shards (WebDataset) or of Parquet files with audio
            bytes; one such file; a manifest (``.csv``, ``.tsv``, ``.jsonl``, ``.json`` lines) with
            a column path; or a folder written by ``datasets.Dataset.save_to_disk``.
        clips_per_part: clips of a part. A tar shard is always one part, a Parquet row group, too.

    Raises:
        SourceError: if there is nothing to read, or a manifest lacks a path.
    """
    path = Path(source)
    if path.is_dir():
        if (path / "dataset_info.json").is_file() and (path / "state.json").is_file():
            yield from _dataset_parts(path, clips_per_part)
            return
        # A link to nothing is a clip that is missing: it must show up as one.
        files = sorted(
            p for p in path.rglob("*") if (p.is_file() or _dangling(p)) and not _hidden(p, path)
        )
        yield from _folder_parts(path, files, clips_per_part)
    elif path.is_file():
        suffix = path.suffix.lower()
        if suffix in (".csv", ".tsv", ".jsonl", ".json"):
            yield from _file_parts(_manifest_rows(path), clips_per_part)
        else:
            yield from _folder_parts(path.parent, [path], clips_per_part)
    else:
        raise SourceError(f"source: nothing at {path}")


def _dangling(path: Path) -> bool:
    return path.is_symlink() and not path.exists()


def _hidden(path: Path, root: Path) -> bool:
    return any(name.startswith(".") for name in path.relative_to(root).parts)


def _folder_parts(root: Path, files: list[Path], count: int) -> Iterator[Part]:
    tars = [p for p in files if p.suffix.lower() == ".tar"]
    tables = [p for p in files if p.suffix.lower() == ".parquet"]
    clips = [p for p in files if p.suffix.lower() in AUDIO_EXTENSIONS]
    if not (tars or tables or clips):
        raise SourceError(
            f"source: {root} holds no audio ({', '.join(AUDIO_EXTENSIONS)}), .tar or .parquet file"
        )
    rows = ([p.relative_to(root).as_posix(), str(p), {}] for p in clips)
    yield from _file_parts(rows, count)
    for path in tars:
        yield {"kind": "tar", "path": str(path), "name": path.relative_to(root).as_posix()}
    for path in tables:
        import pyarrow.parquet as pq

        try:
            groups = pq.ParquetFile(path).num_row_groups
        except Exception as error:  # noqa: BLE001 - one table that cannot be read is one bad part
            yield {"kind": "broken", "name": str(path), "reason": f"unreadable table: {error}"}
            continue
        name = path.relative_to(root).as_posix()
        for group in range(groups):
            yield {"kind": "parquet", "path": str(path), "name": name, "group": group}


def _file_parts(rows: Iterable[list[Any]], count: int) -> Iterator[Part]:
    seen: set[str] = set()
    held: list[list[Any]] = []
    for row in rows:
        # The first clip of a name is taken; its namesakes are told apart and set aside.
        known = row[0] in seen
        seen.add(row[0])
        held.append([*row, "id used by an earlier clip"] if known else row)
        if len(held) == count:
            yield {"kind": "files", "clips": held}
            held = []
    if held:
        yield {"kind": "files", "clips": held}


def _manifest_rows(path: Path) -> Iterator[list[Any]]:
    suffix = path.suffix.lower()
    with path.open(newline="", encoding="utf-8-sig") as file:
        if suffix in (".csv", ".tsv"):
            rows: Iterator[Any] = csv.DictReader(file, delimiter="\t" if suffix == ".tsv" else ",")
        else:
            rows = _json_lines(path, file)
        found = False
        for number, row in enumerate(rows, 1):
            where = next((row[c] for c in _PATH_COLUMNS if isinstance(row.get(c), str)), "")
            if not where:
                if not found and not any(c in row for c in _PATH_COLUMNS):
                    raise SourceError(
                        f"source: {path} lacks a column {' or '.join(_PATH_COLUMNS)}; it has "
                        f"{sorted(map(str, row))}"
                    )
                yield [f"{path.name}:{number}", "", {}, "row without a path"]
                continue
            found = True
            name = next((str(row[c]) for c in _ID_COLUMNS if row.get(c)), where)
            rest = {k: v for k, v in row.items() if k not in _PATH_COLUMNS and isinstance(k, str)}
            yield [name, str(path.parent / where), rest]
    if not found:
        raise SourceError(f"source: {path} names no clip")


def _json_lines(path: Path, file: Iterable[str]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise SourceError(f"source: {path} line {number} is not JSON: {error}") from None
        if not isinstance(row, dict):
            raise SourceError(f"source: {path} line {number} holds no object")
        yield row


def _dataset_parts(path: Path, count: int) -> Iterator[Part]:
    from datasets import load_from_disk

    total = len(load_from_disk(str(path)))
    for start in range(0, total, count):
        stop = min(total, start + count)
        yield {"kind": "dataset", "path": str(path), "start": start, "stop": stop}


# -- reading ------------------------------------------------------------------------------------


def read_part(part: Part) -> Iterator[Entry]:
    """Clips of a part, one at a time.

    A file of many clips that breaks off in the middle ends with an entry that says so.
    """
    readers: dict[str, Callable[[Part], Iterator[Entry]]] = {
        "files": _read_files,
        "tar": _read_tar,
        "parquet": _read_parquet,
        "dataset": _read_dataset,
        "broken": lambda p: iter([_bad(p["name"], p["reason"])]),
    }
    yield from readers[part["kind"]](part)


def _bad(name: str, reason: str) -> Entry:
    return Entry(name, io.BytesIO, {}, reason)


def _read_files(part: Part) -> Iterator[Entry]:
    for name, path, metadata, *problem in part["clips"]:
        open_it = functools.partial(Path, path)
        yield Entry(name, open_it, metadata, problem[0] if problem else None)


def _read_tar(part: Part) -> Iterator[Entry]:
    """Members of one clip share a name up to the first dot and follow one another."""
    name, held, key = part["name"], {}, None
    seen: set[str] = set()
    try:
        # Opened with "r:" and read in order: a member's data is in memory only for its own clip.
        with tarfile.open(part["path"], "r:") as archive:
            for member in archive:
                if not member.isfile():
                    continue
                folder, _, base = member.name.rpartition("/")
                stem, _, extension = base.partition(".")
                this = f"{folder}/{stem}" if folder else stem
                if key is not None and this != key:
                    yield _sample(name, key, held, seen)
                    held = {}
                key = this
                file = archive.extractfile(member)
                held[f".{extension.lower()}"] = b"" if file is None else file.read()
        if key is not None:
            yield _sample(name, key, held, seen)
    except (tarfile.TarError, OSError, EOFError) as error:
        yield _bad(f"{name}::", f"archive broken after {len(seen)} clips: {error}")


def _sample(archive: str, key: str, held: dict[str, bytes], seen: set[str]) -> Entry:
    name = f"{archive}::{key}"
    problem = "id used by an earlier clip" if key in seen else None
    seen.add(key)
    metadata: dict[str, Any] = {}
    if ".json" in held:
        try:
            value = json.loads(held[".json"])
            metadata = value if isinstance(value, dict) else {"json": value}
        except (UnicodeDecodeError, json.JSONDecodeError):
            metadata = {"json_error": "not JSON"}
    if ".txt" in held:
        metadata.setdefault("text", held[".txt"].decode("utf-8", "replace").strip())
    data = next((held[e] for e in AUDIO_EXTENSIONS if e in held), None)
    if data is None:
        problem = problem or f"no audio among its members {sorted(held)}"
    return Entry(name, lambda: io.BytesIO(data or b""), metadata, problem)


def _read_parquet(part: Part) -> Iterator[Entry]:
    import pyarrow.parquet as pq

    prefix = f"{part['name']}:{part['group']}"
    try:
        table = pq.ParquetFile(part["path"]).read_row_group(part["group"])
        columns = table.column_names
        audio = next((c for c in ("audio", "bytes", "wav", "flac") if c in columns), None)
        if audio is None:
            yield _bad(prefix, f"no column audio among {columns}")
            return
        rest = [c for c in columns if c != audio]
        seen: set[str] = set()
        for index in range(table.num_rows):
            yield _row(prefix, index, table, audio, rest, seen)
    except Exception as error:  # noqa: BLE001 - whatever a broken table raises ends this part alone
        yield _bad(prefix, f"unreadable table: {error}")


def _row(prefix: str, index: int, table: Any, audio: str, rest: list[str], seen: set[str]) -> Entry:
    value = table[audio][index].as_py()
    metadata = {c: _json(table[c][index].as_py()) for c in rest}
    name = next((str(metadata[c]) for c in _ID_COLUMNS if metadata.get(c)), f"{prefix}:{index}")
    problem = "id used by an earlier clip" if name in seen else None
    seen.add(name)
    return _from_value(name, value, metadata, problem)


def _from_value(name: str, value: Any, metadata: dict[str, Any], problem: str | None) -> Entry:
    """Audio as ``datasets`` stores it: bytes, or a mapping with bytes or a path."""
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        return Entry(name, lambda: io.BytesIO(value), metadata, problem)
    if isinstance(value, str):
        return Entry(name, lambda: Path(value), metadata, problem)
    return Entry(name, io.BytesIO, metadata, problem or "no audio bytes")


def _read_dataset(part: Part) -> Iterator[Entry]:
    from datasets import Audio, load_from_disk

    data = load_from_disk(part["path"])
    column = next((c for c in ("audio", "path", "file") if c in data.column_names), None)
    if column is None:
        yield _bad(part["path"], f"no column audio among {data.column_names}")
        return
    if isinstance(data.features[column], Audio):
        data = data.cast_column(column, Audio(decode=False))
    seen: set[str] = set()
    for index in range(part["start"], part["stop"]):
        row = data[index]
        value = row.pop(column)
        metadata = {key: _json(item) for key, item in row.items()}
        found = next((str(metadata[c]) for c in _ID_COLUMNS if metadata.get(c)), None)
        name = found or f"{index}"
        problem = "id used by an earlier clip" if name in seen else None
        seen.add(name)
        yield _from_value(name, value, metadata, problem)


def _json(value: Any) -> Any:
    """A value as JSON keeps it."""
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return str(value)
    return value
