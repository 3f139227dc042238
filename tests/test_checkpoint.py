# SPDX-License-Identifier: Apache-2.0
"""Weights on disk: they come back bit for bit, and damage is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import affectcodec.checkpoint as checkpoint
from affectcodec import AffectCodec
from affectcodec.checkpoint import CheckpointError
from tests.codec_fixtures import speech_like, tiny_codec


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_codec().save_pretrained(tmp_path / "weights", metadata={"steps": 7})
    return tmp_path / "weights"


def test_saved_weights_come_back_bit_for_bit(folder: Path) -> None:
    codec, again = tiny_codec(), AffectCodec.from_pretrained(folder)
    assert again.config == codec.config
    assert again.fingerprint == codec.fingerprint
    wav = speech_like(3000)
    tokens = codec.encode(wav)
    assert torch.equal(again.encode(wav).codes, tokens.codes)
    assert torch.equal(again.decode(tokens), codec.decode(tokens))
    assert not again.training
    assert not any(parameter.requires_grad for parameter in again.parameters())


def test_weights_loaded_in_inference_mode_keep_their_versions(folder: Path) -> None:
    """Without them folded weights could not be kept, and every call would fold anew."""
    with torch.inference_mode():
        codec = AffectCodec.from_pretrained(folder)
    assert not any(parameter.is_inference() for parameter in codec.parameters())


def test_the_record_names_what_it_is(folder: Path) -> None:
    record = json.loads((folder / "config.json").read_text())
    assert record["format"] == "affectcodec-weights-1"
    assert record["fingerprint"] == tiny_codec().fingerprint
    assert record["metadata"] == {"steps": 7}
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_saving_again_replaces_the_files(folder: Path) -> None:
    other = tiny_codec(seed=3)
    other.save_pretrained(folder)
    assert AffectCodec.from_pretrained(str(folder)).fingerprint == other.fingerprint


def test_missing_weights_say_where_they_were_looked_for(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no weights at .*nowhere.*config.json"):
        AffectCodec.from_pretrained(tmp_path / "nowhere")


def test_shipped_names_are_found_and_win_over_a_folder_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped, here = tmp_path / "package", tmp_path / "here"
    tiny_codec(seed=1).save_pretrained(shipped / "stream")
    tiny_codec(seed=2).save_pretrained(here / "stream")
    monkeypatch.setattr(checkpoint, "shipped_folder", lambda: shipped)
    monkeypatch.chdir(here)
    assert checkpoint.shipped_names() == ["stream"]
    assert AffectCodec.from_pretrained().fingerprint == tiny_codec(seed=1).fingerprint
    # A path is a path: who names the folder gets the folder.
    assert AffectCodec.from_pretrained("stream").fingerprint == tiny_codec(seed=2).fingerprint


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: "{}",
        lambda text: text.replace('"sample_rate"', '"sample_rat"'),
        lambda text: text.replace('"num_stages": 4', '"num_stages": 0'),
    ],
)
def test_a_damaged_configuration_is_named(folder: Path, damage) -> None:
    path = folder / "config.json"
    path.write_text(damage(path.read_text()))
    with pytest.raises(CheckpointError, match="config.json: not a codec configuration"):
        AffectCodec.from_pretrained(folder)


@pytest.mark.parametrize("content", [None, b"", b"\x80\x04pickle", b"\xff" * 64])
def test_damaged_tensors_are_named(folder: Path, content: bytes | None) -> None:
    path = folder / "model.safetensors"
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match="model.safetensors: cannot be read"):
        AffectCodec.from_pretrained(folder)


def test_a_truncated_tensor_file_is_named(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="cannot be read"):
        AffectCodec.from_pretrained(folder)


def test_tensors_of_another_shape_are_named(folder: Path) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors["decoder.head.bias"] = torch.zeros(3)
    tensors["extra"] = torch.zeros(1)
    del tensors["quantizer.blocks.emotion.W"]
    save_file(tensors, path)
    with pytest.raises(CheckpointError) as caught:
        AffectCodec.from_pretrained(folder)
    for words in ("missing ['quantizer.blocks.emotion.W']", "unexpected ['extra']", "(3,) instead"):
        assert words in str(caught.value)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_files_of_two_codecs_are_not_mixed(folder: Path, tmp_path: Path, name: str) -> None:
    other = tiny_codec(seed=3)
    other.save_pretrained(tmp_path / "other")
    (folder / name).write_bytes((tmp_path / "other" / name).read_bytes())
    with pytest.raises(CheckpointError) as caught:
        AffectCodec.from_pretrained(folder)
    words = str(caught.value)
    assert other.fingerprint in words and tiny_codec().fingerprint in words
    assert "config.json" in words and "model.safetensors" in words


def test_a_record_without_a_fingerprint_is_refused(folder: Path) -> None:
    record = json.loads((folder / "config.json").read_text())
    del record["fingerprint"]
    (folder / "config.json").write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match="config.json: .*'fingerprint'"):
        AffectCodec.from_pretrained(folder)


def test_a_checkpoint_error_is_a_value_error() -> None:
    assert issubclass(CheckpointError, ValueError)
