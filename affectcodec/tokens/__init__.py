# SPDX-License-Identifier: Apache-2.0
"""Tokens of the codec and how a language model sees them.

``Tokens`` is what the encoder gives and the decoder takes. A ``Vocabulary`` numbers them flatly,
special ids included; a ``Pattern`` lays them out as sequences and reads them back exactly. The
functions of ``affectcodec.tokens.algebra`` read, move and remove the emotion stream.
"""

from affectcodec.tokens.algebra import (
    interpolate,
    join,
    only_block,
    split,
    strip_emotion,
    swap_emotion,
)
from affectcodec.tokens.batch import Tokens
from affectcodec.tokens.patterns import PATTERNS, Pattern, Sequences
from affectcodec.tokens.vocabulary import LAYOUTS, SPECIALS, Row, Vocabulary

__all__ = [
    "LAYOUTS",
    "PATTERNS",
    "SPECIALS",
    "Pattern",
    "Row",
    "Sequences",
    "Tokens",
    "Vocabulary",
    "interpolate",
    "join",
    "only_block",
    "split",
    "strip_emotion",
    "swap_emotion",
]
