# SPDX-License-Identifier: Apache-2.0
"""Patterns: exact inverses on ragged batches and all subsets of stages, and what they refuse."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from affectcodec.config import BDRFSQConfig, Block
from affectcodec.tokens import LAYOUTS, PATTERNS, Pattern, Tokens, Vocabulary
from tests.tokens.clips import HASH, SMALL, make_tokens

THREE = BDRFSQConfig(
    blocks=(Block("emotion", 4, (2,)), Block("speaker", 4, (3, 3)), Block("acoustic", 4, (4,))),
    num_stages=3,
)


def combinations() -> list[tuple[str, str]]:
    return [(p, v) for p in PATTERNS for v in LAYOUTS if p != "emotion_first" or v == "split"]


def subsets(top: int) -> st.SearchStrategy:
    stage_set = st.sets(st.integers(0, top - 1), max_size=top).map(lambda s: tuple(sorted(s)))
    return stage_set


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(combinations()),
    st.lists(st.integers(0, 9), max_size=4),
    st.tuples(subsets(4), subsets(4)).filter(any),
    st.booleans(),
    st.booleans(),
    st.integers(0, 99),
)
def test_codes_come_back_for_every_subset_of_stages(case, lengths, kept, bos, eos, seed) -> None:
    name, layout = case
    tokens = make_tokens(lengths, seed=seed)
    subset = dict(zip(("emotion", "acoustic"), kept, strict=True))
    pattern = Pattern(name, Vocabulary.of(tokens, layout), subset, bos, eos)
    sequences = pattern.encode(tokens)
    assert torch.equal(sequences.lengths, pattern.length(tokens.lengths))
    codes, frames = pattern.decode_codes(sequences)
    assert torch.equal(frames, tokens.lengths)
    for block, stages in subset.items():
        assert torch.equal(codes[block].int(), tokens.block_codes(block)[:, list(stages)])


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(combinations()),
    st.lists(st.integers(0, 9), max_size=4),
    st.tuples(st.integers(0, 4), st.integers(0, 4)).filter(any),
    st.integers(0, 99),
)
def test_tokens_come_back(case, lengths, counts, seed) -> None:
    name, layout = case
    tokens = make_tokens(lengths, seed=seed)
    stages = dict(zip(("emotion", "acoustic"), counts, strict=True))
    pattern = Pattern(name, Vocabulary.of(tokens, layout), stages)
    want = tokens.truncate(stages)
    assert pattern.decode(pattern.encode(tokens)) == want
    # A language model writes no lengths: they follow from eos.
    assert pattern.decode(pattern.encode(tokens).ids) == want


@pytest.mark.parametrize("name", PATTERNS)
def test_three_blocks(name: str) -> None:
    tokens = make_tokens([5, 0, 2], 3, THREE)
    pattern = Pattern(name, Vocabulary.of(tokens, "split"))
    assert pattern.decode(pattern.encode(tokens)) == tokens


def test_flatten_by_hand() -> None:
    tokens = make_tokens([2, 1], {"emotion": 2, "acoustic": 1})
    vocabulary = Vocabulary.of(tokens, "split")
    pattern = Pattern("flatten", vocabulary, {"emotion": 2, "acoustic": 1})
    ids = pattern.encode(tokens).ids
    emotion, acoustic = tokens.block_codes("emotion"), tokens.block_codes("acoustic")
    bos, eos, pad = (vocabulary.special(name) for name in ("bos", "eos", "pad"))

    def frame(b: int, t: int) -> list[int]:
        return [int(emotion[b, 0, t]), 8 + int(emotion[b, 1, t]), 32 + int(acoustic[b, 0, t])]

    assert ids.tolist() == [
        [bos, *frame(0, 0), *frame(0, 1), eos],
        [bos, *frame(1, 0), eos, pad, pad, pad],
    ]


def test_emotion_first_by_hand() -> None:
    tokens = make_tokens([2], 1)
    vocabulary = Vocabulary.of(tokens, "split")
    ids = Pattern("emotion_first", vocabulary, {"emotion": 1, "acoustic": 1}).encode(tokens).ids
    emotion = tokens.block_codes("emotion")[0, 0].tolist()
    acoustic = (32 + tokens.block_codes("acoustic")[0, 0]).tolist()
    special = vocabulary.special
    assert ids[0].tolist() == [
        special("bos"),
        *emotion,
        special("sep"),
        *acoustic,
        special("eos"),
    ]


def test_delay_by_hand() -> None:
    tokens = make_tokens([3, 1], 2)
    vocabulary = Vocabulary.of(tokens, "shared")
    ids = Pattern("delay", vocabulary, 2, bos=False).encode(tokens).ids
    a, b = tokens.codes[0, 0].tolist(), tokens.codes[0, 1].tolist()
    mask, eos, pad = (vocabulary.special(name) for name in ("mask", "eos", "pad"))
    assert ids[0].tolist() == [[*a, mask, eos], [mask, *b, eos]]
    c, d = int(tokens.codes[1, 0, 0]), int(tokens.codes[1, 1, 0])
    assert ids[1].tolist() == [[c, mask, eos, pad, pad], [mask, d, eos, pad, pad]]


def test_mask_marks_valid_positions() -> None:
    tokens = make_tokens([2, 1], 1)
    sequences = Pattern("flatten", Vocabulary.of(tokens, "shared"), 1).encode(tokens)
    assert sequences.mask.tolist() == [[True] * 4, [True] * 3 + [False]]


def test_num_samples_can_be_given_back() -> None:
    tokens = dataclasses.replace(make_tokens([4, 2]), num_samples=torch.tensor([901, 7]))
    pattern = Pattern("flatten", Vocabulary.of(tokens, "split"))
    assert pattern.decode(pattern.encode(tokens), num_samples=tokens.num_samples) == tokens


def test_int32_ids_are_taken() -> None:
    tokens = make_tokens([3, 2])
    for name in PATTERNS:
        pattern = Pattern(name, Vocabulary.of(tokens, "split"))
        sequences = pattern.encode(tokens)
        assert pattern.decode(sequences.ids.int(), sequences.lengths) == tokens


# -- what a language model may get wrong --------------------------------------------------------


def broken(name: str, change) -> tuple[Pattern, Tokens, torch.Tensor]:
    tokens = make_tokens([4], 2)
    pattern = Pattern(name, Vocabulary.of(tokens, "split"), 2)
    ids = pattern.encode(tokens).ids.clone()
    return pattern, tokens, change(ids)


def cut_to(tokens: Tokens, frames: int) -> Tokens:
    lengths = torch.tensor([frames])
    return dataclasses.replace(
        tokens,
        codes=tokens.codes[..., :frames],
        lengths=lengths,
        num_samples=(lengths - 1).clamp(min=0) * 320,
    )


def test_an_id_of_another_row() -> None:
    def change(ids):
        ids[0, 1 + 2 * 4 + 1] = 3  # an emotion code of stage 0 where one of stage 1 belongs
        return ids

    pattern, tokens, ids = broken("flatten", change)
    with pytest.raises(ValueError, match="clip 0, frame 2: 3 is no id of stage 1 of 'emotion'"):
        pattern.decode(ids)
    assert pattern.decode(ids, errors="cut") == cut_to(tokens, 2)


def test_a_special_id_in_the_middle() -> None:
    def change(ids):
        ids[0, 6] = 10**9
        return ids

    pattern, tokens, ids = broken("flatten", change)
    with pytest.raises(ValueError, match="frame 1: 117 is no id"):
        pattern.decode(ids)
    assert pattern.decode(ids, errors="cut") == cut_to(tokens, 1)


def test_a_sequence_that_ends_inside_a_frame() -> None:
    pattern, tokens, ids = broken("flatten", lambda ids: ids[:, :-3])
    with pytest.raises(ValueError, match="holds 14 ids in a part where a frame takes 4"):
        pattern.decode(ids)
    assert pattern.decode(ids, errors="cut") == cut_to(tokens, 3)


def test_parts_of_different_lengths() -> None:
    pattern, tokens, ids = broken("emotion_first", lambda ids: ids[:, :-4])
    with pytest.raises(ValueError, match="frames; errors='cut'"):
        pattern.decode(ids)
    assert pattern.decode(ids, errors="cut") == cut_to(tokens, 2)


def test_no_separator() -> None:
    pattern, tokens, ids = broken("emotion_first", lambda ids: ids[:, :5])
    with pytest.raises(ValueError, match="errors='cut'"):
        pattern.decode(ids)
    assert pattern.decode(ids, errors="cut") == cut_to(tokens, 0)


def test_too_short_for_the_delay() -> None:
    pattern, tokens, ids = broken("delay", lambda ids: ids[..., :2])
    with pytest.raises(ValueError, match="too few for the delay of 1"):
        pattern.decode(ids)
    assert pattern.decode(ids, errors="cut") == cut_to(tokens, 0)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(PATTERNS), st.integers(0, 10**6), st.integers(0, 30))
def test_random_ids_never_give_impossible_tokens(name, seed, width) -> None:
    vocabulary = Vocabulary("split", SMALL, HASH)
    pattern = Pattern(name, vocabulary, 2)
    generator = torch.Generator().manual_seed(seed)
    shape = (3, width + 1) if pattern.flat else (3, 4, width + 1)
    ids = torch.randint(-3, vocabulary.size + 3, shape, generator=generator)
    ids[..., 0] = vocabulary.special("bos")
    tokens = pattern.decode(ids, errors="cut")
    assert int(tokens.codes.min() if tokens.codes.numel() else 0) >= 0
    assert int(tokens.codes.max() if tokens.codes.numel() else 0) < SMALL.codebook_size
    assert bool((tokens.lengths <= max(1, width)).all())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p, t: p.decode(torch.zeros(3, dtype=torch.long)), "ids: wanted \\[B, L\\]"),
        (lambda p, t: p.decode(torch.zeros(1, 3)), "wanted int64 or int32, got torch.float32"),
        (lambda p, t: p.decode(torch.zeros(1, 3, dtype=torch.long)), "must begin with bos"),
        (lambda p, t: p.decode(torch.zeros(1, 0, dtype=torch.long)), "must begin with bos"),
        (
            lambda p, t: p.decode(p.encode(t).ids, torch.tensor([99])),
            "lengths: wanted \\[1\\] values in 0..34",
        ),
        (lambda p, t: p.decode(p.encode(t).ids, torch.tensor([9])), "does not end with eos"),
        (lambda p, t: p.decode(p.encode(t), errors="skip"), "'raise' or 'cut', got 'skip'"),
        (lambda p, t: p.encode(t.truncate(2)), "hold 2 stages of 'emotion', but the pattern"),
        (
            lambda p, t: p.encode(dataclasses.replace(t, config_hash="f" * 16)),
            "made by the codec ffff",
        ),
    ],
)
def test_refusals(call, message: str) -> None:
    tokens = make_tokens([4])
    pattern = Pattern("flatten", Vocabulary.of(tokens, "split"))
    with pytest.raises(ValueError, match=message):
        call(pattern, tokens)


def test_patterns_that_are_refused() -> None:
    vocabulary = Vocabulary("shared", SMALL, HASH)
    with pytest.raises(ValueError, match="name: wanted one of"):
        Pattern("zigzag", vocabulary)
    with pytest.raises(ValueError, match="layout 'split', got 'shared'"):
        Pattern("emotion_first", vocabulary)


def test_a_subset_that_is_no_prefix_is_no_tokens() -> None:
    tokens = make_tokens([4])
    pattern = Pattern("flatten", Vocabulary.of(tokens, "split"), (1, 3))
    with pytest.raises(ValueError, match="are not the first stages"):
        pattern.decode(pattern.encode(tokens))


def test_frames_that_lack_stages_are_refused() -> None:
    limit = torch.full((1, 2, 4), 4)
    limit[0, 1, 2] = 1
    tokens = dataclasses.replace(make_tokens([4]), frame_stages=limit)
    vocabulary = Vocabulary.of(tokens, "split")
    with pytest.raises(ValueError, match="keeps \\[4, 1\\] stages of .* at frame 2"):
        Pattern("flatten", vocabulary).encode(tokens)
    one = Pattern("flatten", vocabulary, 1)
    assert torch.equal(one.decode(one.encode(tokens)).codes, tokens.truncate(1).codes)


def test_codebooks_beyond_32_bits() -> None:
    wide = BDRFSQConfig(
        blocks=(Block("emotion", 8, (2,) * 8), Block("acoustic", 30, (2,) * 30)), num_stages=2
    )
    codes = torch.randint(0, 2**38, (2, 2, 5))
    lengths = torch.tensor([5, 5])
    tokens = Tokens(codes, lengths, (lengths - 1) * 320, {}, wide, HASH)
    for layout in LAYOUTS:
        pattern = Pattern("flatten", Vocabulary.of(tokens, layout))
        assert pattern.decode(pattern.encode(tokens)) == tokens


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("inference", [False, True])
def test_pieces_of_long_and_ragged_batches_come_back(layout, threads, inference, monkeypatch):
    from affectcodec.tokens import chunks

    monkeypatch.setattr(chunks, "_PIECE", 16)
    monkeypatch.setattr(chunks, "_WORTH_THREADS", 1)
    torch.set_num_threads(threads)
    for lengths in ([70, 70], [70, 3, 0, 41], [5] * 9):
        tokens = make_tokens(lengths, seed=3)
        pattern = Pattern("flatten", Vocabulary.of(tokens, layout))
        with torch.inference_mode(inference):
            sequences = pattern.encode(tokens)
            back = pattern.decode(sequences, num_samples=tokens.num_samples)
        assert back == tokens
        assert pattern.decode(sequences.ids.int(), num_samples=tokens.num_samples) == tokens


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("off", [2**32, -(2**32), 2**31, -(2**31)])
def test_no_id_wraps_into_a_possible_one(layout, off) -> None:
    tokens = make_tokens([6, 6])
    pattern = Pattern("flatten", Vocabulary.of(tokens, layout))
    ids = pattern.encode(tokens).ids
    ids[1, 1] += off
    with pytest.raises(ValueError, match="clip 1, frame 0"):
        pattern.decode(ids)
    assert pattern.decode(ids, errors="cut").lengths.tolist() == [6, 0]
