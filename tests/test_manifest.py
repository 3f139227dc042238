# SPDX-License-Identifier: Apache-2.0
"""Reading lists of clips."""

from __future__ import annotations

from pathlib import Path

import pytest

from affectcodec.manifest import read_manifest, read_manifests


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "manifest.csv"
    lines = ["path,dataset,speaker,split,emotion"]
    lines += [f"x/{i}.wav,x,x{i // 4},{'dev' if i < 8 else 'test'},happy" for i in range(12)]
    lines += ["y/0.wav,y,y0,dev,"]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_split_and_datasets(manifest: Path) -> None:
    clips = read_manifest(manifest, split="dev")
    assert len(clips) == 9
    assert clips[0].file == manifest.parent / "x/0.wav" and clips[0].emotion == "happy"
    assert [c.path for c in read_manifest(manifest, split="dev", datasets=["y"])] == ["y/0.wav"]


def test_limit_is_spread_over_the_list(manifest: Path) -> None:
    clips = read_manifest(manifest, split="dev", datasets=["x"], limit=4)
    assert [c.path for c in clips] == ["x/0.wav", "x/2.wav", "x/4.wav", "x/6.wav"]
    assert {c.speaker for c in clips} == {"x0", "x1"}
    assert len(read_manifest(manifest, split="dev", limit=99)) == 9


def test_several_lists_of_which_one_lacks_the_split(manifest: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text("path,split\na.wav,train\nb.wav,test\n")
    assert [c.path for c in read_manifests([manifest, other], split="train")] == ["a.wav"]
    assert len(read_manifests([manifest, other], split="test", limit=2)) == 3
    with pytest.raises(ValueError, match="no clip of the split 'nowhere'"):
        read_manifests([manifest, other], split="nowhere")
    with pytest.raises(ValueError, match="no file"):
        read_manifests([manifest, tmp_path / "none.csv"], split="train")


def test_errors(manifest: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no file"):
        read_manifest(tmp_path / "none.csv", split="dev")
    with pytest.raises(ValueError, match="no clip of 'z'"):
        read_manifest(manifest, split="dev", datasets=["x", "z"])
    with pytest.raises(ValueError, match="no clip in split"):
        read_manifest(manifest, split="train")
    with pytest.raises(ValueError, match="limit"):
        read_manifest(manifest, split="dev", limit=0)
    (tmp_path / "bad.csv").write_text("path,split\na,dev\n")
    with pytest.raises(ValueError, match="speaker"):
        read_manifest(tmp_path / "bad.csv", split="dev")
    (clip,) = read_manifest(tmp_path / "bad.csv", split="dev", needed=("path", "split"))
    assert (clip.path, clip.dataset, clip.speaker, clip.emotion) == ("a", "", "", "")
