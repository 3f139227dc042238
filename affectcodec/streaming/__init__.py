# SPDX-License-Identifier: Apache-2.0
"""Live coding: audio to packets and back, many streams in one object.

from affectcodec.streaming import StreamingDecoder, StreamingEncoder

encoder, decoder = StreamingEncoder(codec, kbps=3), StreamingDecoder(codec)
for packet in encoder.push(pcm):      # any number of samples
    play(decoder.push(packet))        # decoder.push(None) where a packet was lost
"""

from __future__ import annotations

from affectcodec.streaming.decoder import StreamingDecoder
from affectcodec.streaming.encoder import StreamingEncoder
from affectcodec.streaming.engine import StreamLatency
from affectcodec.streaming.state import StateError

__all__ = ["StateError", "StreamLatency", "StreamingDecoder", "StreamingEncoder"]
