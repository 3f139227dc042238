# SPDX-License-Identifier: Apache-2.0
"""Modules: the quantizer and the causal layers of the codec."""

from affectcodec.nn.bdrfsq import BDRFSQ, BDRFSQOutput

__all__ = ["BDRFSQ", "BDRFSQOutput"]
