# SPDX-License-Identifier: Apache-2.0
"""Step graphs of the codec in ONNX, with explicit state, and running them under ONNX Runtime."""

from __future__ import annotations
