# SPDX-License-Identifier: Apache-2.0
"""Mutated files end in a clear error or in audio; the full count runs from the command line."""

from __future__ import annotations

import torch

from affectcodec.codec import AffectCodec
from tests.codec_fixtures import tiny_codec
from tests.fuzz_decode import run


def test_mutated_files_end_in_an_error_or_in_audio() -> None:
    result = run(tiny_codec(), 250, seed=1)
    assert sum(result.outcomes.values()) == 250
    assert result.outcomes["clear error"]
    assert result.outcomes["audio, damage reported"]
    assert result.max_seconds < 1
    assert result.grown_mib < 200
    assert result.longest < 120


def test_audio_of_a_damaged_file_is_the_codec_s_own() -> None:
    codec: AffectCodec = tiny_codec()
    tokens = codec.encode(torch.randn(6400) * 0.1, stages=2)
    tokens.codes[:, :, 3] = 0  # any token is audio, whatever its history
    assert bool(torch.isfinite(codec.decode(tokens)).all())
