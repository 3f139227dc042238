# SPDX-License-Identifier: Apache-2.0
"""The UDP pair on loopback, its jitter buffer and its meter."""

from __future__ import annotations

import numpy as np
import pytest

from affectcodec.streaming import StreamingDecoder, StreamingEncoder
from affectcodec.streaming.loss import LossModel
from affectcodec.streaming.meter import Meter
from affectcodec.streaming.udp import JitterBuffer, Network, run_pair
from tests.codec_fixtures import HOP, speech_like, tiny_codec
from tests.streaming.streams import packets_of


@pytest.fixture(scope="module")
def codec():
    return tiny_codec()


def test_packets_in_any_order_come_out_in_theirs() -> None:
    buffer = JitterBuffer(2)
    buffer.put(5, b"5")
    assert buffer.get() == (False, None) and buffer.get() == (False, None)
    buffer.put(7, b"7")
    buffer.put(6, b"6")
    assert [buffer.get() for _ in range(4)] == [
        (True, b"5"),
        (True, b"6"),
        (True, b"7"),
        (True, None),
    ]
    buffer.put(6, b"6")
    buffer.put(10**6, b"far")
    assert buffer.late == 1 and not buffer._packets


def test_a_meter_of_known_numbers() -> None:
    meter = Meter(0.02)
    for _ in range(50):
        with meter.step():
            pass
        meter.packet(10)
    assert meter.kbps == pytest.approx(4.0)
    assert 0 <= meter.percentile(50) <= meter.percentile(99.9)
    meter.delay(0.04)
    assert "4.00 kbit/s" in meter.line() and "delay 40 ms" in meter.line()
    assert "kbit/s" not in Meter(0.02).line()  # where nobody counts bytes there is no rate


def test_a_clip_over_loopback(codec) -> None:
    wav = speech_like(25 * HOP + 9).numpy()
    encoder, decoder = StreamingEncoder(codec), StreamingDecoder(codec)
    want = np.concatenate([decoder.push(p) for p in packets_of(encoder, wav, 0)])
    decoder.reset()
    network = Network(LossModel(0.0))
    audio, sent, heard = run_pair(encoder, decoder, wav, network, realtime=False)
    assert sent.frames == codec.config.num_frames(len(wav)) and sent.bytes > 0
    # Datagrams may come late on a busy machine, which is what the buffer counts as loss.
    if not heard.lost:
        assert np.array_equal(audio, want)
    assert 0 < heard.bytes <= sent.bytes


def test_losses_are_concealed_in_place(codec) -> None:
    wav = speech_like(60 * HOP).numpy()
    encoder, decoder = StreamingEncoder(codec), StreamingDecoder(codec)
    network = Network(LossModel(0.3, 2), seed=3)
    audio, _, heard = run_pair(encoder, decoder, wav, network, realtime=False)
    assert heard.lost > 5 and np.isfinite(audio).all()
    assert len(audio) % HOP == 0 and len(audio) > 40 * HOP


def test_in_real_time_with_jitter(codec) -> None:
    wav = speech_like(15 * HOP).numpy()
    encoder, decoder = StreamingEncoder(codec), StreamingDecoder(codec)
    ticks: list[str] = []
    audio, *_ = run_pair(
        encoder,
        decoder,
        wav,
        Network(LossModel(0.0), jitter_ms=30),
        jitter_buffer_ms=60,
        on_tick=lambda sent, got: ticks.append(sent.line()),
    )
    assert len(audio) >= 5 * HOP and ticks
