# SPDX-License-Identifier: Apache-2.0
"""Coarse emotion as a condition: views of one stream at several time scales, applied by FiLM.

All views are causal: a frame, a segment (running attention with a short memory) and an utterance
(the same with a long one). In the decoder they are made of decoded emotion tokens alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from affectcodec.nn.causal import LeakyAttentionPool, StreamState

CONDITION_WIDTH = 64


class Times(Protocol):
    """Time constants of the pools."""

    @property
    def segment_seconds(self) -> float: ...

    @property
    def utterance_seconds(self) -> float: ...


class GranularConditioning(nn.Module):
    """Views of ``[B, T, C]`` at the asked time scales, mixed into one condition.

    Args:
        channels: of the stream.
        frame_rate: in Hz.
        segment_s, utterance_s: memory of the two pools in seconds.
        granularities: of ``"frame"``, ``"segment"``, ``"utterance"``, at least one.
    """

    def __init__(
        self,
        channels: int,
        frame_rate: float,
        segment_s: float,
        utterance_s: float,
        granularities: Sequence[str] = ("frame", "segment", "utterance"),
    ) -> None:
        super().__init__()
        self.granularities = tuple(granularities)
        if "segment" in self.granularities:
            self.segment = LeakyAttentionPool(channels, segment_s * frame_rate)
        if "utterance" in self.granularities:
            self.utterance = LeakyAttentionPool(channels, utterance_s * frame_rate)
        self.mix = nn.Linear(len(self.granularities) * channels, CONDITION_WIDTH)

    def forward(self, hidden: Tensor, state: StreamState | None = None) -> Tensor:
        """``[B, T, C] -> [B, T, CONDITION_WIDTH]``."""
        views = [
            hidden if name == "frame" else getattr(self, name)(hidden, state)
            for name in self.granularities
        ]
        return torch.tanh(self.mix(torch.cat(views, -1)))


class FiLM(nn.Module):
    """``x * (1 + gain) + offset`` of a condition; the identity at the start."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(CONDITION_WIDTH, 2 * channels)
        # Conditioning is learned, never imposed.
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """``x [B, T, C]``, ``condition [B, T, CONDITION_WIDTH]``."""
        gain, offset = self.linear(condition).chunk(2, -1)
        return x * (1 + gain) + offset


def condition_of(
    granularities: Sequence[str], channels: int, frame_rate: float, times: Times
) -> GranularConditioning | None:
    """The conditioning that a configuration asks for, None if it asks for none."""
    if not granularities:
        return None
    return GranularConditioning(
        channels, frame_rate, times.segment_seconds, times.utterance_seconds, granularities
    )


class EncoderConditioning(nn.Module):
    """The emotion branch modulates the acoustic branch before its projection to the latent.

    No gradient passes to the emotion branch: its few bits are not there to help reconstruction.
    Quantization follows, so that no side channel arises; but acoustic tokens then depend on
    emotion, and the blocks are isolated in the quantizer alone.
    """

    def __init__(
        self,
        granularities: Sequence[str],
        emotion_channels: int,
        acoustic_channels: int,
        frame_rate: float,
        times: Times,
    ) -> None:
        super().__init__()
        views = condition_of(granularities, emotion_channels, frame_rate, times)
        if views is None:
            raise ValueError("granularities: wanted at least one, got none")
        self.views, self.film = views, FiLM(acoustic_channels)

    def forward(
        self, acoustic: Tensor, emotion: Tensor, state: StreamState | None = None
    ) -> Tensor:
        """``acoustic [B, T, A]`` under ``emotion [B, T, E]``."""
        return self.film(acoustic, self.views(emotion.detach(), state))
