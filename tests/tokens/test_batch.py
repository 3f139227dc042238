# SPDX-License-Identifier: Apache-2.0
"""Tokens: what they refuse, and cutting, selecting and splitting them."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from affectcodec.config import BDRFSQConfig, Block
from affectcodec.tokens import Tokens

CONFIG = BDRFSQConfig(
    blocks=(Block("emotion", 4, (2, 2, 2)), Block("acoustic", 4, (4, 5))), num_stages=4
)


def make(batch: int = 2, count: int = 4, frames: int = 6, **changes) -> Tokens:
    values = {
        "codes": torch.randint(0, CONFIG.codebook_size, (batch, count, frames), dtype=torch.int32),
        "lengths": torch.tensor([frames, frames - 2][:batch]),
        "num_samples": torch.tensor([(frames - 1) * 320, (frames - 3) * 320 - 7][:batch]),
        "stages": {"emotion": count, "acoustic": count},
        "quantizer": CONFIG,
        "config_hash": "0123456789abcdef",
    }
    return Tokens(**{**values, **changes})


def test_figures() -> None:
    tokens = make()
    assert (len(tokens), tokens.batch_size, tokens.num_frames) == (2, 2, 6)
    assert tokens.duration.tolist() == [5 * 320 / 16000, (3 * 320 - 7) / 16000]
    assert tokens.kbps == pytest.approx(4 * CONFIG.token_bits * 50 / 1000)


def test_block_codes_split_the_token() -> None:
    tokens = make()
    emotion, acoustic = tokens.block_codes("emotion"), tokens.block_codes("acoustic")
    assert int(emotion.max()) < 8 and int(acoustic.max()) < 20
    assert torch.equal(emotion + 8 * acoustic, tokens.codes)
    with pytest.raises(ValueError, match="'speaker'; there are \\['emotion', 'acoustic'\\]"):
        tokens.block_codes("speaker")


@pytest.mark.parametrize(
    ("stages", "want"),
    [
        (None, {"emotion": 4, "acoustic": 4}),
        (2, {"emotion": 2, "acoustic": 2}),
        ({"emotion": 4, "acoustic": 1}, {"emotion": 4, "acoustic": 1}),
        ({"emotion": 0, "acoustic": 3}, {"emotion": 0, "acoustic": 3}),
    ],
)
def test_truncate_keeps_the_first_stages_of_each_block(stages, want: dict[str, int]) -> None:
    tokens = make()
    cut = tokens.truncate(stages)
    assert cut.stages == want
    assert cut.codes.shape == (2, max(want.values()), 6)
    assert cut.codes.dtype == torch.int32
    for name, count in want.items():
        assert torch.equal(cut.block_codes(name), tokens.block_codes(name)[:, :count])
    # Where a block is cut its digits are 0, so that equal contents are equal numbers.
    size = {"emotion": (1, 8), "acoustic": (8, 20)}
    for name, count in want.items():
        base, codes = size[name]
        assert not (cut.codes[:, count:] // base % codes).any()
    assert torch.equal(cut.truncate(stages).codes, cut.codes)


def test_truncate_never_adds_stages() -> None:
    cut = make().truncate({"emotion": 3, "acoustic": 1})
    assert cut.truncate(None).stages == {"emotion": 3, "acoustic": 1}
    assert cut.truncate(2).stages == {"emotion": 2, "acoustic": 1}
    bare = make().truncate({"emotion": 0, "acoustic": 2})
    with pytest.raises(ValueError, match="at least one stage"):
        bare.truncate({"acoustic": 0})


def test_truncate_leaves_the_original_alone() -> None:
    tokens = make()
    before = tokens.codes.clone()
    tokens.truncate(1).codes.fill_(0)
    assert torch.equal(tokens.codes, before)


def test_truncate_limits_stages_that_vary_by_frame() -> None:
    limit = torch.randint(0, 5, (2, 2, 6))
    cut = make(frame_stages=limit).truncate({"emotion": 4, "acoustic": 1})
    assert torch.equal(cut.frame_stages[:, 0], limit[:, 0])
    assert torch.equal(cut.frame_stages[:, 1], limit[:, 1].clamp(max=1))


@pytest.mark.parametrize("index", [0, 1, -1, -2])
def test_select_gives_one_clip_without_padding(index: int) -> None:
    limit = torch.randint(0, 5, (2, 2, 6))
    tokens = make(frame_stages=limit)
    one = tokens.select(index)
    frames = int(tokens.lengths[index])
    assert one.codes.shape == (1, 4, frames)
    assert torch.equal(one.codes[0], tokens.codes[index, :, :frames])
    assert torch.equal(one.frame_stages[0], limit[index, :, :frames])
    assert one.num_samples.tolist() == [int(tokens.num_samples[index])]
    assert one.lengths.tolist() == [frames]


def test_select_outside_the_batch_is_an_error() -> None:
    with pytest.raises(IndexError):
        make().select(2)


def test_moving_keeps_everything() -> None:
    tokens = make(frame_stages=torch.ones(2, 2, 6, dtype=torch.int64))
    moved = tokens.to("cpu")
    for field in dataclasses.fields(Tokens):
        a, b = getattr(tokens, field.name), getattr(moved, field.name)
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"codes": torch.zeros(2, 4, 6)}, "codes must be an int32 or int64 tensor [B, K, T]"),
        ({"codes": torch.zeros(4, 6, dtype=torch.int32)}, "(4, 6)"),
        ({"lengths": torch.tensor([6])}, "lengths must be [B] = [2]"),
        ({"num_samples": torch.tensor([1, 2, 3])}, "num_samples must be [B] = [2]"),
        ({"stages": {"emotion": 3, "acoustic": 3}}, "codes hold 4 stages"),
        ({"stages": {"speaker": 4}}, "'speaker'"),
        ({"frame_stages": torch.ones(2, 3, 6)}, "frame_stages must be [B, G, T] = (2, 2, 6)"),
    ],
)
def test_parts_that_do_not_fit_are_named(changes: dict, words: str) -> None:
    with pytest.raises(ValueError) as caught:
        make(**changes)
    assert words in str(caught.value)


def test_tokens_are_equal_if_all_their_parts_are() -> None:
    tokens = make(frame_stages=torch.ones(2, 2, 6, dtype=torch.int64))
    same = dataclasses.replace(
        tokens, codes=tokens.codes.clone(), frame_stages=tokens.frame_stages.clone()
    )
    assert tokens == same
    changed = tokens.codes.clone()
    changed[0, 0, 0] ^= 1
    for other in (
        dataclasses.replace(tokens, codes=changed),
        dataclasses.replace(tokens, frame_stages=None),
        dataclasses.replace(tokens, config_hash="f" * 16),
        tokens.truncate(2),
        tokens.select(0),
        "tokens",
    ):
        assert tokens != other
    with pytest.raises(TypeError, match="unhashable"):
        hash(tokens)


def test_64_bit_codes_stay_exact() -> None:
    config = BDRFSQConfig((Block("a", 4, (2,) * 30), Block("b", 4, (2,) * 30)), 2)
    codes = torch.tensor([[[2**60 - 1, 2**59 + 12345]] * 2])
    tokens = Tokens(
        codes, torch.tensor([2]), torch.tensor([320]), {"a": 2, "b": 2}, config, "0" * 16
    )
    assert tokens.block_codes("b")[0, 0].tolist() == [2**30 - 1, 2**29]
    cut = tokens.truncate({"a": 2, "b": 1})
    assert cut.codes[0].tolist() == [[2**60 - 1, 2**59 + 12345], [2**30 - 1, 12345]]
