# SPDX-License-Identifier: Apache-2.0
"""Concealment: what stands for lost frames, the predictor's fit and file, the way back."""

from __future__ import annotations

import numpy as np
import pytest

from affectcodec import AffectCodec
from affectcodec.config import StreamNetworkConfig
from affectcodec.streaming import StreamingDecoder, StreamingEncoder
from affectcodec.streaming.concealment import Concealment, LatentHistory
from affectcodec.streaming.predictor import shipped_predictor
from tests.codec_fixtures import HOP, speech_like, tiny_codec


def test_the_shipped_weights_are_concealed_by_their_predictor() -> None:
    codec = AffectCodec.from_pretrained()
    predictor = shipped_predictor(codec.fingerprint)
    assert predictor is not None
    assert Concealment.of(codec, "predict").predictor is predictor
    assert Concealment.of(codec, "repeat").predictor is None
    assert Concealment.of(tiny_codec(), "predict").predictor is None


def speaking(width: int) -> LatentHistory:
    """A history of sound that is far above its noise floor."""
    history = LatentHistory(width)
    history.append(np.arange(8 * width, dtype=np.float32).reshape(8, width))
    history.level_db, history.floor_db = -20.0, -70.0
    return history


def test_the_history_marks_what_came() -> None:
    history = LatentHistory(2)
    assert not history.came.any() and history.filled == 0
    history.append(np.ones((3, 2), np.float32))
    conceal = Concealment("repeat")
    history.append(np.full((1, 2), 5, np.float32))
    for _ in range(2):
        latent, gain = conceal.next(history)
        assert gain == 1.0 and latent.tolist() == [5, 5]
    history.append(np.full((1, 2), 7, np.float32))
    assert history.came.tolist() == [0, 1, 1, 1, 1, 0, 0, 1]
    assert history.rows[:, 0].tolist() == [0, 1, 1, 1, 5, 5, 5, 7]
    assert history.known[:, 0].tolist() == [1, 1, 5, 7] and history.lost == 0
    history.append(np.arange(40, dtype=np.float32).reshape(20, 2))
    assert history.came.all() and history.rows[0, 0] == 24 and history.known[0, 0] == 32


def test_quiet_is_near_the_noise_floor_not_below_a_level() -> None:
    """Speech of a quiet recording is no background, though it lies below the level of one."""
    generator = np.random.default_rng(0)
    noise = generator.standard_normal((300, HOP)).astype(np.float32)
    history = LatentHistory(2)
    for hop in noise[:100]:
        history.hear(1e-3 * hop)  # -60 dBFS
    assert history.quiet and abs(history.level_db + 60) < 2
    for hop in noise[:4]:
        history.hear(5e-3 * hop)  # -46 dBFS
    assert not history.quiet
    for hop in noise[:20]:
        history.hear(1e-3 * hop)
    assert history.quiet
    loud = LatentHistory(2)
    for hop in noise:
        loud.hear(2e-2 * hop)  # steady, but no background so loud
    assert not loud.quiet
    silent = LatentHistory(2)
    silent.hear(np.zeros(HOP, np.float32))
    assert silent.quiet and np.isfinite(silent.floor_db)


def test_gains_hold_then_fade_and_quiet_is_held() -> None:
    history = LatentHistory(2)
    conceal = Concealment("predict")
    assert conceal.next(history)[1] == 0.0  # nothing came yet
    history = speaking(2)
    gains = [conceal.next(history)[1] for _ in range(16)]
    assert (
        gains[:6] == [1.0] * 6
        and gains[6] < 1.0
        and gains[-1] == 0.0
        and gains == sorted(gains, reverse=True)
    )
    history = speaking(2)
    history.level_db = -68.0
    held = [conceal.next(history) for _ in range(40)]
    assert all(gain == 1.0 for _, gain in held)
    assert len({latent.tobytes() for latent, _ in held}) == 4


