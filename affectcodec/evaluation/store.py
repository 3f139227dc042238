# SPDX-License-Identifier: Apache-2.0
"""Results kept on disk by what they are a result of.

One SQLite file holds every measured value under a key that names all it depends on (`entry_key`).
A run that was cut off finds its values again, a new codec or measure adds to them, and two runs may
share the file. Values are JSON objects or float32 arrays; nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from affectcodec.evaluation.runs import without_nan

Value = dict[str, Any] | np.ndarray
"""A JSON object (NaN allowed, kept as null) or a float32 array."""

FILE_NAME = "measured.sqlite"
_BUSY_TIMEOUT_S = 60.0
_KEYS_A_QUERY = 500  # SQLite takes at least 999 variables


def default_cache() -> Path:
    """`$AFFECTCODEC_CACHE`, else `affectcodec` in the user's cache folder."""
    own = os.environ.get("AFFECTCODEC_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "affectcodec"


def entry_key(*parts: Any) -> str:
    """24 hex digits over JSON-able parts: the same parts, the same key, in any process."""
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=12).hexdigest()


def pack(value: Value) -> bytes:
    """A value as bytes: `A` and a .npy array, or `J` and a JSON object.

    Raises:
        TypeError: neither an array nor a mapping.
    """
    if isinstance(value, np.ndarray):
        buffer = io.BytesIO()
        np.save(buffer, np.asarray(value, dtype=np.float32), allow_pickle=False)
        return b"A" + buffer.getvalue()
    if not isinstance(value, Mapping):
        raise TypeError(f"store: got {type(value).__name__}, wanted a mapping or an array")
    return b"J" + json.dumps(without_nan(value), allow_nan=False).encode()


def unpack(data: bytes) -> Value:
    """The value again; null becomes NaN.

    Raises:
        ValueError: bytes that `pack` did not make.
    """
    if data[:1] == b"A":
        return np.asarray(np.load(io.BytesIO(data[1:]), allow_pickle=False))
    if data[:1] == b"J":
        loaded = _with_nan(json.loads(data[1:]))
        if isinstance(loaded, dict):
            return loaded
    raise ValueError("store: an entry is neither an array nor a JSON object")


class Store:
    """Values by key in `folder/measured.sqlite`.

    Raises:
        ValueError: the file is there and is no store.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / FILE_NAME
        self._base = sqlite3.connect(self.path, timeout=_BUSY_TIMEOUT_S)
        try:
            self._base.execute(
                "CREATE TABLE IF NOT EXISTS entries (key TEXT PRIMARY KEY, value BLOB NOT NULL)"
            )
        except sqlite3.DatabaseError as error:
            self._base.close()
            raise ValueError(
                f"cache: {self.path} is not a store of results ({error}): move it away, or name "
                "another folder"
            ) from error

    def get(self, keys: Sequence[str]) -> dict[str, Value]:
        """The values of those keys that are there; an unreadable entry counts as absent."""
        found: dict[str, Value] = {}
        for start in range(0, len(keys), _KEYS_A_QUERY):
            some = keys[start : start + _KEYS_A_QUERY]
            marks = ",".join("?" * len(some))
            query = f"SELECT key, value FROM entries WHERE key IN ({marks})"
            for key, data in self._base.execute(query, list(some)):
                try:
                    found[key] = unpack(data)
                except (ValueError, EOFError):
                    continue
        return found

    def put(self, items: Iterable[tuple[str, Value]]) -> None:
        """Adds or replaces values in one transaction."""
        rows = [(key, pack(value)) for key, value in items]
        with self._base:
            self._base.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?)", rows)

    def close(self) -> None:
        self._base.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _with_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_nan(item) for item in value]
    return math.nan if value is None else value
