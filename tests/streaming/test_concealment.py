# SPDX-License-Identifier: Apache-2.0
"""Concealment: what stands for lost frames, the predictor's fit and file, the way back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from affectcodec import AffectCodec
from affectcodec.checkpoint import shipped_folder
from affectcodec.config import StreamNetworkConfig
from affectcodec.streaming import StreamingDecoder, StreamingEncoder
from affectcodec.streaming.concealment import (
    Concealment,
    LatentHistory,
    Predictor,
    shipped_predictor,
)
from affectcodec.streaming.fit_concealment import fit
from tests.codec_fixtures import HOP, speech_like, tiny_codec


def sequences(count: int = 20, width: int = 6) -> list[np.ndarray]:
    """Latents of a known law: each channel decays by 0.8 a frame, driven by noise."""
    generator = np.random.default_rng(0)
    out = []
    for _ in range(count):
        z = np.zeros((200, width))
        for t in range(1, 200):
            z[t] = 0.8 * z[t - 1] + generator.standard_normal(width)
        out.append((z + 3).astype(np.float32))
    return out


def test_the_predictor_finds_the_law_of_its_latents() -> None:
    predictor = fit(sequences(100), "0" * 16, horizon=3, rank=6)
    history = LatentHistory(6)
    history.append(sequences(1)[0][:50])
    for lost in (1, 2, 3):
        history.lost = lost
        want = 3 + 0.8**lost * (history.latents[-1] - 3)
        np.testing.assert_allclose(predictor.latent(history), want, atol=0.3)
    history.lost = 9  # beyond the horizon the last one stays
    far = predictor.latent(history)
    history.lost = 3
    np.testing.assert_array_equal(far, predictor.latent(history))


def test_a_predictor_survives_its_file(tmp_path: Path) -> None:
    predictor = fit(sequences(3), "0123456789abcdef", horizon=2, rank=2)
    predictor.save(tmp_path / "p.safetensors")
    loaded = Predictor.load(tmp_path / "p.safetensors")
    assert loaded.fingerprint == "0123456789abcdef"
    np.testing.assert_allclose(loaded.weights, predictor.weights, atol=2e-3)
    with pytest.raises(ValueError, match="no predictor"):
        Predictor.load(shipped_folder() / "stream" / "model.safetensors")


def test_the_shipped_weights_have_a_predictor() -> None:
    codec = AffectCodec.from_pretrained()
    predictor = shipped_predictor(codec.fingerprint)
    assert predictor is not None and len(predictor.mean) == codec.config.quantizer.width
    assert Concealment.of(codec, "predict").predictor is predictor
    assert Concealment.of(tiny_codec(), "predict").predictor is None


def test_gains_hold_then_fade_and_quiet_is_held() -> None:
    history = LatentHistory(2)
    conceal = Concealment("predict")
    assert conceal.next(history)[1] == 0.0  # nothing came yet
    history.append(np.arange(8, dtype=np.float32).reshape(4, 2))
    gains = [conceal.next(history)[1] for _ in range(16)]
    assert gains[:4] == [1.0] * 4 and gains[-1] == 0.0 and gains == sorted(gains, reverse=True)
    history.append(history.latents)
    history.quiet = True
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
