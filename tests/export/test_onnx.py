# SPDX-License-Identifier: Apache-2.0
"""The exported graphs under ONNX Runtime against PyTorch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from affectcodec.export import verify
from affectcodec.export.onnx import export_codec
from affectcodec.export.runtime import OnnxCodec, OnnxDecoder, OnnxEncoder
from affectcodec.streaming import StreamingDecoder, StreamingEncoder
from tests.codec_fixtures import HOP, speech_like, tiny_codec
from tests.streaming.streams import packets_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def codec():
    return tiny_codec()


@pytest.fixture(scope="module")
def folder(codec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("graphs")
    assert set(export_codec(codec, place)) == {"encoder", "decoder"}
    return place


def test_tokens_and_audio_are_those_of_pytorch(codec, folder: Path) -> None:
    wav = speech_like(40 * HOP).numpy()
    encoder, decoder = OnnxEncoder(codec, folder), OnnxDecoder(codec, folder)
    tokens = encoder.encode([0], [40], wav.reshape(40, HOP))
    want = codec.encode(wav).codes[0].T[:40].numpy()
    assert (tokens != want).any(1).mean() <= 0.025  # at most one frame, by rounding
    latent = decoder.dequantize(tokens, np.full((40, 2), 4))
    audio = decoder.synthesize([0], [40], latent).reshape(-1)
    with torch.no_grad():
        heard = codec.decoder(torch.from_numpy(latent)[None]).wav[0].numpy()
    error = np.square(audio - heard).sum() / np.square(heard).sum()
    assert 10 * np.log10(error + 1e-30) < -60


def test_silence_and_the_quietest_sound(codec, folder: Path) -> None:
    """What is added to a power before its logarithm is small enough to be taken for nothing."""
    quiet = np.zeros(10 * HOP, np.float32)
    quiet[4 * HOP :: 2] = 1 / 32768
    exported = OnnxCodec(codec, folder, slots=2)
    got, want = exported.encode(quiet), codec.encode(quiet)
    assert torch.equal(got.codes, want.codes)
    audio, heard = exported.decode(want), codec.decode(want)
    assert bool(torch.isfinite(audio).all())
    assert float((audio - heard).square().sum() / heard.square().sum()) < 1e-10


def test_the_phase_of_the_source_does_not_drift(codec, folder: Path) -> None:
    """Constants of float64 arithmetic, rounded to float32 on the way, would be heard as -60 dB."""
    wav = speech_like(150 * HOP).numpy()
    tokens = codec.encode(wav)
    got, want = OnnxCodec(codec, folder).decode(tokens), codec.decode(tokens)
    error = (got - want).square().sum() / want.square().sum()
    assert 10 * np.log10(float(error) + 1e-30) < -100


def test_a_batch_of_clips_is_what_each_of_them_is(codec, folder: Path) -> None:
    lengths = torch.tensor([9 * HOP + 5, 0, 4 * HOP])
    wav = torch.zeros(3, 1, 9 * HOP + 5)
    for i, n in enumerate(lengths.tolist()):
        wav[i, 0, :n] = speech_like(n, seed=i) if n else 0.0
    exported = OnnxCodec(codec, folder, slots=2)
    got = exported.encode(wav, lengths=lengths)
    want = codec.encode(wav, lengths=lengths)
    assert float((got.codes != want.codes).any(1).float().mean()) < 0.1
    assert got.lengths.tolist() == want.lengths.tolist()


def test_the_check_of_a_corpus(codec, folder: Path) -> None:
    clips = [speech_like(n * HOP + 3, seed=n).numpy() for n in (5, 12, 8)]
    found = verify.run(codec, folder, clips)
    assert found.clips == 3 and found.frames == sum(n + 2 for n in (5, 12, 8))
    assert found.worst_audio_db < -100 and found.different_frames <= 1


def test_the_graphs_as_an_engine_of_streams(codec, folder: Path) -> None:
    wav = speech_like(8 * HOP).numpy()
    encoder = StreamingEncoder(codec, engine=OnnxEncoder(codec, folder))
    decoder = StreamingDecoder(codec, engine=OnnxDecoder(codec, folder))
    audio = np.concatenate([decoder.push(p) for p in packets_of(encoder, wav, 0)])
    want = codec.decode(codec.encode(wav))[0, 0].numpy()
    got = audio[decoder.latency.samples :][: len(want)]
    assert np.square(got - want).sum() / np.square(want).sum() < 1e-3
    with pytest.raises(ValueError, match="slots"):
        StreamingEncoder(codec, slots=2, engine=OnnxEncoder(codec, folder))


def test_slots_and_states(codec, folder: Path) -> None:
    wav = speech_like(12 * HOP).numpy().reshape(12, HOP)
    encoder = OnnxEncoder(codec, folder, slots=3)
    want = encoder.encode([1], [12], wav)
    encoder.reset(1)
    first = encoder.encode([2, 1], [3, 5], np.concatenate([wav[:3] + 0.1, wav[:5]]))[3:]
    encoder.load_state(0, encoder.state(1))
    rest = encoder.encode([0], [7], wav[5:])
    # Another batch may round otherwise.
    assert (np.concatenate([first, rest]) != want).any(1).mean() < 0.2


def test_graphs_of_another_codec_are_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="of codec"):
        OnnxEncoder(tiny_codec(1), folder)
