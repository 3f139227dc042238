# SPDX-License-Identifier: Apache-2.0
"""Vocabularies: sizes, ids that never collide, files, refusals."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from affectcodec.config import BDRFSQConfig, Block
from affectcodec.tokens import LAYOUTS, SPECIALS, Vocabulary
from tests.codec_fixtures import tiny_codec
from tests.tokens.clips import HASH, SMALL, make_tokens

DEFAULT = BDRFSQConfig()


@pytest.mark.parametrize(
    ("layout", "codes"),
    [("shared", 32768), ("offset", 8 * 32768), ("split", 8 * (8 + 4096))],
)
def test_sizes_of_the_default_quantizer(layout: str, codes: int) -> None:
    vocabulary = Vocabulary(layout, DEFAULT, HASH)
    assert vocabulary.num_codes == codes
    assert vocabulary.size == codes + len(SPECIALS)
    assert [vocabulary.special(name) for name in SPECIALS] == list(range(codes, codes + 5))


@pytest.mark.parametrize("layout", ["offset", "split"])
def test_every_id_names_one_code_of_one_row(layout: str) -> None:
    vocabulary = Vocabulary(layout, SMALL, HASH)
    used = [i for row in vocabulary.rows() for i in range(row.offset, row.offset + row.size)]
    assert used == list(range(vocabulary.num_codes))


def test_rows_of_a_subset() -> None:
    split = Vocabulary("split", SMALL, HASH)
    rows = split.rows({"acoustic": (0, 2), "emotion": 1})
    assert [(r.stage, r.block) for r in rows] == [(0, "emotion"), (0, "acoustic"), (2, "acoustic")]
    assert rows[2].offset == 4 * 8 + 2 * 20
    shared = Vocabulary("shared", SMALL, HASH)
    assert [(r.stage, r.block, r.offset) for r in shared.rows((3, 1))] == [
        (1, None, 0),
        (3, None, 0),
    ]


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        (5, "wanted 0..4 stages, got 5"),
        ((0, 0), "different stages in 0..3"),
        ((4,), "different stages in 0..3"),
        ({"speaker": 1}, "unknown blocks \\['speaker'\\]"),
        ((), "at least one stage"),
        ({"emotion": 0}, "at least one stage"),
    ],
)
def test_subsets_that_are_refused(stages, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Vocabulary("split", SMALL, HASH).rows(stages)


@pytest.mark.parametrize("stages", ["2", 1.5, {"emotion": "all"}])
def test_subsets_of_a_wrong_type(stages) -> None:
    with pytest.raises(TypeError, match="wanted None, an int"):
        Vocabulary("split", SMALL, HASH).rows(stages)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_file_round_trip(layout: str, tmp_path) -> None:
    vocabulary = Vocabulary(layout, SMALL, HASH, specials=(*SPECIALS, "speech", "text"))
    path = tmp_path / "vocabulary.json"
    vocabulary.save(path)
    assert Vocabulary.load(path) == vocabulary
    data = json.loads(path.read_text())
    assert data["config_hash"] == HASH
    assert data["specials"]["text"] == vocabulary.size - 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "wanted a mapping with format"),
        ({"version": 9}, "this release reads 1; update"),
        ({"size": 7}, "do not follow from its layout"),
        ({"layout": "stacked"}, "wanted one of"),
        ({"specials": {"pad": 0}}, "among them"),
        ({"specials": [1]}, "must map names to ids"),
        ({"quantizer": {}}, "missing keys"),
    ],
)
def test_damaged_files_are_refused(change, message: str) -> None:
    data = Vocabulary("split", SMALL, HASH).to_dict() | change
    with pytest.raises(ValueError, match=message):
        Vocabulary.from_dict(data)


def test_a_file_that_is_no_json(tmp_path) -> None:
    path = tmp_path / "vocabulary.json"
    path.write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        Vocabulary.load(path)
    path.write_text("{}")
    with pytest.raises(ValueError, match="wanted a mapping with format"):
        Vocabulary.load(path)


def test_tokens_of_another_codec_are_refused() -> None:
    tokens = make_tokens([3])
    Vocabulary.of(tokens, "split").check(tokens)
    other = dataclasses.replace(tokens, config_hash="f" * 16)
    with pytest.raises(ValueError, match="made by the codec ffffffffffffffff, but this vocab"):
        Vocabulary.of(tokens, "split").check(other)


def test_vocabulary_of_a_codec_is_that_of_its_tokens() -> None:
    codec = tiny_codec()
    tokens = codec.encode(torch.zeros(700))
    assert Vocabulary.of(codec, "offset") == Vocabulary.of(tokens, "offset")
    extra = Vocabulary.of(codec, "offset", ["text"])
    assert extra.special("text") == extra.size - 1


def test_specials_must_hold_the_needed_names() -> None:
    with pytest.raises(ValueError, match="specials: wanted different names"):
        Vocabulary("split", SMALL, HASH, specials=("pad", "bos"))
    with pytest.raises(ValueError, match="special: wanted one of"):
        Vocabulary("split", SMALL, HASH).special("text")


def test_more_ids_than_int64_can_name() -> None:
    wide = BDRFSQConfig(blocks=(Block("emotion", 64, (2,) * 60),), num_stages=16)
    with pytest.raises(ValueError, match="more than int64 can name"):
        Vocabulary("offset", wide, HASH)
