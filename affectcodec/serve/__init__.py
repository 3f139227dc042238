# SPDX-License-Identifier: Apache-2.0
"""A local web page to hear the codec: ``affectcodec serve``."""

from __future__ import annotations
