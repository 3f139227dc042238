# SPDX-License-Identifier: Apache-2.0
"""Trackers as sources of a decoder."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from affectcodec.codec import AffectCodec
from affectcodec.evaluation.source_pitch import CODES, SCORES, TRACKERS, main, measure, source_of
from tests.codec_fixtures import tiny_codec, tiny_snake_config
from tests.evaluation.sounds import corpus


def voice(hz: float, seconds: float = 1.0) -> np.ndarray:
    t = np.arange(int(16000 * seconds)) / 16000
    swing = hz * 2 ** (0.2 * np.sin(2 * math.pi * 3 * t))
    phase = 2 * math.pi * np.cumsum(swing) / 16000
    return 0.1 * np.sum([np.sin(k * phase) / k for k in range(1, 15)], axis=0)


def test_a_track_becomes_a_source_without_gaps() -> None:
    track = np.zeros(41)
    track[8:17] = 100.0
    track[24:33] = 400.0
    f0, voicing = source_of(track, 10, 4)
    assert f0.shape == voicing.shape == (1, 10)
    assert voicing[0].tolist() == [0, 0, 1, 1, 1, 0, 1, 1, 1, 0]
    assert f0[0, 0] == f0[0, 2] == 100 and f0[0, 9] == 400
    assert 100 < float(f0[0, 5]) < 400
    assert source_of(np.zeros(5), 3, 4)[1].sum() == 0


def test_the_source_is_what_is_heard() -> None:
    for package in ("pyworld", "swift_f0"):
        pytest.importorskip(package)
    codec = tiny_codec()
    with torch.no_grad():  # an untrained filter may drown the source: harmonics alone
        codec.decoder.head.weight.zero_()
        codec.decoder.head.bias.zero_()
        bins = codec.decoder.bins
        codec.decoder.head.bias.view(-1, 4, bins)[:, 1] = -5.0
    scores, cents = measure(codec, voice(180.0), 4)
    assert set(scores) == {*TRACKERS, CODES} and set(scores[CODES]) == set(SCORES)
    assert scores["autocorrelation"]["f0_corr"] > 0.95
    assert scores["autocorrelation"]["gross_pitch_error"] == 0
    assert scores["dio"]["f0_corr"] > 0.95 and scores["swift-f0"]["f0_corr"] > 0.95
    assert cents.ndim == 1 and np.isfinite(cents).all()


def test_a_codec_without_a_source_is_refused() -> None:
    with pytest.raises(TypeError, match="harmonic source"):
        measure(AffectCodec(tiny_snake_config()).eval(), voice(180.0, 0.5), 2)


def test_the_command_prints_the_table(tmp_path) -> None:
    for package in ("pyworld", "swift_f0"):
        pytest.importorskip(package)
    folder = tmp_path / "weights"
    tiny_codec().save_pretrained(folder)
    manifest = corpus(tmp_path)
    done = CliRunner().invoke(
        main,
        f"{manifest} --split test --limit 2 --stages 2 --weights {folder} --judge dio".split(),
    )
    assert done.exit_code == 0, done.output
    assert "judged by dio" in done.output
    assert "| autocorrelation |" in done.output and "| the codes |" in done.output
    assert "voiced in both" in done.output
