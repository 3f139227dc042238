# SPDX-License-Identifier: Apache-2.0
"""Sources: what is listed, in which order, and what breaks only itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from affectcodec.corpus.sources import SourceError, list_parts, read_part
from tests.corpus.corpora import make_folder, make_tar, wav_bytes

pa = pytest.importorskip("pyarrow")


def entries(source: Path, count: int = 3) -> list:
    return [entry for part in list_parts(source, count) for entry in read_part(part)]


def test_a_folder_is_listed_in_order_and_in_parts(tmp_path: Path) -> None:
    make_folder(tmp_path, 7)
    (tmp_path / "notes.txt").write_text("no audio")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "clip.wav").write_bytes(wav_bytes(100))
    parts = list(list_parts(tmp_path, 3))
    assert [len(part["clips"]) for part in parts] == [3, 3, 1]
    names = [entry.id for entry in entries(tmp_path)]
    assert names == sorted(names) and len(names) == 7
    assert names[0] == "speaker0/clip0000.wav"
    assert json.loads(json.dumps(parts)) == parts


def test_a_manifest_with_ids_and_metadata(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(wav_bytes(500))
    (tmp_path / "m.csv").write_text("id,path,emotion\nx,a.wav,sad\nx,a.wav,happy\ny,,calm\n")
    found = entries(tmp_path / "m.csv")
    assert [(e.id, e.metadata.get("emotion"), e.problem) for e in found] == [
        ("x", "sad", None),
        ("x", "happy", "id used by an earlier clip"),
        ("m.csv:3", None, "row without a path"),
    ]
    assert found[0].open() == tmp_path / "a.wav"


def test_json_lines(tmp_path: Path) -> None:
    lines = [{"audio_filepath": "a.wav", "n": 1}, {"audio_filepath": "b.wav", "n": [2]}]
    path = tmp_path / "m.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    assert [(e.id, e.metadata) for e in entries(path)] == [
        ("a.wav", {"n": 1}),
        ("b.wav", {"n": [2]}),
    ]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("m.csv", "speaker,emotion\na,b\n", "lacks a column path"),
        ("m.csv", "path\n", "names no clip"),
        ("m.jsonl", '{"path": "a.wav"}\n{', "line 2 is not JSON"),
        ("m.jsonl", "[1]", "line 1 holds no object"),
        ("m.txt", "", "holds no audio"),
    ],
)
def test_sources_that_are_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(SourceError, match=message):
        entries(tmp_path / name)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="nothing at"):
        entries(tmp_path / "absent")
    with pytest.raises(SourceError, match="holds no audio"):
        entries(tmp_path)


def test_tar_shards(tmp_path: Path) -> None:
    make_tar(tmp_path / "shard.tar", 4)
    found = entries(tmp_path)
    assert [e.id for e in found] == [f"shard.tar::clip{i}" for i in range(4)]
    assert found[0].metadata == {"speaker": "s0", "text": "text 0"}
    assert found[2].problem == "no audio among its members ['.json', '.txt']"
    assert found[3].open().read() == wav_bytes(1200, 3)


def test_a_cut_tar_gives_what_came_before(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "shard.tar", 4)
    path.write_bytes(path.read_bytes()[:11000])
    found = entries(path)
    assert [e.problem is None for e in found][:2] == [True, True]
    assert "archive broken after" in (found[-1].problem or "")


def test_parquet_with_audio_bytes(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    rows = [
        {"audio": {"bytes": wav_bytes(500), "path": "a"}, "id": "a", "n": 1},
        {"audio": {"bytes": None, "path": "b.wav"}, "id": "b", "n": 2},
        {"audio": {"bytes": None, "path": None}, "id": "b", "n": 3},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet", row_group_size=2)
    found = entries(tmp_path)
    assert [(e.id, e.metadata["n"], e.problem) for e in found] == [
        ("a", 1, None),
        ("b", 2, None),
        ("b", 3, "no audio bytes"),
    ]
    assert found[0].open().read() == wav_bytes(500)
    assert found[1].open() == Path("b.wav")


def test_broken_and_foreign_tables_are_one_bad_entry(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    (tmp_path / "bad.parquet").write_bytes(b"PAR1 nothing")
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "text.parquet")
    found = entries(tmp_path)
    assert "unreadable table" in (found[0].problem or "")
    assert found[1].problem == "no column audio among ['text']"


def test_a_saved_dataset(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    make_folder(tmp_path / "clips", 3)
    files = sorted(str(p) for p in (tmp_path / "clips").rglob("*.wav"))
    data = datasets.Dataset.from_dict({"audio": files, "emotion": ["sad", "calm", "happy"]})
    data.cast_column("audio", datasets.Audio(decode=False)).save_to_disk(str(tmp_path / "saved"))
    parts = list(list_parts(tmp_path / "saved", 2))
    assert [(p["start"], p["stop"]) for p in parts] == [(0, 2), (2, 3)]
    found = [e for p in parts for e in read_part(p)]
    assert [(e.id, e.metadata) for e in found] == [
        ("0", {"emotion": "sad"}),
        ("1", {"emotion": "calm"}),
        ("2", {"emotion": "happy"}),
    ]
    assert found[1].open().read() == Path(files[1]).read_bytes()
