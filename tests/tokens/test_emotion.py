# SPDX-License-Identifier: Apache-2.0
"""The emotion head on streams whose statistics are known."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from affectcodec.checkpoint import CheckpointError
from affectcodec.codec import AffectCodec
from affectcodec.tokens import Tokens, only_block
from affectcodec.tokens.emotion import HEAD_NAME, EmotionHead
from affectcodec.tokens.emotion_reader import EmotionReader, Tracks, statistics
from tests.codec_fixtures import tiny_codec


@pytest.fixture
def codec() -> AffectCodec:
    return tiny_codec()


def random_tokens(codec: AffectCodec, lengths: list[int], seed: int = 0) -> Tokens:
    quantizer = codec.config.quantizer
    generator = torch.Generator().manual_seed(seed)
    shape = (len(lengths), quantizer.num_stages, max(lengths, default=0))
    codes = torch.randint(0, quantizer.codebook_size, shape, generator=generator)
    frames = torch.tensor(lengths, dtype=torch.int64)
    return Tokens(
        codes.int(),
        frames,
        (frames - 1).clamp(min=0) * 320,
        dict.fromkeys(quantizer.names, quantizer.num_stages),
        quantizer,
        codec.fingerprint,
    )


def head_of(
    reader: EmotionReader, n: int, classes: tuple[str, ...] = ("calm", "sad")
) -> EmotionHead:
    generator = torch.Generator().manual_seed(1)
    return EmotionHead(
        reader,
        classes,
        torch.randn(n, generator=generator),
        torch.rand(n, generator=generator) + 0.5,
        torch.randn(7, n, generator=generator),
        torch.randn(len(classes), 7, generator=generator),
        torch.randn(len(classes), generator=generator),
        0.5 / n,
        {"licence": "none"},
    )


def test_statistics_of_a_known_clip() -> None:
    frames, rate = 100, 50.0
    energy = torch.full((frames,), -20.0)
    energy[20:80] = torch.linspace(0.0, 1.18, 60)  # 0.02 a frame: 1 a second
    voicing = torch.zeros(frames)
    voicing[20:40], voicing[60:80] = 1.0, 1.0
    f0 = torch.zeros(frames)
    f0[20:40], f0[60:80] = 7.0, 8.0
    hidden = torch.stack([voicing * 3.0, torch.ones(frames)], 1)
    state = torch.zeros(frames, dtype=torch.int64)
    state[20:35] = 3
    found = statistics(Tracks(f0, voicing, energy, hidden, state), 4, rate).tolist()
    pitch, level = found[:8], found[8:16]
    assert pitch[:7] == pytest.approx([7.5, 0.5, 7.0, 7.0, 7.5, 8.0, 8.0], abs=1e-5)
    assert pitch[7] == pytest.approx(1 / 39, abs=1e-6)
    assert level[0] == pytest.approx(0.59, abs=1e-5)
    share, seconds, each_second, length, spread = found[24:29]
    assert (share, seconds) == pytest.approx((40 / 60, 1.2))
    assert (each_second, length, spread) == pytest.approx((2 / 1.2, 0.4, 0.0), abs=1e-6)
    last, first, reach, jump = found[29:33]
    assert (last, first, reach) == pytest.approx((0.5, -0.5, 1.0))
    assert jump == pytest.approx(math.sqrt(1 / 39 - 1 / 39**2), abs=1e-6)
    assert found[33] == pytest.approx(1.0, abs=1e-4)
    assert found[34:38] == pytest.approx([math.sqrt(0.75), 0, 0, 0.5])
    assert found[38:40] == pytest.approx([3.0, 1.0])
    assert found[40:] == pytest.approx([3.0 * math.sqrt(2) / 3, 0.0], abs=1e-6)


def test_the_table_is_the_quantizer(codec: AffectCodec) -> None:
    tokens = random_tokens(codec, [9, 5])
    reader = EmotionReader.of(codec, 3)
    want = codec.quantizer.decode(tokens.codes, {"emotion": 3, "acoustic": 1}, channels_last=True)
    codes = tokens.block_codes("emotion")[:, :3].long()
    found = reader.table[torch.arange(3)[:, None], codes].sum(1)
    torch.testing.assert_close(found, want[..., :12], atol=1e-5, rtol=1e-5)
    tracks = reader.tracks(tokens)[0]
    prosody = codec.decoder.prosody(found)
    torch.testing.assert_close(tracks.f0, prosody.f0[0, 1:].float().log2(), atol=1e-4, rtol=1e-4)


def test_logits_by_the_formula(codec: AffectCodec) -> None:
    reader = EmotionReader.of(codec)
    values = reader(random_tokens(codec, [30, 12]))
    head = head_of(reader, values.shape[1], ("angry", "calm", "sad"))
    x = ((values - head.mean) / head.deviation).clamp(-5, 5).double().numpy()
    anchors = head.landmarks.double().numpy()
    kernel = np.exp(-head.gamma * ((x[:, None] - anchors) ** 2).sum(-1))
    want = kernel @ head.weight.double().numpy().T + head.bias.double().numpy()
    np.testing.assert_allclose(head.logits_of(values).numpy(), want, rtol=1e-4, atol=1e-5)


def test_only_emotion_codes_are_read_and_padding_is_not(codec: AffectCodec) -> None:
    reader = EmotionReader.of(codec)
    tokens = random_tokens(codec, [30, 12])
    alone = only_block(tokens, "emotion", stages=2)
    both = reader(tokens)
    assert torch.equal(both, reader(alone))
    torch.testing.assert_close(both[1:], reader(tokens.select(1)), atol=1e-5, rtol=1e-4)


def test_answers(codec: AffectCodec) -> None:
    reader = EmotionReader.of(codec)
    tokens = random_tokens(codec, [30, 12, 8])
    classes = ("angry", "calm", "sad")
    head = head_of(reader, reader(tokens).shape[1], classes)
    probabilities = head.probabilities(tokens)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(3))
    assert head.classify(tokens) == [classes[i] for i in probabilities.argmax(1)]
    assert set(head.classify(tokens, among=["sad", "calm"])) <= {"sad", "calm"}
    assert head.classify(tokens, among=["sad"]) == ["sad"] * 3
    with pytest.raises(ValueError, match="among: wanted some of"):
        head.classify(tokens, among=["joyful"])


def test_empty_and_very_short_clips(codec: AffectCodec) -> None:
    reader = EmotionReader.of(codec)
    values = reader(random_tokens(codec, [0, 1, 2, 3]))
    assert values.shape[0] == 4 and bool(torch.isfinite(values).all())
    assert reader(random_tokens(codec, [])).shape == (0, values.shape[1])
    head = head_of(reader, values.shape[1])
    assert head.classify(random_tokens(codec, [])) == []
    assert len(head.classify(random_tokens(codec, [0, 2]))) == 2


def test_frames_without_a_stage_add_nothing(codec: AffectCodec) -> None:
    reader, tokens = EmotionReader.of(codec), random_tokens(codec, [20])
    none = torch.full((1, 2, 20), 4)
    none[:, 0, 5:] = 1
    cut = dataclasses.replace(tokens, frame_stages=none)
    codes = tokens.block_codes("emotion").long()
    latent = reader.table[0][codes[:, 0]]
    latent[:, :5] += reader.table[1][codes[:, 1, :5]]
    want = reader.prosody(latent).log_energy[0, 1:]
    torch.testing.assert_close(reader.tracks(cut)[0].energy, want.float(), atol=1e-5, rtol=1e-5)


def test_refuses_other_tokens(codec: AffectCodec) -> None:
    reader = EmotionReader.of(codec)
    tokens = random_tokens(codec, [8])
    with pytest.raises(ValueError, match="made by the codec 0+, this head reads"):
        reader(dataclasses.replace(tokens, config_hash="0" * 16))
    with pytest.raises(ValueError, match="hold 1 emotion stages, the head reads 2"):
        reader(tokens.truncate({"emotion": 1, "acoustic": 2}))
    with pytest.raises(ValueError, match=r"stages: wanted 1\.\.4, got 9"):
        EmotionReader.of(codec, 9)


def test_codec_without_an_emotion_block() -> None:
    config = SimpleNamespace(quantizer=SimpleNamespace(names=("all",)), name="plain")
    with pytest.raises(ValueError, match="an emotion block and a prosody head"):
        EmotionReader.of(SimpleNamespace(config=config, decoder=None))  # type: ignore[arg-type]


def test_file_round_trip_and_damage(codec: AffectCodec, tmp_path: Path) -> None:
    codec.save_pretrained(tmp_path)
    reader = EmotionReader.of(codec)
    tokens = random_tokens(codec, [30, 12])
    head = head_of(reader, reader(tokens).shape[1])
    with pytest.raises(CheckpointError, match="no file"):
        EmotionHead.from_pretrained(tmp_path)
    path = head.save(tmp_path)
    again = EmotionHead.from_pretrained(tmp_path)
    assert (again.classes, again.metadata) == (head.classes, {"licence": "none"})
    assert torch.equal(again(tokens), head(tokens))
    tensors = load_file(path)
    save_file(tensors, path, {"format": "something"})
    with pytest.raises(CheckpointError, match="not one that this release reads"):
        EmotionHead.from_pretrained(tmp_path)
    path.write_bytes(b"\xff" * 64)
    with pytest.raises(CheckpointError, match="not one that this release reads"):
        EmotionHead.from_pretrained(tmp_path)
    assert path.name == HEAD_NAME


def test_parts_that_do_not_fit(codec: AffectCodec) -> None:
    reader = EmotionReader.of(codec)
    with pytest.raises(ValueError, match="emotion head: 2 classes"):
        EmotionHead(
            reader, ("a", "b"), torch.zeros(3), torch.ones(3), torch.zeros(5, 4), torch.zeros(2, 5),
            torch.zeros(2), 0.1,
        )  # fmt: skip


def test_the_shipped_head_fits_the_shipped_weights() -> None:
    codec, head = AffectCodec.from_pretrained(), EmotionHead.from_pretrained()
    assert head.reader.fingerprint == codec.fingerprint
    assert head.reader.stages == 2 and len(head.classes) == 8
    assert "CC BY-NC-SA" in head.metadata["licence"]
    tokens = random_tokens(codec, [60, 40])
    torch.testing.assert_close(head.probabilities(tokens).sum(1), torch.ones(2))
