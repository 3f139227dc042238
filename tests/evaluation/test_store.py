# SPDX-License-Identifier: Apache-2.0
"""Values survive the disk, and what cannot be read is measured again."""

from __future__ import annotations

import math
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from affectcodec.evaluation.store import FILE_NAME, Store, default_cache, entry_key, pack, unpack


def test_values_come_back(tmp_path: Path) -> None:
    array = np.arange(6, dtype=np.float64).reshape(2, 3)
    with Store(tmp_path) as store:
        store.put([("a", array), ("b", {"x": 1.5, "n": math.nan, "t": "é", "f": {"r": "s"}})])
        store.put([("a", array + 1)])
    with Store(tmp_path) as again:
        found = again.get(["a", "b", "c"])
    assert set(found) == {"a", "b"}
    np.testing.assert_array_equal(found["a"], (array + 1).astype(np.float32))
    value = found["b"]
    assert isinstance(value, dict) and math.isnan(value.pop("n"))
    assert value == {"x": 1.5, "t": "é", "f": {"r": "s"}}


def test_many_keys_at_once(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.put([(str(i), {"i": float(i)}) for i in range(1201)])
        assert len(store.get([str(i) for i in range(1201)])) == 1201
        assert store.get([]) == {}


def test_a_damaged_entry_counts_as_absent(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.put([("good", {"x": 1.0}), ("cut", np.ones(9)), ("odd", {})])
        whole = pack(np.ones(9))
        store._base.execute("UPDATE entries SET value = ? WHERE key = 'cut'", (whole[:20],))
        store._base.execute("UPDATE entries SET value = ? WHERE key = 'odd'", (b"J[1]",))
        assert set(store.get(["good", "cut", "odd"])) == {"good"}


def test_a_pickle_is_refused() -> None:
    import io

    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError):
        unpack(b"A" + buffer.getvalue())


def test_another_file_is_no_store(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"not a data base, whatever its name says" * 40)
    with pytest.raises(ValueError, match="move it away"):
        Store(tmp_path)


def test_two_processes_may_share_it(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        other = sqlite3.connect(tmp_path / FILE_NAME)
        with other:
            other.execute("INSERT INTO entries VALUES ('k', ?)", (pack({"x": 2.0}),))
        other.close()
        assert store.get(["k"]) == {"k": {"x": 2.0}}


def test_keys_name_their_parts() -> None:
    assert entry_key("a", 1) == entry_key("a", 1)
    assert len({entry_key("a", 1), entry_key("a", "1"), entry_key("a1"), entry_key("a")}) == 4
    assert len(entry_key()) == 24


def test_what_is_neither_mapping_nor_array_is_refused() -> None:
    with pytest.raises(TypeError, match="wanted a mapping or an array"):
        pack([1, 2])  # type: ignore[arg-type]


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AFFECTCODEC_CACHE", "/somewhere")
    assert default_cache() == Path("/somewhere")
    monkeypatch.delenv("AFFECTCODEC_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert default_cache() == Path("/elsewhere/affectcodec")
