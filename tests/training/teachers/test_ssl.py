# SPDX-License-Identifier: Apache-2.0
"""Self-supervised teachers, loaded from tiny checkpoints that the test writes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from affectcodec.training.cache import ClipCache
from affectcodec.training.config import LossWeights
from affectcodec.training.teachers import (
    EmbeddingStore,
    SSLTeacher,
    Teacher,
    TeacherClip,
    WaveTeacher,
)
from affectcodec.training.trainer import Trainer
from tests.codec_fixtures import speech_like
from tests.training.sounds import tiny_run

transformers = pytest.importorskip("transformers")

SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "conv_dim": (8, 8, 8, 8, 8, 8, 8),
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}
KINDS = {
    "wav2vec2": ("Wav2Vec2Config", "Wav2Vec2Model"),
    "hubert": ("HubertConfig", "HubertModel"),
    "wavlm": ("WavLMConfig", "WavLMModel"),
    "data2vec-audio": ("Data2VecAudioConfig", "Data2VecAudioModel"),
}


def write(folder: Path, kind: str = "hubert", normalize: bool = True) -> Path:
    config_name, model_name = KINDS[kind]
    torch.manual_seed(0)
    sizes = dict(SIZES)
    if kind == "data2vec-audio":
        sizes["conv_pos_kernel_size"] = 5
    config = getattr(transformers, config_name)(**sizes)
    getattr(transformers, model_name)(config).save_pretrained(folder, safe_serialization=True)
    record = {"do_normalize": normalize, "feature_extractor_type": "Wav2Vec2FeatureExtractor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(record))
    return folder


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_class_of_model_loads_and_teaches(tmp_path: Path, kind: str) -> None:
    teacher = SSLTeacher(write(tmp_path, kind))
    assert isinstance(teacher, Teacher) and isinstance(teacher, WaveTeacher)
    assert (teacher.dim, teacher.rate) == (16, 50.0)
    assert teacher.name == f"{kind}:{tmp_path.name}"
    out = teacher.targets(TeacherClip(speech_like(16000).numpy(), 16000))
    assert out.shape == (49, 16) and np.isfinite(out).all()
    wav = speech_like(8000)[None].requires_grad_()
    teacher.embed(wav).square().sum().backward()
    assert wav.grad is not None and float(wav.grad.abs().sum()) > 0
    assert all(p.grad is None for p in teacher.model.parameters())


def test_it_is_the_model_of_the_library(tmp_path: Path) -> None:
    folder = write(tmp_path)
    model = transformers.HubertModel.from_pretrained(folder).eval()
    wav = speech_like(16000)[None]
    plain = (wav - wav.mean()) / torch.sqrt(wav.var(unbiased=False) + 1e-7)
    with torch.no_grad():
        want = model(plain, output_hidden_states=True).hidden_states
        torch.testing.assert_close(SSLTeacher(folder).embed(wav), want[-1])
        torch.testing.assert_close(SSLTeacher(folder, layer=1).embed(wav), want[1])
        (folder / "preprocessor_config.json").unlink()
        torch.testing.assert_close(SSLTeacher(folder).embed(3 * wav), model(3 * wav)[0])


def test_the_fingerprint_is_that_of_weights_and_layer(tmp_path: Path) -> None:
    folder = write(tmp_path)
    first = SSLTeacher(folder).fingerprint
    assert SSLTeacher(folder).fingerprint == first
    assert SSLTeacher(folder, layer=1).fingerprint != first
    weights = folder / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    assert SSLTeacher(folder).fingerprint != first


def test_other_rates_and_the_shortest_clips(tmp_path: Path) -> None:
    teacher = SSLTeacher(write(tmp_path))
    assert teacher.shortest == 400
    out = teacher.targets(TeacherClip(speech_like(48000).numpy(), 48000))
    assert out.shape == (49, 16)
    for samples in (0, 1, 399, 400):
        assert teacher.targets(TeacherClip(np.zeros(samples, np.float32), 16000)).shape == (1, 16)


def test_what_cannot_teach_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no config\.json"):
        SSLTeacher(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "whisper"}')
    with pytest.raises(ValueError, match="judges this codec and must not teach"):
        SSLTeacher(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "hubert"}')
    with pytest.raises(ValueError, match="cannot be loaded"):
        SSLTeacher(tmp_path)
    text = tmp_path / "text"
    config = transformers.BertConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=9
    )
    transformers.BertModel(config).save_pretrained(text, safe_serialization=True)
    with pytest.raises(ValueError, match="'bert' model, wanted one that reads waves"):
        SSLTeacher(text)
    with pytest.raises(ValueError, match=r"layer: wanted -3\.\.2, got 3"):
        SSLTeacher(write(tmp_path / "good"), layer=3)


def test_a_pickle_is_never_read(tmp_path: Path) -> None:
    folder = write(tmp_path)
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="cannot be loaded"):
        SSLTeacher(folder)


def test_a_run_learns_from_it_and_from_its_cycle(tmp_path: Path, cache: ClipCache) -> None:
    pytest.importorskip("tensorboard")
    teacher = SSLTeacher(write(tmp_path / "model"))
    store = EmbeddingStore(cache, teacher, tmp_path / "targets")
    config = tiny_run(loss=LossWeights(teacher=0.5, cycle_teacher=0.5))
    run = Trainer(config, cache, None, tmp_path, embeddings=store, teacher=teacher)
    figures = run.train_step()
    assert 0 < figures["raw_teacher"] < 2 and 0 < figures["raw_cycle_teacher"] < 2
