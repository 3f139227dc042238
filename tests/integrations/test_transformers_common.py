# SPDX-License-Identifier: Apache-2.0
"""The common checks of `transformers` for audio tokenizers, by the names they have there.

The library's own mixins (``ModelTesterMixin``, ``ConfigTester``,
``SequenceFeatureExtractionTestMixin``) are part of its source tree and not of its wheel. Here is
what they check, as far as it applies: there is no text, attention, cache or training by
``forward``.
"""

from __future__ import annotations

import inspect
import json

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

LENGTHS = (800, 1000, 1200)


@pytest.fixture(scope="module")
def model() -> AffectCodecModel:
    return AffectCodecModel.from_affectcodec(tiny_codec())


@pytest.fixture(scope="module")
def inputs():
    waves = [speech_like(n, i).numpy() for i, n in enumerate(LENGTHS)]
    extractor = AffectCodecFeatureExtractor()
    return extractor(waves, sampling_rate=16000, return_tensors="pt")


# -- ConfigTester -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sampling_rate", "hop_length", "frame_rate", "hidden_size"])
def test_config_common_properties(model, name) -> None:
    assert getattr(model.config, name) > 0


def test_config_to_json_string_and_file(model, tmp_path) -> None:
    held = json.loads(model.config.to_json_string())
    assert held["codec"] == model.config.codec
    model.config.to_json_file(tmp_path / "config.json")
    again = AffectCodecConfig.from_json_file(tmp_path / "config.json")
    assert again.to_dict() == model.config.to_dict()


@pytest.mark.parametrize("subfolder", ["", "sub"])
def test_config_from_and_save_pretrained(model, tmp_path, subfolder) -> None:
    model.config.save_pretrained(tmp_path / subfolder)
    again = AffectCodecConfig.from_pretrained(tmp_path, subfolder=subfolder)
    assert again.to_dict() == model.config.to_dict()


def test_config_can_be_init_without_params() -> None:
    assert AffectCodecConfig().to_dict()["model_type"] == "affectcodec"


# -- ModelTesterMixin ---------------------------------------------------------------------------


def test_forward_signature() -> None:
    names = list(inspect.signature(AffectCodecModel.forward).parameters)[1:4]
    assert names == ["input_values", "padding_mask", "num_quantizers"]
    assert AffectCodecModel.main_input_name == names[0]


def test_determinism(model, inputs) -> None:
    first, second = model(**inputs), model(**inputs)
    assert torch.equal(first.audio_codes, second.audio_codes)
    assert torch.equal(first.audio_values, second.audio_values)


def test_model_outputs_equivalence(model, inputs) -> None:
    whole = model(**inputs).to_tuple()
    assert len(whole) == 2
    assert all(map(torch.equal, whole, model(**inputs, return_dict=False)))


def test_save_load(model, inputs, tmp_path) -> None:
    model.save_pretrained(tmp_path)
    loaded, report = AffectCodecModel.from_pretrained(tmp_path, output_loading_info=True)
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not report[kind], kind
    for name, value in model.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name]), name
    want, got = model(**inputs), loaded(**inputs)
    assert torch.equal(got.audio_codes, want.audio_codes)
    assert torch.equal(got.audio_values, want.audio_values)
    # Elsewhere the sums of some products have another order, whatever the values here.
    assert all(parameter.data_ptr() % 64 == 0 for parameter in loaded.parameters())


def test_state_dict_alone_makes_the_model(model, inputs) -> None:
    """``test_from_pretrained_no_checkpoint``."""
    made = AffectCodecModel.from_pretrained(
        None, config=model.config, state_dict=model.state_dict()
    )
    assert torch.equal(made(**inputs).audio_codes, model(**inputs).audio_codes)


def test_load_save_without_tied_weights_keeps_every_key(model, tmp_path) -> None:
    from safetensors import safe_open

    model.save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert set(file.keys()) == set(model.state_dict())


def test_can_load_with_meta_device_context_manager(model, inputs, tmp_path) -> None:
    model.save_pretrained(tmp_path)
    with torch.device("cpu"):
        loaded = AffectCodecModel.from_pretrained(tmp_path)
    assert all(p.device.type == "cpu" for p in loaded.parameters())
    assert torch.equal(loaded(**inputs).audio_codes, model(**inputs).audio_codes)


def test_batching_equivalence(model, inputs) -> None:
    """Codes of a clip do not depend on its neighbours; audio only in the order of sums."""
    whole = model(**inputs)
    for row, length in enumerate(LENGTHS):
        one = model(inputs["input_values"][row : row + 1, :, :length])
        frames, samples = one.audio_codes.shape[-1], one.audio_values.shape[-1]
        assert torch.equal(whole.audio_codes[row, :, :frames], one.audio_codes[0])
        torch.testing.assert_close(
            whole.audio_values[row, :, :samples], one.audio_values[0], atol=1e-4, rtol=0
        )


def test_model_is_in_eval_mode_and_has_no_lost_parameters(model) -> None:
    assert not model.training
    assert model.num_parameters() == sum(p.numel() for p in model.codec.parameters())


# -- SequenceFeatureExtractionTestMixin ---------------------------------------------------------


def test_feat_extract_to_json_and_back(tmp_path) -> None:
    first = AffectCodecFeatureExtractor(hop_length=160)
    first.to_json_file(tmp_path / "feat.json")
    assert AffectCodecFeatureExtractor.from_json_file(tmp_path / "feat.json").to_dict() == (
        first.to_dict()
    )
    first.save_pretrained(tmp_path)
    assert AffectCodecFeatureExtractor.from_pretrained(tmp_path).to_dict() == first.to_dict()
    assert AffectCodecFeatureExtractor().feature_size == 1


def test_call_takes_lists_arrays_and_one_wave() -> None:
    extractor = AffectCodecFeatureExtractor()
    waves = [speech_like(n, i).numpy() for i, n in enumerate(LENGTHS)]
    arrays = extractor(waves, sampling_rate=16000, return_tensors="np")["input_values"]
    lists = extractor([w.tolist() for w in waves], sampling_rate=16000, return_tensors="np")
    np.testing.assert_allclose(arrays, lists["input_values"], atol=1e-6)
    assert arrays.shape == (3, 1, 1280)
    one = extractor(waves[0], sampling_rate=16000, return_tensors="np")["input_values"]
    np.testing.assert_array_equal(one[0, 0, :800], waves[0])


@pytest.mark.parametrize("kind", ["np", "pt"])
def test_double_precision_pad(kind) -> None:
    extractor = AffectCodecFeatureExtractor()
    wave = np.random.default_rng(0).standard_normal(100).astype(np.float64)
    made = extractor(wave, sampling_rate=16000, return_tensors=kind)["input_values"]
    assert made.dtype == (np.float32 if kind == "np" else torch.float32)


def test_padding_mask_marks_samples(inputs) -> None:
    assert inputs["padding_mask"].sum(-1).tolist() == list(LENGTHS)
    for row, length in enumerate(LENGTHS):
        assert not inputs["input_values"][row, :, length:].any()
