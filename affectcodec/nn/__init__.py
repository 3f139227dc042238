# SPDX-License-Identifier: Apache-2.0
"""Modules: the quantizer and the causal layers of the codec, and checks of a quantizer."""

from affectcodec.nn.bdrfsq import BDRFSQ, BDRFSQOutput
from affectcodec.nn.diagnostics import (
    IsolationError,
    IsolationReport,
    UsageReport,
    check_isolation,
    isolation_report,
    usage_report,
)

__all__ = [
    "BDRFSQ",
    "BDRFSQOutput",
    "IsolationError",
    "IsolationReport",
    "UsageReport",
    "check_isolation",
    "isolation_report",
    "usage_report",
]
