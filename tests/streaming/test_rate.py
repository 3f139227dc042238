# SPDX-License-Identifier: Apache-2.0
"""Rate control and discontinuous transmission."""

from __future__ import annotations

import numpy as np
import pytest

from affectcodec.bitstream import parse_packet, serialize_packet
from affectcodec.config import CodecConfig
from affectcodec.streaming import StreamingDecoder, StreamingEncoder
from affectcodec.streaming.rate import (
    RateController,
    SilenceDetector,
    default_ladder,
    packet_bytes,
)
from tests.codec_fixtures import HOP, speech_like, tiny_codec


@pytest.fixture(scope="module")
def codec():
    return tiny_codec()


def test_the_ladder_climbs_emotion_first() -> None:
    ladder = default_ladder(CodecConfig())
    assert ladder[:4] == [(1, 1), (2, 1), (2, 2), (3, 2)] and ladder[-1] == (8, 8)


@pytest.mark.parametrize("kbps", [4.3, 5.0, 7.77])
def test_the_mean_rate_is_the_target(kbps: float) -> None:
    config = CodecConfig()
    controller = RateController(config, kbps)
    sizes = [packet_bytes(config, controller.next(i), 1, i) for i in range(2000)]
    assert sum(sizes) * 8 * 50 / 2000 / 1000 == pytest.approx(kbps, rel=0.01)
    costs = [packet_bytes(config, rung, 1, 0) for rung in controller.ladder]
    assert costs == sorted(set(costs)) and controller.ladder[-1] == (8, 8)


@pytest.mark.parametrize(
    ("stages", "frames", "start"), [((1, 1), 1, 0), ((3, 2), 2, 127), ((4, 0), 1, 128)]
)
def test_the_size_of_a_packet_is_known_before(codec, stages, frames: int, start: int) -> None:
    header = StreamingEncoder(codec).header
    codes = [np.zeros((count, frames), np.int32) for count in stages]
    assert packet_bytes(codec.config, stages, frames, start) == len(
        serialize_packet(codes, header, start)
    )


def test_packets_follow_the_target(codec) -> None:
    encoder = StreamingEncoder(codec)
    encoder.follow_rate(RateController(codec.config, 4.6))
    packets = encoder.push(speech_like(200 * HOP).numpy())
    assert sum(map(len, packets)) * 8 / 1000 / 4 == pytest.approx(4.6, rel=0.02)
    counts = {tuple(len(c) for c in parse_packet(p, encoder.header).codes) for p in packets}
    assert len(counts) > 1
    encoder.follow_rate(None)
    encoder.set_rate(2)
    (packet,) = encoder.push(speech_like(HOP).numpy())
    assert [len(c) for c in parse_packet(packet, encoder.header).codes] == [2, 2]


def test_what_a_pause_saves_is_spent_within_the_window() -> None:
    config = CodecConfig()
    controller = RateController(config, 5.0, window_s=0.1)
    for _ in range(500):
        controller.skip()
    rich = [sum(controller.next()) for _ in range(20)]
    assert rich[0] == 16 and max(rich[8:]) < 16


def test_a_target_below_the_lowest_rate_is_refused() -> None:
    with pytest.raises(ValueError, match="gather more than 1 frames"):
        RateController(CodecConfig(), 1.0)
    assert RateController(CodecConfig(), 1.5, frames_per_packet=8).next() == (2, 1)


def test_silence_is_told_from_speech() -> None:
    detector = SilenceDetector()
    generator = np.random.default_rng(0)
    noise = (1e-3 * generator.standard_normal((200, HOP))).astype(np.float32)
    loud = speech_like(50 * HOP).numpy().reshape(50, HOP)
    quiet = [detector.silent(frame) for frame in noise]
    assert not any(quiet[:12]) and all(quiet[20:])
    assert not any(detector.silent(frame) for frame in loud)
    after = [detector.silent(frame) for frame in noise]
    assert not any(after[:12]) and all(after[13:])  # soft endings are sent


def test_discontinuous_transmission(codec) -> None:
    encoder = StreamingEncoder(codec, dtx=True)
    wav = np.concatenate(
        [speech_like(30 * HOP).numpy(), np.zeros(100 * HOP, np.float32), speech_like(30 * HOP)]
    )
    packets = encoder.push(wav) + encoder.flush()
    starts = [parse_packet(p, encoder.header).start for p in packets]
    assert (
        len(packets) < 90
        and starts[:30] == list(range(30))
        and starts[-30:-1] == list(range(131, 160))
    )
    assert max(np.diff(starts)) == 8
    decoder = StreamingDecoder(codec)
    by_start = dict(zip(starts, packets, strict=True))
    audio = [decoder.push(by_start.get(i)) for i in range(starts[-1] + 1)]
    assert all(len(part) == HOP for part in audio)
    encoder = StreamingEncoder(codec, dtx=True)
    encoder.push(wav[: 60 * HOP])
    saved = encoder.state()
    want = encoder.push(wav[60 * HOP :])
    encoder.load_state(saved)
    assert encoder.push(wav[60 * HOP :]) == want
