# SPDX-License-Identifier: Apache-2.0
"""The exported graphs under ONNX Runtime against PyTorch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from affectcodec.export.onnx import export_codec
from affectcodec.export.runtime import OnnxDecoder, OnnxEncoder
from tests.codec_fixtures import HOP, speech_like, tiny_codec

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
