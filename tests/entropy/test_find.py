# SPDX-License-Identifier: Apache-2.0
"""Priors by name, folder and id."""

from __future__ import annotations

import shutil

import pytest

from affectcodec import checkpoint
from affectcodec.bitstream.errors import AfcError
from affectcodec.entropy.find import find_prior, load_coder
from affectcodec.entropy.prior import FILE_NAME


def test_the_shipped_prior_fits_the_shipped_codec():
    config, _, _ = checkpoint.load(None)
    layout = load_coder().prior.layout
    assert layout.names == config.quantizer.names
    assert layout.levels == tuple(block.levels for block in config.quantizer.blocks)
    assert layout.num_stages == config.quantizer.num_stages


def test_by_id():
    coder = load_coder()
    assert find_prior(coder.id) is coder
    with pytest.raises(AfcError, match=f"{coder.id}.*load_coder"):
        find_prior("0" * 16)


def test_a_folder_without_a_prior_says_how_to_fit_one(tmp_path):
    folder = checkpoint.resolve(None)
    shutil.copy(folder / checkpoint.CONFIG_NAME, tmp_path)
    with pytest.raises(checkpoint.CheckpointError, match="affectcodec.entropy.fit"):
        load_coder(tmp_path)
    shutil.copy(folder / FILE_NAME, tmp_path)
    assert load_coder(tmp_path).id == load_coder().id
