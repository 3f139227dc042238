# SPDX-License-Identifier: Apache-2.0
"""The quantizer that a configuration asks for."""

from __future__ import annotations

from affectcodec.config import BDRFSQConfig
from affectcodec.nn.bdrfsq import BDRFSQ
from affectcodec.nn.rfsq import DenseRFSQ
from affectcodec.nn.rvq import ResidualVQ

Quantizer = BDRFSQ | DenseRFSQ | ResidualVQ


def make_quantizer(config: BDRFSQConfig) -> Quantizer:
    """BD-RFSQ, or a baseline with the same tokens and bits."""
    if config.kind == "rfsq":
        return DenseRFSQ(config)
    if config.kind == "rvq":
        return ResidualVQ(config)
    return BDRFSQ(config)
