# SPDX-License-Identifier: Apache-2.0
"""Emotion one stage ahead at the bits of equal stages."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from affectcodec.codec import AffectCodec
from affectcodec.evaluation.codecs import make_codecs
from affectcodec.evaluation.lead import lead_stages
from tests.codec_fixtures import speech_like, tiny_codec


def test_bits_are_those_of_equal_stages_at_every_time() -> None:
    counts = lead_stages([3.0, 12.0], 8, 2, 400)
    assert set(counts[0]) == {3} and set(counts[1]) == {1, 2}
    spent = np.cumsum(3 * counts[0].astype(int) + 12 * counts[1].astype(int))
    even = 30 * np.arange(1, 401)
    assert np.abs(spent - even).max() <= 12 and spent[-1] == even[-1]
    assert (np.cumsum(counts[1] - 1)[3::4] == 3 * np.arange(1, 101)).all()


def test_at_all_stages_nothing_can_be_ahead() -> None:
    assert (lead_stages([3.0, 12.0], 8, 8, 50) == 8).all()
    with pytest.raises(ValueError, match="takes 12 bits, the others have 6"):
        lead_stages([12.0, 3.0], 8, 2, 50)
    assert lead_stages([3.0, 12.0], 8, 2, 0).shape == (2, 0)


def test_a_codec_at_that_rate(tmp_path: Path) -> None:
    codec = tiny_codec()
    codec.save_pretrained(tmp_path)
    rate = codec.config.kbps(2)
    ahead, plain = make_codecs([f"mine:{rate}@lead", f"mine:{rate}"], {"mine": str(tmp_path)})
    wav = speech_like(16000).reshape(-1).numpy()
    a, b = ahead.roundtrip(wav), plain.roundtrip(wav)
    assert a.wav.shape == b.wav.shape == wav.shape
    assert a.bits == pytest.approx(b.bits, rel=0.02)
    assert np.isfinite(a.wav).all() and not np.array_equal(a.wav, b.wav)
    assert ahead.name == f"mine:{rate:g}@lead" and ahead.fingerprint != plain.fingerprint


def test_what_is_refused(tmp_path: Path) -> None:
    codec = tiny_codec()
    config = codec.config
    rate = config.kbps(1)
    codec.save_pretrained(tmp_path / "blocks")
    for wrong in (1.5 * rate, 0.5 * rate, 100 * rate):
        with pytest.raises(ValueError, match="wanted the rate of a number of stages"):
            make_codecs([f"x:{wrong}@lead"], {"x": str(tmp_path / "blocks")})
    dense = dataclasses.replace(config.quantizer, kind="rfsq")
    torch.manual_seed(0)
    other = AffectCodec(dataclasses.replace(config, quantizer=dense))
    other.save_pretrained(tmp_path / "dense")
    with pytest.raises(ValueError, match="@lead cuts blocks apart, x is of kind 'rfsq'"):
        make_codecs([f"x:{rate}@lead"], {"x": str(tmp_path / "dense")})
