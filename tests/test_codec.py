# SPDX-License-Identifier: Apache-2.0
"""The codec on a tiny configuration: audio to tokens and back."""

from __future__ import annotations

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch

import affectcodec.codec as codec_module
from affectcodec.audio import resampled_length
from affectcodec.codec import AffectCodec
from affectcodec.nn import check_isolation
from tests.codec_fixtures import HOP, padded, speech_like, tiny_codec, tiny_config

SECOND = 16000


def assert_same_codes(got: torch.Tensor, want: torch.Tensor) -> None:
    """Equal but for digits within float rounding of a threshold: products of another shape may
    round the other way, on some machines in about one code of 4,000."""
    assert got.shape == want.shape
    assert int((got != want).sum()) <= max(1, got.numel() // 400)


@pytest.fixture(scope="module")
def codec() -> AffectCodec:
    return tiny_codec()


# -- encode -----------------------------------------------------------------------------------


@pytest.mark.parametrize("samples", [1, 319, 320, 321, 5000])
def test_shapes_and_lengths(codec: AffectCodec, samples: int) -> None:
    wav = speech_like(samples)
    frames = -(-samples // HOP) + 1
    for given in (wav, wav[None, None], wav.numpy(), wav.double()):
        tokens = codec.encode(given)
        assert tokens.codes.shape == (1, 4, frames)
        assert tokens.codes.dtype == torch.int32
        assert (tokens.lengths.tolist(), tokens.num_samples.tolist()) == ([frames], [samples])
        assert int(tokens.codes.min()) >= 0 and int(tokens.codes.max()) < 512
    back = codec.decode(tokens)
    assert back.shape == (1, 1, samples)
    assert back.dtype == torch.float32
    assert bool(torch.isfinite(back).all())


def test_an_empty_clip_and_an_empty_batch(codec: AffectCodec) -> None:
    tokens = codec.encode(torch.zeros(0))
    assert tokens.codes.shape == (1, 4, 0)
    assert codec.decode(tokens).shape == (1, 1, 0)
    none = codec.encode(torch.zeros(0, 1, 800))
    assert none.codes.shape[0] == len(none) == 0
    assert codec.decode(none).shape == (0, 1, 0)
    wav, lengths = padded([speech_like(1000), torch.zeros(0)])
    mixed = codec.encode(wav, lengths=lengths)
    assert mixed.lengths.tolist() == [5, 0]
    assert not codec.decode(mixed)[1].any()


def test_rate_and_stages(codec: AffectCodec) -> None:
    wav = speech_like(4000)
    whole = codec.encode(wav)
    assert whole.kbps == pytest.approx(1.8)
    assert codec.encode(wav, kbps=0.9).stages == {"emotion": 2, "acoustic": 2}
    assert codec.encode(wav, kbps=1.3).stages == {"emotion": 2, "acoustic": 2}
    assert codec.encode(wav, kbps=100).stages == {"emotion": 4, "acoustic": 4}
    for stages in (2, {"emotion": 4, "acoustic": 1}, {"emotion": 1}, {"emotion": 0}):
        cut = codec.encode(wav, stages=stages)
        assert cut.stages == codec.config.quantizer.resolve_stages(stages)
        assert torch.equal(cut.codes, whole.truncate(stages).codes)
        assert codec.decode(cut).shape == (1, 1, 4000)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"kbps": 0.4}, "kbps: 0.4 is below the lowest rate"),
        ({"kbps": math.nan}, "kbps"),
        ({"kbps": 0.9, "stages": 2}, "stages or kbps, not both"),
        ({"stages": 5}, "asks for 5, wanted 0..4"),
        ({"sample_rate": 0}, "sample_rate"),
        ({"sample_rate": 16000.0}, "sample_rate"),
        ({"lengths": torch.tensor([10, 10])}, "lengths: wanted [1]"),
        ({"lengths": torch.tensor([801])}, "lengths: wanted 0..800, got [801]"),
        ({"lengths": torch.tensor([-1])}, "lengths"),
    ],
)
def test_bad_arguments_are_named(codec: AffectCodec, arguments: dict, words: str) -> None:
    with pytest.raises(ValueError) as caught:
        codec.encode(torch.zeros(800), **arguments)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("wav", "words"),
    [
        (torch.zeros(2, 800), "mix channels down"),
        (torch.zeros(1, 2, 800), "(1, 2, 800)|\\[1, 2, 800\\]"),
        ([[0.0, 0.1], [0.2, 0.3]], "mix channels down"),
        (torch.zeros(800, dtype=torch.int16), "int16; divide 16-bit samples by 32768"),
        (np.zeros(800, np.int32), "floating point"),
        (torch.tensor([0.0, math.nan]), "NaN or infinite"),
        (torch.tensor([0.0, math.inf]), "NaN or infinite"),
    ],
)
def test_bad_waves_are_named(codec: AffectCodec, wav, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        codec.encode(wav)


def test_a_latent_of_nan_is_refused(codec: AffectCodec) -> None:
    """Such frames would become tokens that look valid."""
    broken = copy.deepcopy(codec)
    with torch.no_grad():
        broken.encoder.heads["acoustic"].bias[0] = torch.nan
    with pytest.raises(ValueError, match="latent is NaN; check the weights"):
        broken.encode(speech_like(2000))


def test_huge_samples_are_refused(codec: AffectCodec) -> None:
    for scale in (1e25, 1e8):
        with pytest.raises(ValueError, match=r"largest sample is .*scale the samples"):
            codec.encode(scale * speech_like(2000))


def test_a_clip_alone_is_the_clip_padded_in_a_batch(codec: AffectCodec) -> None:
    clips = [speech_like(n, seed) for seed, n in enumerate((5000, 320, 12345, 1))]
    wav, lengths = padded(clips)
    wav[1, 0, 320:] = 0.7  # what lies beyond the length is never looked at
    batch = codec.encode(wav, lengths=lengths)
    sound = codec.decode(batch)
    for i, clip in enumerate(clips):
        alone = codec.encode(clip)
        assert_same_codes(batch.select(i).codes, alone.codes)
        assert not batch.codes[i, :, int(batch.lengths[i]) :].any()
        want = codec.decode(batch.select(i))[0]
        assert float((sound[i, :, : len(clip)] - want).norm()) <= 0.02 * float(want.norm())
        assert not sound[i, :, len(clip) :].any()


def test_lengths_may_all_be_shorter_than_the_batch(codec: AffectCodec) -> None:
    wav = speech_like(16000)
    tokens = codec.encode(wav, lengths=torch.tensor([1000]))
    assert torch.equal(tokens.codes, codec.encode(wav[:1000]).codes)


@pytest.mark.parametrize("chunk", [1, 3, 16])
def test_chunked_work_gives_the_same(
    codec: AffectCodec, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    wav = torch.stack([speech_like(7000, seed) for seed in (0, 1)])[:, None]
    tokens = codec.encode(wav)
    sound = codec.decode(tokens)
    monkeypatch.setattr(codec_module, "CHUNK_FRAMES", chunk)
    again = codec.encode(wav)
    assert_same_codes(again.codes, tokens.codes)
    # The phase is an integral of F0: a last bit of F0 in one frame moves all that follows, and the
    # 50th harmonic 50 times as far.
    assert float((codec.decode(tokens) - sound).norm()) < 0.02 * float(sound.norm())


@pytest.mark.parametrize("cut", [1000, 3200, 6399])
def test_what_comes_later_never_changes_earlier_tokens(codec: AffectCodec, cut: int) -> None:
    wav = speech_like(9600)
    whole = codec.encode(wav).codes
    before = cut // HOP  # frames that end at or before the cut
    assert torch.equal(codec.encode(wav[:cut]).codes[..., :before], whole[..., :before])
    changed = wav.clone()
    changed[cut:] = 0.8 * torch.rand(9600 - cut)
    other = codec.encode(changed).codes
    assert torch.equal(other[..., :before], whole[..., :before])
    assert not torch.equal(other, whole)


def test_what_comes_later_never_changes_earlier_audio(codec: AffectCodec) -> None:
    tokens = codec.encode(speech_like(9600))
    want = codec.decode(tokens)
    changed = tokens.codes.clone()
    changed[..., 20:] = torch.randint(0, 512, changed[..., 20:].shape)
    got = codec.decode(dataclasses.replace(tokens, codes=changed))
    # Frame 20 adds to the hop before its own, one hop of overlap.
    assert torch.equal(got[..., : 19 * HOP], want[..., : 19 * HOP])
    assert not torch.equal(got[..., 19 * HOP : 20 * HOP], want[..., 19 * HOP : 20 * HOP])


def test_declared_latency_is_the_measured_one(codec: AffectCodec) -> None:
    latency = codec.latency
    assert (latency.encoder, latency.decoder, latency.samples) == (320, 320, 640)
    assert latency.milliseconds == 40
    wav = torch.zeros(1, 20 * HOP)
    silent = codec.encoder(wav)
    sound = codec.decoder(silent).wav
    frame = 10
    for sample in (frame * HOP, frame * HOP + 100, (frame + 1) * HOP - 2):
        click = wav.clone()
        click[0, sample] = 0.9
        latent = codec.encoder(click)
        # The click is in the latent of its own frame and in none before: the encoder waits for
        # the rest of the frame, at most one hop.
        heard = (latent != silent).any(-1)[0].nonzero()[0, 0]
        assert int(heard) == frame
        assert 0 < (frame + 1) * HOP - sample <= latency.encoder
        # The raw output that comes with this frame is the first to change. Raw output lies one
        # hop after the audio that it is (decode() cuts that hop), so the token of the frame
        # completes the audio up to the frame's own start: one hop of overlap.
        changed = (codec.decoder(latent).wav != sound)[0].nonzero()[0, 0]
        assert frame * HOP <= int(changed) < (frame + 1) * HOP
    audio = codec.decode(codec.encode(speech_like(9 * HOP)))
    raw = codec.decoder(
        codec.quantizer.decode(codec.encode(speech_like(9 * HOP)).codes, None, channels_last=True)
    ).wav
    torch.testing.assert_close(
        audio[0], raw[:, latency.decoder : latency.decoder + 9 * HOP], rtol=0, atol=1e-5
    )


def test_other_sample_rates_are_resampled(codec: AffectCodec) -> None:
    wav = speech_like(48000, sample_rate=48000)
    tokens = codec.encode(wav, sample_rate=48000)
    assert tokens.num_samples.tolist() == [SECOND]
    # The same sound sampled at the codec's rate gives nearly the same tokens.
    quiet = torch.sin(2 * math.pi * 200 * torch.arange(48000) / 48000) * 0.3
    a = codec.encode(quiet, sample_rate=48000).codes[..., 5:-5]
    b = codec.encode(quiet[::3]).codes[..., 5:-5]
    assert float((a[:, 0] % 8 == b[:, 0] % 8).float().mean()) > 0.8


def test_resampled_batches_do_not_see_their_padding(codec: AffectCodec) -> None:
    clips = [speech_like(n, seed, 22050) for seed, n in enumerate((6001, 2500))]
    wav, lengths = padded(clips)
    wav[1, 0, 2500:] = 0.9
    batch = codec.encode(wav, sample_rate=22050, lengths=lengths)
    assert batch.num_samples.tolist() == [resampled_length(n, 22050, SECOND) for n in (6001, 2500)]
    for i, clip in enumerate(clips):
        alone = codec.encode(clip, sample_rate=22050)
        assert_same_codes(batch.select(i).codes, alone.codes)


def test_loudness_is_coded_not_normalised(codec: AffectCodec) -> None:
    quiet, loud = speech_like(8000) * 0.1, speech_like(8000)
    assert not torch.equal(codec.encode(quiet).codes, codec.encode(loud).codes)


# -- results that can be used -----------------------------------------------------------------


def test_results_are_ordinary_tensors(codec: AffectCodec) -> None:
    """They can be changed in place, and embedded by a model that trains on them."""
    tokens = codec.encode(speech_like(2000))
    table = torch.nn.Embedding(512, 4)
    table(tokens.codes).sum().backward()
    assert table.weight.grad is not None
    wav = codec.decode(tokens)
    wav *= 0.5
    tokens.codes[0, 0, 0] = 1
    assert not wav.requires_grad


def test_coding_is_deterministic(codec: AffectCodec) -> None:
    wav = speech_like(4000)
    tokens = codec.encode(wav)
    assert torch.equal(codec.encode(wav).codes, tokens.codes)
    assert torch.equal(codec.decode(tokens), codec.decode(tokens))


def test_the_input_is_left_alone(codec: AffectCodec) -> None:
    wav = speech_like(1000)
    before = wav.clone()
    codec.decode(codec.encode(wav, lengths=torch.tensor([500])))
    assert torch.equal(wav, before)


# -- decode -----------------------------------------------------------------------------------


def test_stages_that_vary_inside_a_clip(codec: AffectCodec) -> None:
    tokens = codec.encode(speech_like(6400))
    frames = tokens.num_frames
    same = dataclasses.replace(tokens, frame_stages=torch.full((1, 2, frames), 4))
    torch.testing.assert_close(codec.decode(same), codec.decode(tokens), rtol=0, atol=1e-5)
    limit = torch.full((1, 2, frames), 4)
    limit[..., 10:] = 1
    varied = codec.decode(dataclasses.replace(tokens, frame_stages=limit))
    torch.testing.assert_close(
        varied[..., : 9 * HOP], codec.decode(tokens)[..., : 9 * HOP], rtol=0, atol=1e-5
    )
    assert not torch.allclose(varied, codec.decode(tokens), atol=1e-4)


def test_tokens_of_another_codec_are_refused(codec: AffectCodec) -> None:
    tokens = codec.encode(speech_like(1000))
    other = tiny_codec(seed=5)
    with pytest.raises(ValueError) as caught:
        other.decode(tokens)
    assert tokens.config_hash in str(caught.value) and other.fingerprint in str(caught.value)
    with pytest.raises(TypeError, match="got Tensor"):
        codec.decode(tokens.codes)  # type: ignore[arg-type]


def test_damaged_tokens_are_refused(codec: AffectCodec) -> None:
    tokens = codec.encode(speech_like(1000))
    wrong = tokens.codes.clone()
    wrong[0, 0, 0] = 512
    with pytest.raises(ValueError, match="0..511"):
        codec.decode(dataclasses.replace(tokens, codes=wrong))
    with pytest.raises(ValueError, match="num_samples asks for 999999 samples but 5 frames"):
        codec.decode(dataclasses.replace(tokens, num_samples=torch.tensor([999999])))


# -- identity ---------------------------------------------------------------------------------


def change_in_place(codec: AffectCodec) -> None:
    with torch.no_grad():
        codec.quantizer.blocks["emotion"].W.add_(1e-3)


def change_through_data(codec: AffectCodec) -> None:
    codec.quantizer.blocks["acoustic"].shift.data[0, 0] += 1e-3


def change_by_fused_optimizer(codec: AffectCodec) -> None:
    optimizer = torch.optim.AdamW(codec.quantizer.parameters(), lr=1e-3, fused=True)
    for parameter in codec.quantizer.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()


@pytest.mark.parametrize(
    "change", [change_in_place, change_through_data, change_by_fused_optimizer]
)
def test_the_fingerprint_follows_the_quantizer(change) -> None:
    codec = tiny_codec()
    before = codec.fingerprint
    assert len(before) == 16 and before == codec.fingerprint
    change(codec.requires_grad_(True))
    assert codec.fingerprint != before


def test_the_fingerprint_ignores_the_decoder_and_knows_the_configuration() -> None:
    codec = tiny_codec()
    before = codec.fingerprint
    codec.decoder.head.bias += 1
    assert codec.fingerprint == before
    other = AffectCodec(dataclasses.replace(tiny_config(), name="other"))
    other.load_state_dict(codec.state_dict())
    assert other.fingerprint != before


def test_a_codec_made_in_inference_mode_works() -> None:
    with torch.inference_mode():
        codec = tiny_codec()
        assert codec.decode(codec.encode(speech_like(700))).shape == (1, 1, 700)
    assert codec.fingerprint == tiny_codec().fingerprint


def test_a_copy_is_the_same_codec(codec: AffectCodec) -> None:
    twin = copy.deepcopy(codec)
    tokens = codec.encode(speech_like(1500))
    assert torch.equal(twin.decode(tokens), codec.decode(tokens))


def test_config_is_checked() -> None:
    with pytest.raises(TypeError, match="CodecConfig, got dict"):
        AffectCodec({})  # type: ignore[arg-type]


# -- training pass ----------------------------------------------------------------------------


def test_forward_is_the_coding_and_decoding(codec: AffectCodec) -> None:
    wav = speech_like(3 * 1600)[None, None]
    out = codec(wav)
    tokens = codec.encode(wav)
    assert torch.equal(out.tokens.codes, tokens.codes)
    torch.testing.assert_close(out.wav, codec.decode(tokens), rtol=1e-3, atol=1e-4)
    counts = torch.tensor([[4, 1]])
    cut = codec(wav, counts)
    want = codec.decode(tokens.truncate({"emotion": 4, "acoustic": 1}))
    torch.testing.assert_close(cut.wav, want, rtol=1e-3, atol=1e-4)
    for bad in (wav[0], wav[..., :0]):
        with pytest.raises(ValueError, match="wav: wanted \\[B, 1, N\\] with N"):
            codec(bad)


def test_every_parameter_receives_a_gradient() -> None:
    codec = tiny_codec().requires_grad_(True)
    out = codec(speech_like(6400)[None, None])
    prosody = out.decoded.prosody
    loss = out.wav.square().mean() + prosody.f0_logits.square().mean()
    (loss + prosody.voicing_logit.mean() + prosody.log_energy.mean()).backward()
    missing = [
        name
        for name, parameter in codec.named_parameters()
        # A pool divides by the sum of its weights: shifting all scores changes nothing, and the
        # gradient of their bias is zero up to rounding.
        if not name.endswith(".score.bias")
        and (parameter.grad is None or not bool(parameter.grad.any()))
    ]
    assert missing == []


def test_the_codec_keeps_its_blocks_apart(codec: AffectCodec) -> None:
    latent = codec.encoder(speech_like(4 * HOP)[None]).transpose(1, 2)
    check_isolation(codec.quantizer, latent)
