# SPDX-License-Identifier: Apache-2.0
"""Entropy coding of tokens: a learned prior of the digits, and a range coder.

    coder = load_coder()  # the prior shipped with the default weights
    tokens = encode_to_rate(codec, wav, 1.5, coder=coder)  # stage counts by frame
    write_tokens("clip.afc", tokens, coder=coder)

The same tokens take 60 to 71 % of the bits; decoding gives them back exactly.
"""

from affectcodec.entropy.coder import PriorCoder
from affectcodec.entropy.find import find_prior, load_coder
from affectcodec.entropy.prior import Prior
from affectcodec.entropy.rate import RateControl, encode_to_rate, to_rate

__all__ = [
    "Prior",
    "PriorCoder",
    "RateControl",
    "encode_to_rate",
    "find_prior",
    "load_coder",
    "to_rate",
]
