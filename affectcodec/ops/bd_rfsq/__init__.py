# SPDX-License-Identifier: Apache-2.0
"""BD-RFSQ of one block, in two equal forms.

``naive`` runs the residual recursion stage by stage on the latent: it is the specification.
``codespace`` runs the same recursion on the code dims only, with an exact backward: it is fast.
"""

from affectcodec.ops.bd_rfsq.codespace import quantize_codespace
from affectcodec.ops.bd_rfsq.naive import quantize_naive
from affectcodec.ops.bd_rfsq.params import (
    BlockParams,
    BlockResult,
    decode_block,
    decode_block_backward,
)

__all__ = [
    "BlockParams",
    "BlockResult",
    "decode_block",
    "decode_block_backward",
    "quantize_codespace",
    "quantize_naive",
]
