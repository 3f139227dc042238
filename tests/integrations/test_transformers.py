# SPDX-License-Identifier: Apache-2.0
"""The codec in `transformers`: the behaviour that its audio tokenizers share."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from tests.codec_fixtures import speech_like, tiny_codec

transformers = pytest.importorskip("transformers")

from affectcodec.integrations.transformers import (  # noqa: E402
    AffectCodecConfig,
    AffectCodecFeatureExtractor,
    AffectCodecModel,
)


@pytest.fixture(scope="module")
def model() -> AffectCodecModel:
    return AffectCodecModel.from_affectcodec(tiny_codec())


@pytest.fixture
def batch():
    waves = [speech_like(3000).numpy(), speech_like(1700, 1).numpy()]
    extractor = AffectCodecFeatureExtractor()
    return extractor(waves, sampling_rate=16000, return_tensors="pt")


def test_extractor_pads_to_whole_frames(batch) -> None:
    assert batch["input_values"].shape == (2, 1, 3200)
    assert batch["padding_mask"].sum(1).tolist() == [3000, 1700]
    with pytest.raises(ValueError, match="16000"):
        AffectCodecFeatureExtractor()(np.zeros(8000, np.float32), sampling_rate=8000)


def test_encode_and_decode_are_those_of_the_codec(model, batch) -> None:
    encoded = model.encode(**batch)
    direct = model.codec.encode(batch["input_values"], lengths=torch.tensor([3000, 1700]))
    assert encoded.audio_codes.dtype == torch.int64
    assert torch.equal(encoded.audio_codes, direct.codes.long())
    assert encoded.audio_codes_mask.sum(1).tolist() == direct.lengths.tolist()
    audio = model.decode(encoded.audio_codes, batch["padding_mask"]).audio_values
    assert audio.shape == batch["input_values"].shape
    assert torch.equal(audio[..., :3000], model.codec.decode(direct))
    assert not audio[1, :, 1700:].any()


def test_forward_is_both(model, batch) -> None:
    out = model(**batch, num_quantizers=2)
    encoded = model.encode(**batch, num_quantizers=2)
    assert torch.equal(out.audio_codes, encoded.audio_codes)
    audio = model.decode(encoded.audio_codes, batch["padding_mask"]).audio_values
    assert torch.equal(out.audio_values, audio)


def test_tuples_instead_of_outputs(model, batch) -> None:
    codes, mask = model.encode(**batch, return_dict=False)
    (audio,) = model.decode(codes, batch["padding_mask"], return_dict=False)
    both = model(**batch, return_dict=False)
    assert mask.dtype == torch.bool
    assert torch.equal(both[0], codes) and torch.equal(both[1], audio)


def test_rates(model, batch) -> None:
    assert model.encode(**batch, num_quantizers=1).audio_codes.shape[1] == 1
    assert model.encode(**batch, bandwidth=0.9).audio_codes.shape[1] == 2
    with pytest.raises(ValueError, match="below the lowest rate"):
        model.encode(**batch, bandwidth=0.1)


def test_codes_alone_decode_to_all_their_samples(model) -> None:
    codes = torch.randint(0, model.config.codebook_size, (1, 2, 6))
    assert model.decode(codes).audio_values.shape == (1, 1, 5 * 320)


def test_a_clip_without_samples(model) -> None:
    encoded = model.encode(torch.zeros(1, 1, 0))
    assert encoded.audio_codes.shape == (1, 4, 0)
    assert model.decode(encoded.audio_codes).audio_values.shape == (1, 1, 0)


def test_save_and_load(model, batch, tmp_path) -> None:
    model.save_pretrained(tmp_path)
    AffectCodecFeatureExtractor().save_pretrained(tmp_path)
    loaded = transformers.AutoModel.from_pretrained(tmp_path)
    assert type(loaded) is AffectCodecModel
    assert loaded.codec.fingerprint == model.codec.fingerprint == loaded.config.fingerprint
    assert not loaded.training
    for name, value in model.codec.named_buffers():
        assert torch.equal(value, dict(loaded.codec.named_buffers())[name]), name
    want, got = model(**batch), loaded(**batch)
    assert torch.equal(want.audio_codes, got.audio_codes)
    assert torch.equal(want.audio_values, got.audio_values)
    config = transformers.AutoConfig.from_pretrained(tmp_path)
    assert config.to_dict() == loaded.config.to_dict()
    extractor = transformers.AutoFeatureExtractor.from_pretrained(tmp_path)
    assert type(extractor) is AffectCodecFeatureExtractor


def test_a_half_precision_request_does_not_change_tokens(model, batch, tmp_path) -> None:
    model.save_pretrained(tmp_path)
    loaded = AffectCodecModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert torch.equal(loaded.encode(**batch).audio_codes, model.encode(**batch).audio_codes)


@pytest.mark.slow
def test_loading_in_a_new_process(model, batch, tmp_path) -> None:
    model.save_pretrained(tmp_path / "model")
    torch.save(batch["input_values"], tmp_path / "wave.pt")
    torch.save(model(**batch).audio_values, tmp_path / "audio.pt")
    code = (
        "import sys, torch, transformers, affectcodec.integrations.transformers\n"
        "model = transformers.AutoModel.from_pretrained(sys.argv[1] + '/model')\n"
        "wave = torch.load(sys.argv[1] + '/wave.pt')\n"
        "mask = torch.arange(3200)[None] < torch.tensor([[3000], [1700]])\n"
        "audio = model(wave, mask).audio_values\n"
        "assert torch.equal(audio, torch.load(sys.argv[1] + '/audio.pt'))\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=100)


def test_configuration() -> None:
    config = AffectCodecConfig()
    assert (config.sampling_rate, config.hop_length, config.frame_rate) == (16000, 320, 50.0)
    assert (config.num_quantizers, config.codebook_size, config.hidden_size) == (8, 32768, 256)
    again = AffectCodecConfig.from_dict(config.to_dict())
    assert again.codec_config == config.codec_config
    with pytest.raises(ValueError, match="missing keys"):
        AffectCodecConfig(codec={"name": "x"})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.encode(torch.zeros(1, 2, 100)), "mix channels down"),
        (lambda m: m.encode(torch.zeros(1, 1, 9), torch.ones(1, 8)), "padding_mask: wanted"),
        (
            lambda m: m.encode(torch.zeros(1, 1, 3), torch.tensor([[0, 1, 1]])),
            "padding must stand at the end",
        ),
        (lambda m: m.decode(torch.zeros(1, 9, 4, dtype=torch.long)), "wanted \\[B, 1 to 4, T\\]"),
        (lambda m: m.decode(torch.full((1, 1, 4), 10**6)), "tokens: values must lie in"),
        (
            lambda m: m.decode(torch.zeros(1, 1, 3, dtype=torch.long), torch.ones(1, 9999)),
            "3 frames of codes hold 640",
        ),
    ],
)
def test_refusals(model, call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(model)
