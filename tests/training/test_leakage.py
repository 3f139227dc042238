# SPDX-License-Identifier: Apache-2.0
"""The leakage probe finds what is there and nothing else."""

from __future__ import annotations

import pytest
import torch

from affectcodec.ops import fsq
from affectcodec.training.leakage import LogMel, block_values, linear_r2
from tests.codec_fixtures import speech_like, tiny_config


def test_r2_of_known_mixtures() -> None:
    torch.manual_seed(0)
    x = torch.randn(4000, 6)
    noise = torch.randn(4000, 3)
    signal = x @ torch.randn(6, 3)
    signal = signal / signal.std(0)
    assert linear_r2(x, signal) > 0.999
    assert linear_r2(x, signal + noise) == pytest.approx(0.5, abs=0.05)
    assert linear_r2(x, noise) < 0.01
    assert linear_r2(x, torch.ones(4000, 2)) == 0.0
    assert linear_r2(x, torch.cat([signal[:, :1], torch.ones(4000, 1)], 1)) > 0.999


def test_bad_shapes_are_named() -> None:
    with pytest.raises(ValueError, match="N of at least 4"):
        linear_r2(torch.zeros(3, 2), torch.zeros(3, 2))
    with pytest.raises(ValueError, match=r"\(5, 2\) and \(6, 2\)"):
        linear_r2(torch.zeros(5, 2), torch.zeros(6, 2))


def test_values_of_blocks_are_those_of_their_digits() -> None:
    config = tiny_config().quantizer
    torch.manual_seed(0)
    tokens = torch.randint(0, config.codebook_size, (2, config.num_stages, 5), dtype=torch.int32)
    values = block_values(tokens, config)
    assert set(values) == {"emotion", "acoustic"}
    assert values["emotion"].shape == (2, 5, config.num_stages * 3)
    digits = fsq.unpack_digits(tokens % 8, (2, 2, 2))  # [B, K, 3, T]
    assert torch.equal(values["emotion"][1, 4, 3:6], 2.0 * digits[1, 1, :, 4] - 1)
    assert float(values["acoustic"].abs().max()) <= 1.0


def test_log_mel_has_one_row_a_frame() -> None:
    mel = LogMel(16000, 320)(speech_like(3200)[None])
    assert mel.shape == (1, 11, 80)
    assert bool(torch.isfinite(mel).all())
