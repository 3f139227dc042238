# SPDX-License-Identifier: Apache-2.0
"""Fitting a prior from the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from affectcodec.audio import save_audio
from affectcodec.entropy import load_coder
from affectcodec.entropy.fit import main, markdown, stage_costs
from affectcodec.entropy.prior import FILE_NAME, load

from .conftest import LAYOUT
from .helpers import random_packet


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        save_audio(folder / f"{name}.wav", rng.standard_normal(8000).astype("f4") * 0.05, 16000)
    path = folder / "manifest.csv"
    path.write_text("path,split\na.wav,train\nb.wav,dev\n")
    return path


def test_a_prior_is_fitted_told_of_and_never_replaced_unasked(manifest, tmp_path):
    out = tmp_path / "prior"
    wanted = [str(manifest), "--out", str(out), "--steps", "2"]
    done = CliRunner().invoke(main, wanted)
    assert done.exit_code == 0, done.output
    assert load(out).id in done.output
    assert done.output.count("| 6.00 ") == 1  # eight stages, plain
    before = (out / FILE_NAME).read_bytes()
    done = CliRunner().invoke(main, wanted)
    assert done.exit_code == 1 and "--overwrite" in done.output
    assert (out / FILE_NAME).read_bytes() == before
    done = CliRunner().invoke(main, [*wanted, "--seed", "1", "--overwrite"])
    assert done.exit_code == 0 and (out / FILE_NAME).read_bytes() != before


def test_the_shipped_prior_is_not_replaced_and_can_be_scored(manifest):
    kept = load_coder().id
    done = CliRunner().invoke(main, [str(manifest)])
    assert done.exit_code == 1 and "files coded with it need it" in done.output
    done = CliRunner().invoke(main, [str(manifest), "--score"])
    assert done.exit_code == 0 and "entropy coded" in done.output
    assert load_coder().id == kept


def test_a_manifest_without_the_split_is_an_error(manifest, tmp_path):
    path = tmp_path / "manifest.csv"
    path.write_text("path,split\na.wav,test\n")
    done = CliRunner().invoke(main, [str(path), "--out", str(tmp_path / "out")])
    assert done.exit_code == 1 and "no clip of the split 'train'" in done.output


def test_costs_add_up(coder):
    codes, _ = random_packet(LAYOUT, 60, 1)
    full = [np.resize(block, (4, 60)) for block in codes]
    rows = stage_costs(coder, [full, full], 50.0)
    stages = np.full((2, 60), 3, np.uint8)
    costs = coder.costs(full, stages)
    assert rows[2].coded == pytest.approx(costs.sum() / 60 * 50 / 1000)
    last = costs[:, (LAYOUT.stage_of == 2) & (LAYOUT.block_of == 1)]
    assert rows[2].last[1] == pytest.approx(last.sum() / 60)
    assert rows[2].plain == pytest.approx(3 * (3 + np.log2(12)) * 50 / 1000)
    assert markdown(rows, LAYOUT.names).count("\n") >= 5
