# SPDX-License-Identifier: Apache-2.0
"""Word and character error rates of recognised against spoken text.

Both texts are normalised alike: Unicode compatibility form, case folded, digits written out in the
clip's language, punctuation gone. Rates are taken over a corpus: all errors over all reference
words, so that a short clip weighs what it holds; an insertion counts, so a rate may exceed 1.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

import numpy as np

from affectcodec.evaluation.bootstrap import Estimate, interval

_NUMBER = re.compile(r"\d+")
_APOSTROPHES = re.compile(r"['’ʼ`]")
_NO_WORD = re.compile(r"[\W_]+")
_LONGEST_NUMBER = 15  # digits; longer ones are read one by one


def normalise(text: str, language: str = "en") -> str:
    """Words in lower case with one space between, digits written out.

    Raises:
        ImportError: package num2words missing, and the text has digits.
    """
    text = unicodedata.normalize("NFKC", text).casefold()
    text = _NUMBER.sub(lambda match: f" {_spell(match.group(), language)} ", text)
    return " ".join(_NO_WORD.sub(" ", _APOSTROPHES.sub("", text)).split())


def _spell(digits: str, language: str) -> str:
    try:
        from num2words import num2words
    except ImportError as error:
        raise ImportError(
            "texts with digits need the package num2words: pip install 'affectcodec[judges]'"
        ) from error
    pieces = [digits] if len(digits) <= _LONGEST_NUMBER else list(digits)
    try:
        return " ".join(str(num2words(int(piece), lang=language)) for piece in pieces)
    except NotImplementedError:  # a language that it does not know: digits stay
        return digits


@dataclass(frozen=True)
class Errors:
    """Edits and lengths of one clip."""

    word_edits: int
    words: int
    character_edits: int
    characters: int


def count_errors(reference: str, heard: str, language: str = "en") -> Errors:
    """Levenshtein distances of normalised texts, in words and in characters without spaces.

    Raises:
        ValueError: the reference has no word.
        ImportError: package rapidfuzz missing.
    """
    try:
        from rapidfuzz.distance import Levenshtein
    except ImportError as error:
        raise ImportError(
            "error rates need the package rapidfuzz: pip install 'affectcodec[judges]'"
        ) from error
    said, answer = normalise(reference, language), normalise(heard, language)
    if not said:
        raise ValueError(f"words: the reference {reference!r} has no word")
    letters, heard_letters = said.replace(" ", ""), answer.replace(" ", "")
    return Errors(
        Levenshtein.distance(said.split(), answer.split()),
        len(said.split()),
        Levenshtein.distance(letters, heard_letters),
        len(letters),
    )


def error_rate(edits: np.ndarray, lengths: np.ndarray, weights: np.ndarray) -> Estimate:
    """Edits over length with a bootstrap interval.

    Args:
        edits, lengths: `[clips]`; NaN leaves a clip out.
        weights: `[replicates, clips]`.
    """
    there = np.isfinite(edits) & np.isfinite(lengths)
    edits, lengths = np.where(there, edits, 0.0), np.where(there, lengths, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(edits.sum() / lengths.sum()) if lengths.sum() else float("nan")
        return interval(value, (weights @ edits) / (weights @ lengths), int(there.sum()))
