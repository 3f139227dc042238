# SPDX-License-Identifier: Apache-2.0
"""Conditioning at three time scales: switchable, causal, made of tokens alone in the decoder."""

from __future__ import annotations

import dataclasses
import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from affectcodec import AffectCodec
from affectcodec.bitstream import write_tokens
from affectcodec.config import CodecConfig
from affectcodec.nn.causal import assign_state_keys
from affectcodec.nn.conditioning import EncoderConditioning, GranularConditioning
from tests.codec_fixtures import speech_like, tiny_config

SCALES = ("frame", "segment", "utterance")
SUBSETS = [s for n in range(1, 4) for s in itertools.combinations(SCALES, n)]


def with_network(**changes) -> CodecConfig:
    config = tiny_config()
    return dataclasses.replace(config, network=dataclasses.replace(config.network, **changes))


def codec(**changes) -> AffectCodec:
    torch.manual_seed(0)
    made = AffectCodec(with_network(**changes))
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "film" in name or "score" in name:
                parameter += 0.1 * torch.randn_like(parameter)
    return made.eval().requires_grad_(False)


@pytest.mark.parametrize("scales", SUBSETS)
def test_every_choice_of_scales_streams(scales: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    module = GranularConditioning(8, 50.0, 0.5, 8.0, scales)
    assign_state_keys(module)
    x = torch.randn(2, 40, 8)
    whole = module(x)
    state: dict[str, torch.Tensor] = {}
    parts = torch.cat([module(part, state) for part in x.split((1, 20, 19), 1)], 1)
    torch.testing.assert_close(parts, whole)
    later = x.clone()
    later[:, 30:] += 1
    torch.testing.assert_close(module(later)[:, :30], whole[:, :30])
    memory = module(torch.cat([x[:, :20] + 3, x[:, 20:]], 1))[:, 39]
    remembers = bool((memory - whole[:, 39]).abs().max() > 1e-6)
    assert remembers == (scales != ("frame",))


def test_a_longer_scale_remembers_longer() -> None:
    torch.manual_seed(0)
    x = torch.zeros(1, 200, 8)
    x[:, :50] = torch.randn(8)
    for name, seconds in (("segment", 0.5), ("utterance", 8.0)):
        module = GranularConditioning(8, 50.0, 0.5, 8.0, (name,))
        pool = getattr(module, name)
        left = float(pool(x)[0, 199].norm() / pool(x)[0, 49].norm())
        assert (left > 0.2) == (seconds > 1)


@pytest.mark.parametrize("side", ["conditioning", "encoder_conditioning"])
def test_scales_are_checked_and_ordered(side: str) -> None:
    config = with_network(**{side: ["utterance", "frame"]})
    assert getattr(config.network, side) == ("frame", "utterance")
    assert CodecConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ValueError, match=f"{side} may hold .*got \\['word'\\]"):
        with_network(**{side: ("word",)})


def test_defaults_keep_the_hash_and_other_choices_change_it() -> None:
    assert CodecConfig().hash == "745fb9d7de1cc0ed"
    hashes = {with_network(conditioning=s).hash for s in [(), *SUBSETS]}
    hashes |= {with_network(encoder_conditioning=s).hash for s in SUBSETS}
    assert len(hashes) == 8 + 7


def test_without_conditioning_there_is_nothing_to_modulate() -> None:
    names = [name for name, _ in codec(conditioning=()).named_parameters()]
    assert not any("film" in name or "conditioning" in name for name in names)


@pytest.mark.parametrize("changes", [{"conditioning": ()}, {"encoder_conditioning": SCALES}])
def test_chunks_give_what_a_whole_clip_gives(changes: dict) -> None:
    made = codec(**changes)
    wav = speech_like(20 * 320)[None]
    state: dict[str, torch.Tensor] = {}
    parts = [made.encoder(part, state) for part in wav.split((5 * 320, 320, 14 * 320), 1)]
    torch.testing.assert_close(torch.cat(parts, 1), made.encoder(wav), rtol=1e-4, atol=1e-4)
    latent = torch.randn(1, 20, made.config.quantizer.width)
    state = {}
    parts = [made.decoder(part, state).wav for part in latent.split((5, 1, 14), 1)]
    torch.testing.assert_close(torch.cat(parts, 1), made.decoder(latent).wav, rtol=1e-3, atol=2e-3)


def test_the_encoder_condition_modulates_acoustics_only_and_teaches_emotion_nothing() -> None:
    torch.manual_seed(0)
    module = EncoderConditioning(SCALES, 6, 10, 50.0, tiny_config().network)
    acoustic = torch.randn(1, 7, 10)
    emotion = torch.randn(1, 7, 6, requires_grad=True)
    assert torch.equal(module(acoustic, emotion), acoustic)  # the identity at the start
    torch.nn.init.normal_(module.film.linear.weight)
    out = module(acoustic, emotion)
    assert not torch.equal(out, acoustic)
    assert not torch.equal(out, module(acoustic, emotion.detach() + 1))
    with pytest.raises(ValueError, match="at least one"):
        EncoderConditioning((), 6, 10, 50.0, tiny_config().network)
    out.sum().backward()
    assert emotion.grad is None


def test_the_decoder_hears_its_condition() -> None:
    made = codec()
    latent = torch.randn(1, 12, made.config.quantizer.width)
    before = made.decoder(latent).wav
    made.decoder.conditioning.mix.weight.zero_()
    assert not torch.equal(made.decoder(latent).wav, before)


_DECODE = """
import sys, torch, numpy
torch.set_num_threads(1)
from affectcodec import AffectCodec
from affectcodec.bitstream import read_tokens
codec = AffectCodec.from_pretrained(sys.argv[1])
tokens, _ = read_tokens(sys.argv[2], quantizer=codec.config.quantizer)
numpy.save(sys.argv[3], codec.decode(tokens).numpy())
"""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("changes", [{}, {"encoder_conditioning": SCALES}])
def test_another_process_decodes_to_the_bits_of_forward(tmp_path: Path, changes: dict) -> None:
    made = codec(**changes)
    made.save_pretrained(tmp_path / "weights")
    wav = speech_like(16000 + 123)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        want = made(wav[None, None]).wav.numpy()
        write_tokens(tmp_path / "clip.afc", made.encode(wav))
    finally:
        torch.set_num_threads(threads)
    out = tmp_path / "wav.npy"
    command = [sys.executable, "-c", _DECODE]
    paths = [str(tmp_path / "weights"), str(tmp_path / "clip.afc"), str(out)]
    subprocess.run([*command, *paths], check=True, timeout=280)
    assert np.array_equal(np.load(out), want)
