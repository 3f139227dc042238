# SPDX-License-Identifier: Apache-2.0
"""Operators of BD-RFSQ: functions that hold no parameters."""

from affectcodec.ops.registry import use_backend

__all__ = ["use_backend"]
