# SPDX-License-Identifier: Apache-2.0
"""StreamingDecoder: against the offline codec, gaps, late packets, states, bad input."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import affectcodec
from affectcodec import AffectCodec
from affectcodec.bitstream import AfcPacketError, truncate_packet
from affectcodec.streaming import StateError, StreamingDecoder, StreamingEncoder
from affectcodec.streaming.encoder import Frames
from tests.codec_fixtures import HOP, speech_like, tiny_codec
from tests.streaming.streams import audio_of, packets_of


@pytest.fixture(scope="module")
def codec():
    return tiny_codec()


@pytest.fixture(scope="module")
def packets(codec) -> list[bytes]:
    wav = speech_like(30 * HOP).numpy()
    return packets_of(StreamingEncoder(codec, engine="torch"), wav, 0)


def error_db(got: np.ndarray, want: np.ndarray) -> float:
    return 10 * np.log10(np.square(got - want).sum() / np.square(want).sum() + 1e-30)


def test_a_stream_is_the_offline_decode_after_the_declared_delay(codec) -> None:
    wav = speech_like(20 * HOP + 100).numpy()
    encoder, decoder = StreamingEncoder(codec, engine="torch"), StreamingDecoder(codec)
    frames = encoder.push_frames({0: wav})[0], encoder.flush_frames()
    audio = np.concatenate([decoder.push_frames({0: part})[0] for part in frames])
    tokens = codec.encode(wav)
    codes = np.concatenate([part.codes for part in frames]).T
    want = codec.decode(dataclasses.replace(tokens, codes=torch.from_numpy(codes)[None].clone()))
    got = audio[decoder.latency.samples :][: len(wav)]
    assert error_db(got, want[0, 0].numpy()) < -80


def test_an_impulse_through_the_windows_takes_the_declared_time(codec) -> None:
    """Analysis and synthesis as the networks use them, frame by frame, without the networks."""
    analysis, synthesis = codec.encoder.analysis, codec.decoder.synthesis
    wav, at = torch.zeros(1, 10 * HOP), 5 * HOP + 17
    wav[0, at] = 1.0
    before: dict[str, torch.Tensor] = {}
    after: dict[str, torch.Tensor] = {}
    hops = wav.split(HOP, 1)
    played = torch.cat([synthesis(analysis(x, before).float(), after) for x in hops], 1)
    # The hop that a frame returns is played once that frame has been heard: one hop later.
    moment = HOP + played[0].argmax()
    assert float(played[0, moment - HOP]) > 0.999
    assert int(moment) - at == codec.latency.samples == 640


def test_the_envelope_of_speech_comes_out_after_the_declared_time() -> None:
    codec = AffectCodec.from_pretrained()
    encoder, decoder = StreamingEncoder(codec), StreamingDecoder(codec)
    assert encoder.latency.samples + decoder.latency.samples == 640
    folder = Path(affectcodec.__file__).parent / "samples"
    wav, _ = soundfile.read(folder / "female-1.flac", frames=100 * HOP, dtype="float32")
    audio = np.concatenate([decoder.push(p) for p in encoder.push(wav)])
    smooth = np.hanning(80)
    a, b = (np.sqrt(np.convolve(x**2, smooth, "same")) for x in (wav, audio))
    size = 2 * len(a)
    product = np.conj(np.fft.rfft(a - a.mean(), size)) * np.fft.rfft(b - b.mean(), size)
    delay = HOP + int(np.argmax(np.fft.irfft(product)[: 4 * HOP]))
    assert abs(delay - 640) <= 48  # 3 ms; it is 24 samples, by the decay that coding adds


def test_sound_changes_no_sooner_than_its_frame(codec) -> None:
    encoder, decoder = StreamingEncoder(codec, engine="torch"), StreamingDecoder(codec)
    wav = speech_like(12 * HOP).numpy()
    clicked = wav.copy()
    clicked[5 * HOP + 17] += 0.5
    heard = []
    for clip in (wav, clicked):
        heard.append(np.concatenate([decoder.push(p) for p in packets_of(encoder, clip, 0)]))
        decoder.reset()
    assert int(np.flatnonzero(heard[0] != heard[1])[0]) // HOP == 5


@pytest.mark.parametrize("kind", ["predict", "repeat", "silence"])
def test_lost_packets_keep_their_place(codec, packets, kind: str) -> None:
    decoder = StreamingDecoder(codec, concealment=kind)
    parts = [decoder.push(None if 10 <= i < 14 else p) for i, p in enumerate(packets)]
    assert all(part.shape == (HOP,) and np.isfinite(part).all() for part in parts)
    assert vars(decoder.counters()) == {
        "decoded": 27, "concealed": 4, "skipped": 0, "dropped": 0,
    }  # fmt: skip


def test_a_gap_in_the_index_is_concealed_like_a_reported_loss(codec, packets) -> None:
    decoder = StreamingDecoder(codec, engine="torch")
    want = np.concatenate([decoder.push(None if i in (4, 5) else p) for i, p in enumerate(packets)])
    decoder.reset()
    got = np.concatenate([decoder.push(p) for i, p in enumerate(packets) if i not in (4, 5)])
    assert np.array_equal(got, want)


def test_late_and_repeated_packets_give_nothing(codec, packets) -> None:
    decoder = StreamingDecoder(codec)
    decoder.push(packets[0])
    decoder.push(None)
    assert len(decoder.push(packets[1])) == 0
    assert len(decoder.push(packets[2])) == HOP
    assert len(decoder.push(packets[2])) == 0
    assert decoder.counters().dropped == 2


def test_a_jump_is_skipped_and_not_filled(codec, packets) -> None:
    encoder, decoder = StreamingEncoder(codec), StreamingDecoder(codec)
    decoder.push(packets[0])
    far = encoder.push(speech_like(200 * HOP).numpy())[-1]
    assert len(decoder.push(far)) == HOP
    assert decoder.counters().skipped == 198


def test_a_relay_may_cut_stages(codec, packets) -> None:
    decoder = StreamingDecoder(codec)
    cut = [truncate_packet(p, decoder.header, {"acoustic": i % 3}) for i, p in enumerate(packets)]
    assert np.isfinite(audio_of(decoder, cut)).all()


def test_neighbours_do_not_change_a_slot(codec, packets) -> None:
    decoder = StreamingDecoder(codec, slots=3)
    want = np.concatenate([decoder.push(p, 1) for p in packets])
    decoder.reset(1)
    got = []
    for i, p in enumerate(packets):
        beside = {0: packets[i // 2]} if i % 2 else {2: None, 0: None}
        got.append(decoder.push_many({1: p, **beside})[1])
    assert np.array_equal(np.concatenate(got), want)


def test_a_saved_state_continues(codec, packets) -> None:
    decoder = StreamingDecoder(codec)
    for p in packets[:9]:
        decoder.push(p)
    decoder.push(None)
    saved = decoder.state()
    want = np.concatenate([decoder.push(p) for p in (None, *packets[11:])])
    decoder.reset()
    decoder.load_state(saved)
    assert np.array_equal(np.concatenate([decoder.push(p) for p in (None, *packets[11:])]), want)
    assert len(saved) < 64 << 10


def test_damaged_states_are_refused_and_change_nothing(codec, packets) -> None:
    decoder = StreamingDecoder(codec)
    decoder.push(packets[0])
    saved = decoder.state()
    encoder = StreamingEncoder(codec)
    for bad in (b"", saved[:-7], encoder.state(), saved.replace(b'filled\\"', b'killed\\"')):
        with pytest.raises(StateError):
            decoder.load_state(bad)
    older = saved.replace(b'version\\": 2', b'version\\": 1')
    assert older != saved
    with pytest.raises(StateError, match="version is 1, this stream has 2"):
        decoder.load_state(older)
    for entry in ("gain", "level_db", "floor_db"):
        pattern = rb'(%s\\": )(-?[0-9.]+)' % entry.encode()
        hurt = re.sub(pattern, lambda m: m[1] + b"NaN".ljust(len(m[2])), saved)
        assert hurt != saved
        with pytest.raises(StateError):
            decoder.load_state(hurt)
    want = decoder.push(packets[1])
    decoder.load_state(saved)
    assert np.array_equal(decoder.push(packets[1]), want)


def test_flush_completes_the_overlap(codec, packets) -> None:
    decoder = StreamingDecoder(codec)
    assert len(decoder.flush()) == 0
    decoder.push(packets[0])
    assert decoder.flush().shape == (HOP,)
    assert decoder.counters().decoded == 0


def test_bad_packets_are_refused_and_change_nothing(codec, packets) -> None:
    decoder = StreamingDecoder(codec, slots=2)
    decoder.push(packets[0])
    broken = bytearray(packets[1])
    broken[-1] ^= 1
    for bad in (b"", bytes(broken), packets[1][:-1], packets[1] + b"x"):
        with pytest.raises(AfcPacketError):
            decoder.push_many({0: packets[1], 1: bad})
    want = decoder.push(packets[1])
    decoder.reset()
    decoder.push(packets[0])
    assert np.array_equal(decoder.push(packets[1]), want)


def test_bad_frames_are_refused(codec) -> None:
    decoder = StreamingDecoder(codec)
    good, stages = np.zeros((2, 4), np.int32), np.full((2, 2), 4)
    for codes, counts in (
        (good - 1, stages),
        (good + 512, stages),
        (good[:, :3], stages),
        (good.astype(float), stages),
        (good, stages[:1]),
    ):
        with pytest.raises(ValueError, match="wanted"):
            decoder.push_frames({0: Frames(codes, counts, 0)})
    with pytest.raises(ValueError, match="concealment"):
        StreamingDecoder(codec, concealment="magic")
