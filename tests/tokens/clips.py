# SPDX-License-Identifier: Apache-2.0
"""Made-up tokens."""

from __future__ import annotations

import torch

from affectcodec.config import BDRFSQConfig, Block
from affectcodec.tokens import Tokens

SMALL = BDRFSQConfig(
    blocks=(Block("emotion", 4, (2, 2, 2)), Block("acoustic", 4, (4, 5))), num_stages=4
)
HASH = "0123456789abcdef"


def make_tokens(
    lengths: list[int],
    stages: dict[str, int] | int = 4,
    quantizer: BDRFSQConfig = SMALL,
    seed: int = 0,
) -> Tokens:
    """Random tokens, 0 beyond each clip and where a block is cut."""
    generator = torch.Generator().manual_seed(seed)
    counts = quantizer.resolve_stages(stages)
    shape = (len(lengths), max(counts.values()), max(lengths, default=0))
    codes = torch.zeros(shape, dtype=torch.int64)
    for block in quantizer.blocks:
        n = counts[block.name]
        part = torch.randint(0, block.codebook_size, (shape[0], n, shape[2]), generator=generator)
        codes[:, :n] += part * quantizer.token_bases()[block.name]
    frames = torch.tensor(lengths, dtype=torch.int64)
    codes.masked_fill_((torch.arange(shape[2]) >= frames[:, None])[:, None], 0)
    return Tokens(
        codes.to(torch.int32),
        frames,
        (frames - 1).clamp(min=0) * 320,
        counts,
        quantizer,
        HASH,
    )
