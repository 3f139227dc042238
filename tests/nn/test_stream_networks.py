# SPDX-License-Identifier: Apache-2.0
"""Encoder, prosody head and decoder of the `stream` preset on a tiny configuration."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor

from affectcodec.nn.prosody import F0_BINS, ProsodyHead
from tests.codec_fixtures import HOP, speech_like, tiny_codec


@pytest.fixture(scope="module")
def codec():
    return tiny_codec()


def test_encoder_frames_see_nothing_beyond_their_hop(codec) -> None:
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
def test_encoder_and_decoder_in_chunks(codec, sizes: list[int]) -> None:
    wav = speech_like(12 * HOP)[None]
    latent = codec.encoder(wav)
    state: dict[str, Tensor] = {}
    parts = [codec.encoder(part, state) for part in wav.split([n * HOP for n in sizes], 1)]
    torch.testing.assert_close(torch.cat(parts, 1), latent, rtol=0, atol=1e-4)
    whole = codec.decoder(latent).wav
    state = {}
    parts = [codec.decoder(part, state).wav for part in latent.split(sizes, 1)]
    # Not to the last bit: rounding of F0 moves the phase, and high harmonics most.
    assert float((torch.cat(parts, 1) - whole).norm()) < 0.01 * float(whole.norm())


def test_decoder_is_causal(codec) -> None:
    latent = codec.encoder(speech_like(12 * HOP)[None])
    want = codec.decoder(latent).wav
    assert want.shape == (1, 12 * HOP)
    for frame in (1, 6, 11):
        changed = latent.clone()
        changed[:, frame:] = torch.randn_like(changed[:, frame:])
        got = codec.decoder(changed).wav
        assert torch.equal(got[:, : frame * HOP], want[:, : frame * HOP])
        assert not torch.equal(
            got[:, frame * HOP : (frame + 1) * HOP], want[:, frame * HOP : (frame + 1) * HOP]
        )


def test_blocks_of_the_latent_have_unit_power(codec) -> None:
    latent = codec.encoder(speech_like(20 * HOP)[None])
    for part in codec.config.quantizer.block_slices().values():
        block = latent[..., part]
        torch.testing.assert_close(block.square().mean(-1), torch.ones(1, 20), rtol=0, atol=1e-3)


def test_loudness_moves_only_the_level_features(codec) -> None:
    """Ten times louder: the spectra's shape stays, each window's level rises by ln 10."""
    wav = 0.1 * torch.randn(1, 8 * HOP)
    encoder = codec.encoder
    quiet, loud = (encoder.features(gain * wav)[0] for gain in (1.0, 10.0))
    shift = (loud - quiet).reshape(1, 8, 2, -1)[:, 1:]
    torch.testing.assert_close(
        shift[..., -1], torch.full_like(shift[..., -1], 0.3 * math.log(10)), rtol=0, atol=1e-3
    )
    assert float(shift[..., :-1].abs().mean()) < 1e-3


def test_features_and_embedding_are_exact_and_blocks_are_float32(codec) -> None:
    """Against the same weights in float64: what is left is the rounding of the blocks."""
    wav = speech_like(40 * HOP)[None]
    encoder, exact = codec.encoder, copy.deepcopy(codec.encoder).double()
    want = exact(wav.double())
    got = encoder(wav)
    assert got.dtype == torch.float32 and want.dtype == torch.float64
    for part, wide in zip(encoder.features(wav), exact.features(wav.double()), strict=True):
        torch.testing.assert_close(part, wide, rtol=0, atol=1e-12)
    error = float((got - want).square().mean().sqrt())
    assert 0 < error < 3e-7


def test_the_encoder_hears_silence_and_full_scale(codec) -> None:
    for wav in (torch.zeros(1, 5 * HOP), torch.ones(1, 5 * HOP), 1e4 * torch.randn(1, 5 * HOP)):
        assert bool(torch.isfinite(codec.encoder(wav)).all())


def test_emotion_block_alone_drives_the_prosody(codec) -> None:
    latent = torch.randn(1, 9, 36)
    want = codec.decoder(latent).prosody
    changed = latent.clone()
    changed[..., 12:] = torch.randn(1, 9, 24)
    got = codec.decoder(changed).prosody
    for name, value in want._asdict().items():
        assert torch.equal(getattr(got, name), value), name
    changed = latent.clone()
    changed[..., :12] = torch.randn(1, 9, 12)
    assert not torch.equal(codec.decoder(changed).prosody.f0_logits, want.f0_logits)


def test_decoded_energy_scales_the_wave(codec) -> None:
    latent = torch.randn(1, 9, 36)
    want = codec.decoder(latent).wav
    bias = codec.decoder.prosody.out.bias
    bias[F0_BINS + 1] += 0.5 * math.log(2)  # the head doubles: log energy rises by ln 2
    try:
        torch.testing.assert_close(codec.decoder(latent).wav, 2 * want, rtol=1e-4, atol=1e-6)
    finally:
        bias[F0_BINS + 1] -= 0.5 * math.log(2)


def test_true_prosody_replaces_the_decoded_one_for_the_chosen_clips(codec) -> None:
    latent = torch.randn(2, 9, 36)
    free = codec.decoder(latent).wav
    f0, voicing = torch.full((2, 9), 200.0), torch.ones(2, 9)
    mixed = codec.decoder(
        latent,
        source_f0=f0,
        source_voicing=voicing,
        source_override=torch.tensor([True, False]),
    ).wav
    forced = codec.decoder(latent, source_f0=f0, source_voicing=voicing).wav
    torch.testing.assert_close(mixed[0], forced[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(mixed[1], free[1], rtol=0, atol=1e-6)
    assert not torch.allclose(mixed[0], free[0], atol=1e-4)


# -- prosody head -----------------------------------------------------------------------------


def head() -> ProsodyHead:
    return ProsodyHead(12, 16, 1, 5, 60.0, 700.0)


def test_f0_of_one_sure_bin_is_its_centre() -> None:
    module = head()
    logits = torch.full((1, F0_BINS, F0_BINS), -50.0)
    logits[0].fill_diagonal_(50.0)
    f0 = module.read_f0(logits)[0]
    torch.testing.assert_close(torch.log(f0), module.centres, rtol=0, atol=1e-4)
    assert float(f0[0]) == pytest.approx(60, abs=0.01)
    assert float(f0[-1]) == pytest.approx(700, abs=0.1)


def test_reading_the_targets_gives_f0_back() -> None:
    module = head()
    log_f0 = torch.linspace(math.log(75), math.log(560), 301)[None]
    targets = module.f0_targets(log_f0)
    torch.testing.assert_close(targets.sum(-1), torch.ones(1, 301), rtol=0, atol=1e-5)
    cents = 1200 / math.log(2) * (torch.log(module.read_f0(torch.log(targets))) - log_f0)
    assert float(cents.abs().max()) < 3  # a bin is 44 cents wide


def test_a_second_peak_an_octave_away_does_not_pull_the_readout() -> None:
    module = head()
    targets = 0.55 * module.f0_targets(torch.tensor([math.log(110.0)])) + 0.45 * (
        module.f0_targets(torch.tensor([math.log(220.0)]))
    )
    assert float(module.read_f0(torch.log(targets + 1e-12))) == pytest.approx(110, rel=0.01)


def test_f0_stays_in_range_for_any_logits() -> None:
    f0 = head().read_f0(100 * torch.randn(4, 50, F0_BINS))
    assert float(f0.min()) >= 59.99 and float(f0.max()) <= 700.1
