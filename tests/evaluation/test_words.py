# SPDX-License-Identifier: Apache-2.0
"""Known error rates."""

from __future__ import annotations

import numpy as np
import pytest

from affectcodec.evaluation.words import count_errors, error_rate, normalise

pytest.importorskip("rapidfuzz")
pytest.importorskip("num2words")


def test_known_word_error_rate() -> None:
    errors = count_errors("The cat sat on the mat.", "the cat sit on mat")
    assert (errors.word_edits, errors.words) == (2, 6)  # sat -> sit, the left out
    assert (errors.character_edits, errors.characters) == (4, 17)


def test_insertions_count_and_may_exceed_one() -> None:
    errors = count_errors("Yes", "yes yes yes")
    assert (errors.word_edits, errors.words) == (2, 1)


def test_nothing_heard_is_all_wrong() -> None:
    errors = count_errors("Dogs are sitting by the door", "")
    assert errors.word_edits == errors.words == 6
    assert errors.character_edits == errors.characters


@pytest.mark.parametrize(
    ("text", "language", "wanted"),
    [
        ("Don't STOP!", "en", "dont stop"),
        ("It cost 12 pounds", "en", "it cost twelve pounds"),
        ("mam 5 kotów", "pl", "mam pięć kotów"),
        ("Zażółć—gęślą  jaźń…", "pl", "zażółć gęślą jaźń"),
        ("ﬁne", "en", "fine"),
        ("zazo\u0301łc\u0301", "pl", "zazółć"),  # composed and decomposed letters are equal
        ("...", "en", ""),
    ],
)
def test_normal_form(text: str, language: str, wanted: str) -> None:
    assert normalise(text, language) == wanted


def test_a_language_without_number_words_keeps_digits() -> None:
    assert normalise("a 7", "xx") == "a 7"


def test_an_endless_number_does_not_hang() -> None:
    assert normalise("9" * 400).split() == ["nine"] * 400


def test_a_reference_without_words_is_an_error() -> None:
    with pytest.raises(ValueError, match="no word"):
        count_errors(" ?! ", "something")


def test_rate_weighs_by_length_and_leaves_out_what_is_missing() -> None:
    edits, words = np.array([2.0, 0.0, np.nan]), np.array([4.0, 16.0, np.nan])
    rate = error_rate(edits, words, np.array([[1, 1, 1], [2, 0, 1], [0, 2, 1]]))
    assert (rate.mean, rate.count) == (0.1, 2)
    assert 0.0 <= rate.low < 0.1 < rate.high <= 0.5
