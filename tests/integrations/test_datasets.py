# SPDX-License-Identifier: Apache-2.0
"""Columns of tokens: there and back, pickled, saved and loaded, and what is refused."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from affectcodec.integrations.datasets import TokenDecoder, TokenEncoder, token_features
from tests.codec_fixtures import speech_like, tiny_codec

datasets = pytest.importorskip("datasets")


@pytest.fixture(scope="module")
def codec():
    return tiny_codec()


def rows() -> dict:
    return {
        "audio": [
            {"array": speech_like(3000).numpy(), "sampling_rate": 16000},
            {"array": speech_like(900, 1, 8000).numpy(), "sampling_rate": 8000},
        ]
    }


def test_columns_hold_what_the_codec_makes(codec) -> None:
    made = TokenEncoder(codec, stages=2)(rows())
    alone = codec.encode(speech_like(3000), stages=2)
    assert np.array_equal(made["codes"][0], alone.codes[0].numpy())
    assert made["num_samples"] == [3000, 1800]
    assert made["codec"] == [codec.fingerprint] * 2
    back = TokenDecoder(codec)(made)["audio"]
    # Products round by the size of their batch.
    np.testing.assert_allclose(back[0]["array"], codec.decode(alone)[0, 0].numpy(), atol=1e-4)
    assert [len(row["array"]) for row in back] == [3000, 1800]


def test_map_save_and_load(codec, tmp_path) -> None:
    plain = datasets.Dataset.from_dict(
        {"wave": [speech_like(3000).tolist(), speech_like(1500, 1).tolist()]}
    )
    encode = TokenEncoder(codec, stages={"emotion": 4, "acoustic": 1})

    def tokens(batch):
        audio = [{"array": wave, "sampling_rate": 16000} for wave in batch["wave"]]
        return encode({"audio": audio})

    mapped = plain.map(
        tokens, batched=True, batch_size=2, remove_columns=["wave"], features=token_features()
    )
    mapped.save_to_disk(str(tmp_path / "saved"))
    loaded = datasets.load_from_disk(str(tmp_path / "saved"))
    assert loaded.features == token_features()
    decoder = TokenDecoder(codec)
    assert decoder.tokens(loaded[:]).stages == {"emotion": 4, "acoustic": 1}
    assert [len(row["array"]) for row in decoder(loaded[:])["audio"]] == [3000, 1500]


def test_files_and_bytes(codec, tmp_path) -> None:
    import soundfile as sf

    path = tmp_path / "a.wav"
    sf.write(path, speech_like(2000).numpy(), 16000, subtype="FLOAT")
    column = [{"path": str(path), "bytes": None}, {"path": None, "bytes": path.read_bytes()}]
    made = TokenEncoder(codec)({"audio": column})
    assert made["codes"][0] == made["codes"][1]
    assert np.array_equal(made["codes"][0], codec.encode(speech_like(2000)).codes[0].numpy())


def test_a_pickled_encoder_loads_its_weights_again(codec, tmp_path) -> None:
    codec.save_pretrained(tmp_path)
    encoder = TokenEncoder(str(tmp_path))
    before = pickle.dumps(encoder)
    made = encoder(rows())
    assert pickle.dumps(encoder) == before
    assert pickle.loads(before)(rows()) == made


def test_an_empty_batch(codec) -> None:
    made = TokenEncoder(codec)({"audio": []})
    assert made["codes"] == []
    assert TokenDecoder(codec)(made)["audio"] == []


def test_refusals(codec) -> None:
    with pytest.raises(ValueError, match="no 'audio' among \\['wav'\\]"):
        TokenEncoder(codec)({"wav": []})
    with pytest.raises(ValueError, match="neither samples, bytes nor a path"):
        TokenEncoder(codec)({"audio": [{"path": None, "bytes": None}]})
    made = TokenEncoder(codec)(rows())
    with pytest.raises(ValueError, match="lacks the columns \\['codec'\\]"):
        TokenDecoder(codec)({k: v for k, v in made.items() if k != "codec"})
    with pytest.raises(ValueError, match="cannot be one batch"):
        TokenDecoder(codec)({**made, "codec": ["a", "b"]})
    with pytest.raises(ValueError, match="made by codec"):
        TokenDecoder(codec)({**made, "codec": ["0" * 16] * 2})


def test_tokens_keep_their_dtype(codec) -> None:
    assert TokenDecoder(codec).tokens(TokenEncoder(codec)(rows())).codes.dtype == torch.int32
