# SPDX-License-Identifier: Apache-2.0
"""Fitting the predictor: what it learns from a known law, what it reads, what it hears."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from affectcodec.streaming.concealment import Concealment, LatentHistory
from affectcodec.streaming.predictor import HISTORY_FRAMES
from affectcodec.streaming.predictor_training import (
    Crops,
    FitConfig,
    Hearing,
    PredictorNetwork,
    concealed,
    fit,
)
from tests.codec_fixtures import tiny_codec, tiny_snake_config

SMALL = FitConfig(rank=8, hidden=16, warm_steps=200, steps=2, batch=8)


def decaying(count: int, width: int) -> list[np.ndarray]:
    """Latents of a known law: each channel decays by 0.8 a frame, driven by noise."""
    generator = np.random.default_rng(0)
    out = []
    for _ in range(count):
        z = np.zeros((200, width))
        for t in range(1, 200):
            z[t] = 0.8 * z[t - 1] + generator.standard_normal(width)
        out.append((z + 3).astype(np.float32))
    return out


def test_it_learns_the_law_of_its_latents_and_repeats_bitwise() -> None:
    codec = tiny_codec()
    sequences = decaying(30, codec.config.quantizer.width)
    first = fit(codec, sequences, SMALL)
    assert first.fingerprint == codec.fingerprint
    history = LatentHistory(codec.config.quantizer.width)
    history.append(sequences[0][:50])
    conceal = Concealment("predict", first)
    spans = codec.config.quantizer.block_slices()
    acoustic = spans["acoustic"]
    assert (first.hold[spans["emotion"]] == SMALL.hold).all() and not first.hold[acoustic].any()
    off = {"predicted": 0.0, "held": 0.0}
    for lost in (1, 2, 3):
        want = 3 + 0.8**lost * (history.last - 3)
        off["predicted"] += float(np.abs(conceal.next(history)[0] - want)[acoustic].mean())
        off["held"] += float(np.abs(history.last - want)[acoustic].mean())
    assert off["predicted"] < 0.7 * off["held"]
    again = fit(codec, sequences, SMALL)
    assert np.array_equal(first.hidden, again.hidden) and np.array_equal(first.out, again.out)


def test_training_conceals_as_the_decoder_does() -> None:
    generator = np.random.default_rng(1)
    width = 5
    network = PredictorNetwork(
        np.zeros(width, np.float32),
        np.ones(width, np.float32),
        slice(2),
        FitConfig(rank=4, hidden=8),
    )
    torch.nn.init.normal_(network.out.weight)
    network.hold[1:3] = 0.5
    latents = torch.from_numpy(generator.standard_normal((2, 20, width)).astype(np.float32))
    lost = torch.from_numpy(generator.random((2, 20)) < 0.4)
    lost[:, ::3] = False  # gaps of two at most: in longer ones the decoder holds more
    with torch.no_grad():
        filled = concealed(network, latents, lost)
    conceal = Concealment("predict", network.export("0" * 16))
    for b in range(2):
        history = LatentHistory(width)
        for t in range(20):
            if lost[b, t]:
                found = conceal.next(history)[0]
                np.testing.assert_allclose(filled[b, t], found, rtol=1e-4, atol=1e-4)
            else:
                assert torch.equal(filled[b, t], latents[b, t])
                history.append(latents[b, t : t + 1].numpy())


def test_the_first_lost_frame_holds_what_is_held_in_part() -> None:
    network = PredictorNetwork(
        np.zeros(4, np.float32), np.ones(4, np.float32), slice(2), FitConfig(rank=2, hidden=4)
    )
    torch.nn.init.ones_(network.out.bias)
    history = LatentHistory(4)
    last = np.array([[0.5, -1.0, 2.0, 3.0]], np.float32)
    history.append(last)
    conceal = Concealment("predict", network.export("0" * 16))
    first, second = conceal.next(history)[0], conceal.next(history)[0]
    assert np.array_equal(first[:2], last[0, :2])
    assert not np.isclose(first[2:], last[0, 2:]).any()
    assert not np.isclose(second[:2], last[0, :2]).any()


def test_hearing_nothing_wrong_costs_nothing_and_its_gradient_reaches_lost_frames() -> None:
    codec = tiny_codec()
    hearing = Hearing(codec)
    latents = torch.randn(2, 24, codec.config.quantizer.width)
    lost = torch.zeros(2, 24, dtype=torch.bool)
    lost[:, 12] = True
    clean, prosody = hearing(latents, None)
    same = hearing.distance(*hearing(latents, prosody), clean, prosody, lost)
    assert all(float(value) == pytest.approx(0, abs=1e-5) for value in same.values())
    moved = latents.clone()
    moved[:, 12] += 1
    moved.requires_grad_()
    found = hearing.distance(*hearing(moved, prosody), clean, prosody, lost)
    assert set(found) == {"log", "loud", "voicing", "pitch", "cents", "energy"}
    assert all(float(value.detach()) > 0 for value in found.values())
    sum(found.values()).backward()  # type: ignore[union-attr]
    assert moved.grad is not None and bool((moved.grad[:, 12].abs().sum(-1) > 0).all())


def test_a_decoder_without_a_source_is_heard_by_its_spectra() -> None:
    from affectcodec import AffectCodec

    torch.manual_seed(0)
    codec = AffectCodec(tiny_snake_config()).eval().requires_grad_(False)
    hearing = Hearing(codec)
    latents = torch.randn(1, 24, codec.config.quantizer.width)
    clean, prosody = hearing(latents, None)
    assert prosody is None
    lost = torch.ones(1, 24, dtype=torch.bool)
    found = hearing.distance(*hearing(0.5 * latents, None), clean, None, lost)
    assert set(found) == {"log", "loud"} and float(found["log"]) > 0


def test_crops_lose_something_but_never_the_context() -> None:
    crops = Crops(decaying(2, 3), SMALL, 0)
    for _ in range(20):
        lost = crops.lose()
        assert lost.shape == (8, SMALL.context + SMALL.span) and crops.draw().shape[2] == 3
        assert not bool(lost[:, : SMALL.context].any()) and bool(lost.any(1).all())
    assert SMALL.context >= HISTORY_FRAMES
    with pytest.raises(ValueError, match="at least one clip"):
        Crops([np.zeros((SMALL.context, 3), np.float32)], SMALL, 0)
