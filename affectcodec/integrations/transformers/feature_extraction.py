# SPDX-License-Identifier: Apache-2.0
"""Waves to padded batches."""

from __future__ import annotations

from typing import Any

from transformers import DacFeatureExtractor


class AffectCodecFeatureExtractor(DacFeatureExtractor):
    """Pads mono waves to a batch ``input_values [B, 1, N]`` with ``padding_mask [B, N]``.

    Takes what the extractors of other codecs take; see ``transformers.DacFeatureExtractor``.

    Args:
        sampling_rate: in Hz; waves of another rate are refused.
        hop_length: samples a frame; batches are padded to whole frames.
    """

    model_input_names = ["input_values", "padding_mask"]  # noqa: RUF012

    def __init__(
        self,
        feature_size: int = 1,
        sampling_rate: int = 16000,
        padding_value: float = 0.0,
        hop_length: int = 320,
        **kwargs: Any,
    ) -> None:
        super().__init__(feature_size, sampling_rate, padding_value, hop_length, **kwargs)
