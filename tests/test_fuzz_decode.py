# SPDX-License-Identifier: Apache-2.0
"""Mutated files end in a clear error or in audio; the full count runs from the command line."""

from __future__ import annotations

import torch

from affectcodec.codec import AffectCodec
from affectcodec.entropy.coder import PriorCoder
from affectcodec.entropy.layout import DigitLayout
from affectcodec.entropy.network import PriorNetwork, arrays
from affectcodec.entropy.prior import Prior
from tests.codec_fixtures import tiny_codec
from tests.fuzz_decode import run


def _coder(codec: AffectCodec) -> PriorCoder:
    torch.manual_seed(0)
    quantizer = codec.config.quantizer
    levels = tuple(block.levels for block in quantizer.blocks)
    layout = DigitLayout(quantizer.names, levels, quantizer.num_stages)
    return PriorCoder(Prior(layout, arrays(PriorNetwork(layout, width=24, units=5).double())))


def test_mutated_files_end_in_an_error_or_in_audio() -> None:
    codec = tiny_codec()
    result = run(codec, 250, seed=1, coder=_coder(codec))
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
