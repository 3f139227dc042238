# SPDX-License-Identifier: Apache-2.0
"""Operators of BD-RFSQ: functions that hold no parameters."""

from affectcodec.ops.bits import pack_bits, unpack_bits
from affectcodec.ops.registry import use_backend

__all__ = ["pack_bits", "unpack_bits", "use_backend"]