@pytest.mark.parametrize("kind", ["predict", "repeat", "silence"])
def test_sound_comes_back_within_100_ms_and_does_not_drift(kind: str) -> None:
    """Of spectra, by hop. Phase and the slow pools remember the gap: samples differ for good."""
    codec = AffectCodec.from_pretrained()
    encoder, decoder = StreamingEncoder(codec), StreamingDecoder(codec, concealment=kind)
    packets = encoder.push(speech_like(90 * HOP).numpy())
    clean = np.stack([decoder.push(p) for p in packets])
    decoder.reset()
    heard = np.stack([decoder.push(None if 40 <= i < 44 else p) for i, p in enumerate(packets)])
    assert np.array_equal(clean[:40], heard[:40])
    window = np.hanning(HOP)
    a, b = (np.log10(np.abs(np.fft.rfft(x * window)) ** 2 + 0.02) * 10 for x in (clean, heard))
    distance = np.abs(a - b).mean(1)
    after = distance[44 + 5 : 60]  # 100 ms later
    late = distance[75:]
    assert after.mean() < 2.5 and late.mean() < 2.0
    assert after.mean() < 0.6 * distance[41:45].mean()


def test_what_a_gap_leaves_behind() -> None:
    """Why samples stay different: phase and pools. Prosody, which drives both, is bitwise back."""
    codec = tiny_codec()
    prosody = codec.decoder.prosody.network
    packets = StreamingEncoder(codec).push(speech_like(150 * HOP).numpy())
    clean, lossy = (StreamingDecoder(codec, engine="torch") for _ in range(2))
    network = codec.config.network
    assert isinstance(network, StreamNetworkConfig)
    reach = len(prosody.blocks) * (network.kernel_size - 1)  # frames that the histories go back
    assert reach == 18
    apart: dict[int, dict[str, float]] = {}
    for i, packet in enumerate(packets):
        clean.push(packet)
        lossy.push(None if 30 <= i < 34 else packet)
        a, b = clean.engine.state(0), lossy.engine.state(0)
        apart[i - 33] = {  # frames since the gap
            name.removeprefix("decoder."): float(np.abs(a[name] - b[name]).max()) for name in a
        }
    for name in apart[1]:
        if name.startswith("prosody.") or name == "source.previous":
            assert apart[1][name] > 0
            assert all(apart[n][name] == 0 for n in range(reach + 1, 100)), name
    assert all(apart[n]["source.position"] == 0 for n in apart)
    # Nothing ever sets the phase again, so that it is off by the same from there on.
    turn = 2**32  # it is kept modulo this
    phases = [apart[n]["source.phase"] for n in range(reach + 1, 100)]
    assert len({min(p, turn - p) for p in phases}) == 1
    assert apart[99]["source.phase"] > 0
    # The pools forget as they are declared to: the shorter one by half a second.
    assert apart[70]["conditioning.segment"] < 0.5 * apart[reach]["conditioning.segment"]
    assert apart[99]["conditioning.utterance"] > 0


def test_without_loss_the_concealment_changes_nothing() -> None:
    codec = tiny_codec()
    packets = StreamingEncoder(codec).push(speech_like(12 * HOP).numpy())
    heard = []
    for kind in ("predict", "repeat", "silence"):
        decoder = StreamingDecoder(codec, concealment=kind)
        heard.append(np.concatenate([decoder.push(p) for p in packets]))
    assert np.array_equal(heard[0], heard[1]) and np.array_equal(heard[0], heard[2])


def test_a_stream_saved_within_a_gap_goes_on_to_the_same_bits() -> None:
    codec = AffectCodec.from_pretrained()
    packets = StreamingEncoder(codec).push(speech_like(30 * HOP).numpy())
    lost = {8, 10, 11, 12, 13, 20}
    decoder, other = StreamingDecoder(codec), StreamingDecoder(codec)
    whole = [decoder.push(None if i in lost else p) for i, p in enumerate(packets)]
    for moment in (9, 12, 14):
        decoder.reset()
        for i, packet in enumerate(packets[:moment]):
            decoder.push(None if i in lost else packet)
        other.load_state(decoder.state())
        for i, packet in enumerate(packets[moment:], moment):
            assert np.array_equal(other.push(None if i in lost else packet), whole[i]), (moment, i)
