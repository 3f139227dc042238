# SPDX-License-Identifier: Apache-2.0
"""Small quantizers of two blocks and their latents."""

from __future__ import annotations

import torch
from torch import Tensor

from affectcodec.config import BDRFSQConfig, Block
from affectcodec.nn import BDRFSQ

EMOTION, ACOUSTIC = Block("emotion", 10, (2, 2, 2)), Block("acoustic", 23, (4, 3, 5))
CONFIG = BDRFSQConfig(blocks=(EMOTION, ACOUSTIC), num_stages=5)


def quantizer(config: BDRFSQConfig = CONFIG, *, form: str = "codespace", seed: int = 0) -> BDRFSQ:
    """A quantizer whose biases and affine are not at their neutral start."""
    torch.manual_seed(seed)
    q = BDRFSQ(config, form=form)
    with torch.no_grad():
        for parameter in q.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return q


def twins(config: BDRFSQConfig = CONFIG) -> tuple[BDRFSQ, BDRFSQ]:
    fast = quantizer(config)
    naive = BDRFSQ(config, form="naive")
    naive.load_state_dict(fast.state_dict())
    return fast, naive


def latent(batch: int = 2, frames: int = 6, width: int = CONFIG.width, **kwargs) -> Tensor:
    return torch.randn(batch, width, frames, **kwargs)
