# SPDX-License-Identifier: Apache-2.0
"""The published kind of codec on a tiny configuration: causal, in chunks, conditioned, coded."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from affectcodec import AffectCodec
from affectcodec.config import CodecConfig
from affectcodec.nn.dac import SnakeDecoder, SnakeEncoder
from affectcodec.nn.decoder import StreamDecoder
from affectcodec.nn.encoder import StreamEncoder
from tests.codec_fixtures import HOP, speech_like, tiny_config, tiny_snake_config


@pytest.fixture(scope="module")
def codec() -> AffectCodec:
    torch.manual_seed(0)
    codec = AffectCodec(tiny_snake_config())
    with torch.no_grad():
        for name, parameter in codec.named_parameters():
            if "quantizer" in name or "film" in name or "score" in name:
                parameter += 0.1 * torch.randn_like(parameter)
    return codec.eval().requires_grad_(False)


def test_the_configuration_chooses_the_networks(codec: AffectCodec) -> None:
    assert isinstance(codec.encoder, SnakeEncoder) and isinstance(codec.decoder, SnakeDecoder)
    for make in (SnakeEncoder, SnakeDecoder):
        with pytest.raises(TypeError, match="must be a SnakeNetworkConfig, got StreamNetwork"):
            make(tiny_config())
    for make in (StreamEncoder, StreamDecoder):
        with pytest.raises(TypeError, match="must be a StreamNetworkConfig"):
            make(tiny_snake_config())


def test_frames_see_nothing_beyond_their_hop(codec: AffectCodec) -> None:
    wav = speech_like(12 * HOP)[None]
    want = codec.encoder(wav)
    assert want.shape == (1, 12, 36)
    for frame in (0, 4, 10):
        changed = wav.clone()
        changed[:, (frame + 1) * HOP :] = 0.5
        got = codec.encoder(changed)
        assert torch.equal(got[:, : frame + 1], want[:, : frame + 1])
        assert not torch.equal(got[:, frame + 1], want[:, frame + 1])


@pytest.mark.parametrize("sizes", [[1] * 12, [7, 5]])
def test_encoder_and_decoder_in_chunks(codec: AffectCodec, sizes: list[int]) -> None:
    wav = speech_like(12 * HOP)[None]
    latent = codec.encoder(wav)
    state: dict[str, Tensor] = {}
    parts = [codec.encoder(part, state) for part in wav.split([n * HOP for n in sizes], 1)]
    torch.testing.assert_close(torch.cat(parts, 1), latent, rtol=0, atol=1e-4)
    whole = codec.decoder(latent).wav
    assert whole.shape == (1, 12 * HOP)
    state = {}
    parts = [codec.decoder(part, state).wav for part in latent.split(sizes, 1)]
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=1e-5)


def test_blocks_feed_what_they_are_named_for(codec: AffectCodec) -> None:
    latent = codec.encoder(speech_like(8 * HOP)[None])
    base = codec.decoder(latent)
    other = latent.clone()
    other[..., codec.decoder.blocks["acoustic"]] += 1
    changed = codec.decoder(other)
    assert torch.equal(changed.prosody.f0_logits, base.prosody.f0_logits)
    assert not torch.equal(changed.wav, base.wav)
    # The emotion block reaches the wave through the condition as well.
    film = codec.decoder.film.linear.weight.clone()
    codec.decoder.film.linear.weight.zero_()
    unconditioned = codec.decoder(latent).wav
    codec.decoder.film.linear.weight.copy_(film)
    assert not torch.equal(unconditioned, base.wav)


def test_the_share_of_the_gradient_that_reaches_the_emotion_block(codec: AffectCodec) -> None:
    latent = codec.encoder(speech_like(8 * HOP)[None])
    span = codec.decoder.blocks["emotion"]
    gradients = []
    for share in (1.0, 0.25, 0.0):
        z = latent.clone().requires_grad_(True)
        codec.decoder(z, emotion_gradient=share).wav.square().sum().backward()
        gradients.append(z.grad)
    torch.testing.assert_close(gradients[1][..., span], 0.25 * gradients[0][..., span])
    assert not gradients[2][..., span].any() and gradients[2].any()


def test_a_clip_is_coded_and_comes_back_with_its_length(codec: AffectCodec, tmp_path) -> None:
    wav = speech_like(5 * HOP + 7)
    tokens = codec.encode(wav)
    out = codec.decode(tokens)
    assert out.shape == (1, 1, 5 * HOP + 7)
    assert bool(torch.isfinite(out).all())
    codec.save_pretrained(tmp_path / "w")
    again = AffectCodec.from_pretrained(tmp_path / "w")
    assert isinstance(again.config, CodecConfig) and again.config == codec.config
    assert torch.equal(again.decode(again.encode(wav)), out)
