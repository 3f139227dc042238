# SPDX-License-Identifier: Apache-2.0
"""Emotion algebra: what moves, what stays, what is refused."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from affectcodec.tokens import interpolate, join, only_block, split, strip_emotion, swap_emotion
from tests.codec_fixtures import tiny_codec
from tests.tokens.clips import make_tokens


def test_split_and_join_are_inverse() -> None:
    tokens = make_tokens([5, 3], {"emotion": 3, "acoustic": 2})
    parts = split(tokens)
    assert parts["emotion"].stages == {"emotion": 3, "acoustic": 0}
    assert not parts["acoustic"].block_codes("emotion").any()
    assert join(parts) == tokens


def test_split_leaves_out_a_block_without_stages() -> None:
    assert list(split(make_tokens([2], {"emotion": 0, "acoustic": 1}))) == ["acoustic"]


def test_an_emotion_only_stream_costs_its_bits() -> None:
    tokens = only_block(make_tokens([50]), "emotion", 2)
    assert tokens.stages == {"emotion": 2, "acoustic": 0}
    assert tokens.kbps == pytest.approx(2 * 0.15)


def test_swap_takes_emotion_from_one_and_all_else_from_the_other() -> None:
    a, b = make_tokens([6, 4], seed=1), make_tokens([6, 4], {"emotion": 2, "acoustic": 4}, seed=2)
    out = swap_emotion(a, b)
    assert out.stages == {"emotion": 2, "acoustic": 4}
    assert torch.equal(out.block_codes("acoustic"), a.block_codes("acoustic"))
    assert torch.equal(out.block_codes("emotion"), b.block_codes("emotion"))
    assert torch.equal(out.num_samples, a.num_samples)
    assert swap_emotion(out, a) == a


def test_swap_between_clips_of_different_length() -> None:
    a, b = make_tokens([6, 2], seed=1), make_tokens([3, 4], seed=2)
    emotion = b.block_codes("emotion")
    stretched = swap_emotion(a, b).block_codes("emotion")
    assert torch.equal(stretched[0], emotion[0][:, [0, 0, 1, 1, 2, 2]])
    assert torch.equal(stretched[1, :, :2], emotion[1][:, [1, 3]])
    assert not stretched[1, :, 2:].any()
    repeated = swap_emotion(a, b, align="repeat").block_codes("emotion")
    assert torch.equal(repeated[0], emotion[0][:, [0, 1, 2, 0, 1, 2]])
    assert torch.equal(repeated[1, :, :2], emotion[1][:, [0, 1]])
    with pytest.raises(ValueError, match="frames differ: \\[3, 4\\] against \\[6, 2\\]"):
        swap_emotion(a, b, align="exact")


def test_swap_keeps_what_each_frame_lacks() -> None:
    limit = torch.full((1, 2, 4), 4)
    limit[0, 0, 1] = 2
    limit[0, 1, 3] = 1
    a = make_tokens([4], seed=1)
    b = dataclasses.replace(make_tokens([4], seed=2), frame_stages=limit)
    out = swap_emotion(a, b)
    assert out.frame_stages is not None
    assert out.frame_stages[0].tolist() == [[4, 2, 4, 4], [4, 4, 4, 4]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a, b: swap_emotion(a, b.select(0)), "wanted 2 clips as in `to`, got 1"),
        (lambda a, b: swap_emotion(a, b, align="dtw"), "got 'dtw'"),
        (lambda a, b: swap_emotion(a, make_tokens([0, 3])), "a clip has no frames"),
        (
            lambda a, b: swap_emotion(a, dataclasses.replace(b, config_hash="f" * 16)),
            "come from different codecs",
        ),
        (lambda a, b: join({}), "wanted at least one block"),
        (lambda a, b: join({"speaker": a}), "unknown block 'speaker'"),
        (lambda a, b: join({"emotion": a, "acoustic": b}), "'acoustic' has clips of \\[3, 3\\]"),
        (lambda a, b: only_block(a, "speaker"), "unknown block 'speaker'"),
        (lambda a, b: only_block(strip_emotion(a), "emotion"), "hold no stage of 'emotion'"),
    ],
)
def test_refusals(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(make_tokens([4, 2]), make_tokens([3, 3]))


def test_strip_cuts_the_emotion_block_or_puts_another_in_its_place() -> None:
    a, calm = make_tokens([5], seed=1), make_tokens([2], seed=2)
    cut = strip_emotion(a)
    assert cut.stages == {"emotion": 0, "acoustic": 4}
    assert torch.equal(cut.block_codes("acoustic"), a.block_codes("acoustic"))
    filled = strip_emotion(a, calm)
    assert filled == swap_emotion(a, calm, align="repeat")


def test_interpolation_ends_at_both_emotions() -> None:
    codec = tiny_codec()
    waves = torch.randn(2, 1, 4000, generator=torch.Generator().manual_seed(0)) * 0.3
    a, b = codec.encode(waves[:1]), codec.encode(waves[1:])
    same = interpolate(codec, a, b, 0.0)
    assert torch.equal(same.block_codes("acoustic"), a.block_codes("acoustic"))
    # A quantized latent need not be its own quantization, but it stays near itself.
    near = codec.quantizer.decode(same.codes)
    assert near.shape == codec.quantizer.decode(a.codes).shape
    assert interpolate(codec, a, b, 1.0).lengths.tolist() == a.lengths.tolist()
    with pytest.raises(ValueError, match="weight: wanted a finite number"):
        interpolate(codec, a, b, float("nan"))
    with pytest.raises(ValueError, match="codec: is .*, the tokens come from"):
        interpolate(codec, dataclasses.replace(a, config_hash="f" * 16), b, 0.5)
