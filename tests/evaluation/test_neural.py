# SPDX-License-Identifier: Apache-2.0
"""Neural codecs behind the common method: bits, lengths, fingerprints; tiny random models."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from affectcodec.config import BDRFSQConfig
from affectcodec.evaluation.codecs import make_codecs
from affectcodec.evaluation.neural import (
    NeuralCodec,
    TransformersCodec,
    load_model,
    model_digest,
    model_type,
)
from affectcodec.runtime import why_unavailable
from tests.evaluation.sounds import voice

needs_transformers = pytest.mark.skipif(
    find_spec("transformers") is None, reason="transformers not installed"
)


class FakeCodec(torch.nn.Module):
    """Rounds the wave; two stages at 1.5 kbit/s."""

    def __init__(self) -> None:
        super().__init__()
        self.step = torch.nn.Parameter(torch.tensor(0.01))
        self.asked: list[float] = []

    def encode(self, wav: torch.Tensor, sample_rate: int, kbps: float) -> SimpleNamespace:
        assert wav.ndim == 1 and sample_rate == 16000
        self.asked.append(kbps)
        frames = -(-len(wav) // 320) + 1
        return SimpleNamespace(
            wav=wav,
            lengths=torch.tensor([frames]),
            stages={"emotion": 2, "acoustic": 2},
            quantizer=BDRFSQConfig(),
        )

    def decode(self, tokens: SimpleNamespace) -> torch.Tensor:
        return (torch.round(tokens.wav / self.step) * self.step)[None, None]


def test_neural_codec_counts_the_bits_of_every_frame() -> None:
    fake = FakeCodec()
    coded = NeuralCodec(fake, 1.5).roundtrip(voice(1.0))
    assert coded.bits == 51 * 30  # 50 frames and the flushing one, two stages of 15 bits
    assert coded.wav.shape == (16000,) and coded.wav.dtype == np.float32
    assert fake.asked == [1.5]


def test_fingerprint_follows_weights_rate_and_label() -> None:
    fake = FakeCodec()
    before = NeuralCodec(fake, 1.5).fingerprint
    assert before == NeuralCodec(FakeCodec(), 1.5).fingerprint
    assert before != NeuralCodec(fake, 3.0).fingerprint
    digest = model_digest(fake)
    with torch.no_grad():
        fake.step += 0.01
    assert model_digest(fake) != digest


def tiny(kind: str) -> Any:
    """A random model of a few thousand weights, its real structure otherwise."""
    import transformers

    torch.manual_seed(0)
    if kind == "encodec":
        config = transformers.EncodecConfig(
            num_filters=4, hidden_size=16, codebook_dim=16, codebook_size=64, num_lstm_layers=1
        )
        return transformers.EncodecModel(config)
    if kind == "dac":
        config = transformers.DacConfig(
            encoder_hidden_size=4,
            decoder_hidden_size=32,
            downsampling_ratios=[4, 8, 10],
            upsampling_ratios=[10, 8, 4],
            n_codebooks=4,
            codebook_size=64,
            codebook_dim=4,
            hidden_size=16,
        )
        return transformers.DacModel(config)
    if kind == "mimi":
        config = transformers.MimiConfig(
            hidden_size=16,
            num_filters=2,
            codebook_size=32,
            codebook_dim=8,
            vector_quantization_hidden_dimension=8,
            num_quantizers=4,
            num_hidden_layers=1,
            intermediate_size=16,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=8,
            upsample_groups=16,
        )
        return transformers.MimiModel(config)
    raise AssertionError(kind)


# kind -> bits a second of the wanted rate
BITS = {
    "encodec": (1.5, 3 * 75 * 6),
    "dac": (0.6, 2 * 50 * 6),
    "mimi": (0.12, 2 * 12.5 * 5),
}


@needs_transformers
@pytest.mark.slow
@pytest.mark.parametrize("kind", list(BITS))
def test_a_model_from_disk_is_a_codec(kind: str, tmp_path: Path) -> None:
    kbps, bits = BITS[kind]
    tiny(kind).save_pretrained(tmp_path)
    assert model_type(tmp_path) == kind
    (codec,) = make_codecs([f"mine:{kbps}"], {"mine": str(tmp_path)})
    x = voice(2.0)
    coded = codec.roundtrip(x)
    assert codec.name == f"mine:{kbps}"
    # whole frames, and what padding adds
    assert bits <= coded.bits / 2.0 <= 1.1 * bits
    assert abs(len(coded.wav) - len(x)) < 2000 and coded.wav.dtype == np.float32
    assert np.isfinite(coded.wav).all()
    (again,) = make_codecs([f"mine:{kbps}"], {"mine": str(tmp_path)})
    assert again.fingerprint == codec.fingerprint
    np.testing.assert_array_equal(again.roundtrip(x).wav, coded.wav)
    more = TransformersCodec(load_model(tmp_path), 10 * kbps, label="mine").roundtrip(x)
    assert more.bits > coded.bits


@needs_transformers
@pytest.mark.slow
def test_x_codec_2_takes_features_beside_the_wave(tmp_path: Path) -> None:
    import transformers

    if not hasattr(transformers, "Xcodec2Model"):
        pytest.skip("this transformers does not know X-Codec 2")
    torch.manual_seed(0)
    semantic = transformers.Wav2Vec2BertConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        output_hidden_size=16,
    )
    config = transformers.Xcodec2Config(
        semantic_model_config=semantic.to_dict(),
        hidden_size=32,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
        encoder_hidden_size=4,
        quantization_dim=48,
    )
    transformers.Xcodec2Model(config).save_pretrained(tmp_path)
    (codec,) = make_codecs(["x2:0.8"], {"x2": str(tmp_path)})
    coded = codec.roundtrip(voice(2.0))
    assert 800 <= coded.bits / 2.0 <= 880  # 50 codes a second of 16 bits
    assert abs(len(coded.wav) - 32000) < 1000


def test_what_is_no_codec_is_told(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ValueError, match="'bert', wanted one of"):
        make_codecs(["mine:1"], {"mine": str(tmp_path)})
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        make_codecs(["mine:1"], {"mine": str(tmp_path)})
    assert model_type(tmp_path / "nowhere") == ""


@needs_transformers
@pytest.mark.slow
def test_a_folder_without_weights_is_told(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "dac"}))
    with pytest.raises(ValueError, match="does not load"):
        make_codecs(["mine:1"], {"mine": str(tmp_path)})


@pytest.mark.skipif(bool(why_unavailable()), reason=why_unavailable() or "")
def test_the_native_runtime_is_a_codec_of_its_own() -> None:
    names = ["affectcodec:1.5", "affectcodec:1.5@native", "affectcodec:1.5@native-bfloat16"]
    plain, native, half = make_codecs(names, {"affectcodec": None})
    assert [codec.name for codec in (plain, native, half)] == names
    assert len({codec.fingerprint for codec in (plain, native, half)}) == 3
    wav = voice(1.0)
    waves = [codec.roundtrip(wav).wav for codec in (plain, native, half)]
    assert not np.array_equal(waves[1], waves[2])
    assert np.square(waves[1] - waves[0]).sum() < 1e-6 * np.square(waves[0]).sum()
    with pytest.raises(ValueError, match="native-bfloat16"):
        make_codecs(["affectcodec:1.5@fast"], {"affectcodec": None})
