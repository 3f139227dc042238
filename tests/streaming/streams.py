# SPDX-License-Identifier: Apache-2.0
"""Helpers of the streaming tests: chopping of audio and one whole pass over a pair."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from affectcodec.streaming import StreamingDecoder, StreamingEncoder

Samples = npt.NDArray[np.float32]


def chopped(wav: Samples, seed: int, longest: int = 2000) -> Iterator[Samples]:
    """``wav`` in pieces of 0 to ``longest`` samples."""
    generator = np.random.default_rng(seed)
    at = 0
    while at < len(wav):
        # Small and large pieces alike: even in the logarithm.
        size = int(np.exp(generator.uniform(0, np.log(longest + 1)))) - 1
        yield wav[at : at + size]
        at += size


def packets_of(encoder: StreamingEncoder, wav: Samples, seed: int, slot: int = 0) -> list[bytes]:
    """All packets of a clip, pushed in pieces."""
    found = [packet for part in chopped(wav, seed) for packet in encoder.push(part, slot)]
    return found + encoder.flush(slot)


def audio_of(decoder: StreamingDecoder, packets: list[bytes], slot: int = 0) -> Samples:
    """Audio of a clip's packets, the latency taken off its front."""
    audio = np.concatenate([decoder.push(packet, slot) for packet in packets])
    decoder.reset(slot)
    return audio[decoder.latency.samples :]
