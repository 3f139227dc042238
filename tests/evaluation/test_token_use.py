# SPDX-License-Identifier: Apache-2.0
"""Entropies whose values are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from affectcodec.config import BDRFSQConfig, Block
from affectcodec.evaluation.token_use import (
    collect_codes,
    digits_of,
    entropy_bits,
    markdown,
    stage_use,
    token_use,
)
from affectcodec.tokens import Tokens

CONFIG = BDRFSQConfig(
    blocks=(Block("emotion", 8, (2, 2, 2)), Block("acoustic", 8, (4, 3))), num_stages=2
)


def test_entropy_of_known_histograms() -> None:
    assert entropy_bits(np.array([1, 1, 1, 1])) == 2.0
    assert entropy_bits(np.array([7, 0])) == 0.0
    assert entropy_bits(np.array([3, 1])) == pytest.approx(0.811278)
    assert entropy_bits(np.array([0, 0])) == 0.0


def test_digits_have_the_first_dim_low() -> None:
    codes = np.array([[1 + 4 * 2, 3]])
    np.testing.assert_array_equal(digits_of(codes, (4, 3)), [[[1, 3]], [[2, 0]]])


def test_uniform_codes_use_everything() -> None:
    use = stage_use(np.tile(np.arange(12), 5), CONFIG.blocks[1], 0)
    np.testing.assert_allclose(use.digit_shares, 1.0)
    assert use.code_share == pytest.approx(1.0)
    assert (use.codes_used, use.codebook_size, use.frames) == (12, 12, 60)
    assert use.idle_dims == ()


def test_stuck_and_copied_digits_are_seen() -> None:
    # dim 0 and dim 1 always equal, dim 2 stuck at 1
    codes = np.array([0b100, 0b111] * 8)
    use = stage_use(codes, CONFIG.blocks[0], 1)
    assert use.digit_shares == (1.0, 1.0, 0.0)
    assert use.idle_dims == (2,)
    assert use.code_bits == 1.0  # the copy brings no second bit


def test_codes_outside_the_codebook_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"0\.\.7"):
        stage_use(np.array([8]), CONFIG.blocks[0], 0)
    with pytest.raises(ValueError, match="no frame"):
        stage_use(np.array([], dtype=int), CONFIG.blocks[0], 0)
    with pytest.raises(ValueError, match="speaker"):
        token_use({"speaker": np.zeros((1, 1))}, CONFIG)


def test_tokens_to_report_leaves_padding_out() -> None:
    emotion, acoustic = np.array([[[0, 7, 0]], [[7, 0, 0]]]), np.array([[[1, 2, 0]], [[3, 4, 5]]])
    codes = torch.from_numpy(emotion + 8 * acoustic).int()
    tokens = Tokens(
        codes=codes,
        lengths=torch.tensor([2, 3]),
        num_samples=torch.tensor([300, 600]),
        stages={"emotion": 1, "acoustic": 1},
        quantizer=CONFIG,
        config_hash="0" * 16,
    )
    found = collect_codes([tokens])
    np.testing.assert_array_equal(found["acoustic"], [[1, 2, 3, 4, 5]])
    np.testing.assert_array_equal(found["emotion"], [[0, 7, 7, 0, 0]])
    uses = token_use(found, CONFIG)
    assert [(u.block, u.stage, u.frames) for u in uses] == [("emotion", 0, 5), ("acoustic", 0, 5)]
    page = markdown(uses, command="x", clips=2)
    assert "acoustic" in page and "Digits under 0.5: none" in page


def test_idle_dims_are_named() -> None:
    uses = token_use({"emotion": np.array([[0, 1, 0, 1]])}, CONFIG)
    assert "emotion stage 1 dim 1, emotion stage 1 dim 2." in markdown(uses, command="x", clips=1)
