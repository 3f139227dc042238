# SPDX-License-Identifier: Apache-2.0
"""Operators of BD-RFSQ: functions that hold no parameters."""
