# SPDX-License-Identifier: Apache-2.0
"""Stage counts by frame for a bit rate."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch

from affectcodec.bitstream import coded_payload_bits, read_tokens, write_tokens
from affectcodec.codec import AffectCodec
from affectcodec.config import BDRFSQConfig, Block
from affectcodec.entropy.coder import clip_codes
from affectcodec.entropy.find import load_coder
from affectcodec.entropy.rate import (
    RateControl,
    encode_to_rate,
    frame_levels,
    ladder,
    plan,
    to_rate,
    with_frame_stages,
)
from affectcodec.tokens.batch import Tokens

QUANTIZER = BDRFSQConfig(
    blocks=(Block("emotion", 8, (2, 2, 2)), Block("acoustic", 8, (4, 3))), num_stages=4
)
HOP = 320


def _clip(frames: int, seed: int = 0) -> tuple[Tokens, np.ndarray]:
    """Random codes; the first half of the wave is silent, the second gets louder."""
    rng = np.random.default_rng(seed)
    samples = max(0, (frames - 1) * HOP)
    wav = rng.standard_normal(samples).astype(np.float32) * 0.1
    wav *= np.clip(np.linspace(-1, 1, samples), 0, 1)
    return Tokens(
        codes=torch.from_numpy(rng.integers(0, 96, (1, 4, frames)).astype(np.int32)),
        lengths=torch.tensor([frames]),
        num_samples=torch.tensor([samples]),
        stages={"emotion": 4, "acoustic": 4},
        quantizer=QUANTIZER,
        config_hash="0123456789abcdef",
    ), wav


def _file(tokens: Tokens, coder) -> bytes:
    file = io.BytesIO()
    write_tokens(file, tokens, coder=coder)
    return file.getvalue()


def _kbps(tokens: Tokens, coder) -> float:
    return coded_payload_bits(_file(tokens, coder)) / float(tokens.duration[0]) / 1000


@pytest.mark.parametrize("kbps", [0.4, 0.7, 1.0])
def test_the_payload_has_the_rate(coder, kbps):
    tokens, wav = _clip(401)
    found = to_rate(tokens, wav, kbps, coder)
    assert 0.88 * kbps < _kbps(found, coder) <= kbps + 0.01


def test_short_packets_are_reckoned_with(coder):
    tokens, wav = _clip(401)
    found = to_rate(tokens, wav, 0.7, coder, packet_frames=20)
    file = io.BytesIO()
    write_tokens(file, found, coder=coder, frames_per_packet=20)
    kbps = coded_payload_bits(file.getvalue()) / float(tokens.duration[0]) / 1000
    assert 0.6 < kbps < 0.74  # 20 packets, some bytes each
    assert clip_codes(found)[1].sum() < clip_codes(to_rate(tokens, wav, 0.7, coder))[1].sum()


def test_more_bits_never_mean_fewer_stages(coder):
    tokens, wav = _clip(201)
    before = np.zeros(201)
    for kbps in (0.3, 0.5, 0.8, 1.2, 5.0):
        stages = clip_codes(to_rate(tokens, wav, kbps, coder))[1].sum(0)
        assert (stages >= before).all()
        before = stages
    assert (before == 8).all()  # at a rate that suffices


def test_silence_gets_fewer_stages_than_speech(coder):
    tokens, wav = _clip(201)
    stages = clip_codes(to_rate(tokens, wav, 0.6, coder))[1]
    assert stages[:, 20:80].max() < stages[:, 120:].min() + 1
    assert stages[1, -30:].mean() > stages[1, 110:130].mean()  # and the louder part most


def test_a_rate_below_one_stage_gives_one_stage(coder):
    tokens, wav = _clip(60)
    stages = clip_codes(to_rate(tokens, wav, 1e-3, coder))[1]
    assert (stages == 1).all()


@pytest.mark.parametrize("frames", [0, 1, 2])
def test_short_clips(coder, frames):
    tokens, wav = _clip(frames)
    found = to_rate(tokens, wav, 1.0, coder)
    assert found.num_frames == frames
    back, report = read_tokens(_file(found, coder), coder=coder, quantizer=QUANTIZER)
    assert report.ok
    assert back.num_frames == frames


def test_kept_digits_are_the_same_and_the_rest_is_zero(coder):
    tokens, _ = _clip(50)
    stages = np.random.default_rng(1).integers(0, 5, (2, 50)).astype(np.uint8)
    stages[:, 0] = 4
    found = with_frame_stages(tokens, stages)
    for index, name in enumerate(QUANTIZER.names):
        there = np.arange(4)[:, None] < stages[index]
        wanted = tokens.block_codes(name)[0].numpy() * there
        assert np.array_equal(found.block_codes(name)[0].numpy(), wanted)
    back, report = read_tokens(_file(found, coder), coder=coder, quantizer=QUANTIZER)
    assert report.ok
    assert np.array_equal(back.frame_stages[0].numpy(), stages)
    assert np.array_equal(back.codes.numpy(), found.codes.numpy())


def test_ladder_rises_with_the_first_block_ahead():
    assert ladder(4, 2, 1).tolist() == [[1, 1], [3, 2], [4, 3], [4, 4]]
    assert ladder(3, 1, 0).tolist() == [[1], [2], [3]]


def test_levels_are_those_of_the_loudest_frame_of_a_block():
    wav = np.zeros(8 * HOP)
    wav[2 * HOP : 3 * HOP] = 0.1
    wav[7 * HOP :] = 0.01
    levels = frame_levels(wav, HOP, 9, 4)
    assert levels[:4] == pytest.approx([-20.0] * 4)
    assert levels[4:] == pytest.approx([-40.0] * 5)  # the last frame sounds with the one before


def test_plan_between_two_steps_lifts_the_louder_frames():
    steps = ladder(4, 2, 0)
    levels = np.array([-10.0, -20.0, -30.0, -90.0])
    control = RateControl(lead=0)
    assert plan(levels, 0.0, steps, control)[1].tolist() == [1, 1, 1, 1]
    assert plan(levels, 2.0, steps, control)[1].tolist() == [2, 2, 2, 1]
    assert plan(levels, 2.4, steps, control)[1].tolist() == [3, 2, 2, 1]
    assert plan(levels, 4.0, steps, control)[1].tolist() == [4, 4, 4, 2]


def test_errors_say_what_to_do(coder):
    tokens, wav = _clip(10)
    with pytest.raises(ValueError, match="kbps"):
        to_rate(tokens, wav, 0.0, coder)
    two = Tokens(
        tokens.codes.repeat(2, 1, 1),
        torch.tensor([10, 10]),
        torch.tensor([9, 9]) * HOP,
        tokens.stages,
        QUANTIZER,
        tokens.config_hash,
    )
    with pytest.raises(ValueError, match="select"):
        to_rate(two, wav, 1.0, coder)
    with pytest.raises(ValueError, match="RateControl"):
        RateControl(block_frames=0)
    other = BDRFSQConfig(blocks=(Block("only", 8, (4, 3)),), num_stages=4)
    single = Tokens(
        torch.zeros(1, 4, 10, dtype=torch.int32),
        torch.tensor([10]),
        torch.tensor([9 * HOP]),
        {"only": 4},
        other,
        tokens.config_hash,
    )
    with pytest.raises(ValueError, match="the coder is for"):
        to_rate(single, wav, 1.0, coder)


def test_a_clip_to_a_rate_from_another_sample_rate():
    codec, coder = AffectCodec.from_pretrained(), load_coder()
    time = np.arange(24000) / 8000
    wav = (0.2 * np.sin(2 * np.pi * 140 * time) * np.sin(2 * np.pi * 3 * time) ** 2).astype("f4")
    tokens = encode_to_rate(codec, wav, 1.5, sample_rate=8000, coder=coder)
    assert int(tokens.num_samples[0]) == 48000
    assert 1.0 < _kbps(tokens, coder) <= 1.51
    assert codec.decode(tokens).shape == (1, 1, 48000)
    with pytest.raises(ValueError, match="one clip"):
        encode_to_rate(codec, np.zeros((2, 1, 320), np.float32), 1.5, coder=coder)
