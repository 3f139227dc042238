# SPDX-License-Identifier: Apache-2.0
"""The predictor of lost frames: its formula, its file, and what files it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from affectcodec import AffectCodec
from affectcodec.checkpoint import shipped_folder
from affectcodec.streaming.predictor import (
    HISTORY_FRAMES,
    PREDICTOR_FORMAT,
    Predictor,
    shipped_predictor,
)

WIDTH, RANK, SIZE = 6, 3, 5


def some_predictor(seed: int = 0) -> Predictor:
    g = np.random.default_rng(seed)

    def draw(*shape: int) -> np.ndarray:
        return (0.5 * g.standard_normal(shape)).astype(np.float32)

    return Predictor(
        mean=draw(WIDTH),
        scale=np.abs(draw(WIDTH)) + 0.5,
        embed=draw(RANK, WIDTH),
        hidden=draw(SIZE, HISTORY_FRAMES * (RANK + 1)),
        hidden_bias=draw(SIZE),
        middle=draw(SIZE, SIZE),
        middle_bias=draw(SIZE),
        keep=draw(WIDTH),
        out=draw(WIDTH, SIZE),
        out_bias=draw(WIDTH),
        hold=np.linspace(0, 1, WIDTH, dtype=np.float32),
        fingerprint="0123456789abcdef",
    )


def by_the_formula(
    p: Predictor, rows: np.ndarray, came: np.ndarray, last: np.ndarray
) -> np.ndarray:
    """In float64, one row at a time, as the docstring writes it."""
    n = [(row.astype(np.float64) - p.mean) / p.scale for row in rows[::-1]]
    x = np.concatenate([*[p.embed.astype(np.float64) @ row for row in n], came[::-1]])
    h = np.maximum(p.hidden @ x + p.hidden_bias, 0)
    h = np.maximum(p.middle @ h + p.middle_bias, 0)
    following = p.mean + p.scale * (p.keep * n[0] + p.out @ h + p.out_bias)
    return np.asarray((1 - p.hold) * following + p.hold * last)


def test_it_computes_its_formula() -> None:
    g = np.random.default_rng(1)
    for seed in range(5):
        p = some_predictor(seed)
        rows = g.standard_normal((HISTORY_FRAMES, WIDTH)).astype(np.float32)
        came = (g.random(HISTORY_FRAMES) < 0.5).astype(np.float32)
        last = g.standard_normal(WIDTH).astype(np.float32)
        got = p.latent(rows, came, last)
        assert got.dtype == np.float32 and got.shape == (WIDTH,)
        np.testing.assert_allclose(got, by_the_formula(p, rows, came, last), rtol=1e-4, atol=1e-5)
        assert got[-1] == pytest.approx(last[-1])  # held alone
        assert np.array_equal(got, p.latent(rows, came, last))


def test_it_survives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "p.safetensors"
    p = some_predictor()
    p.save(path)
    loaded = Predictor.load(path)
    assert loaded.fingerprint == p.fingerprint
    for name in vars(p):
        if name != "fingerprint":
            np.testing.assert_allclose(getattr(loaded, name), getattr(p, name), atol=2e-3)
    loaded.save(path)
    assert np.array_equal(Predictor.load(path).hidden, loaded.hidden)


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.safetensors"
    with pytest.raises(ValueError, match="fit_concealment"):
        Predictor.load(shipped_folder() / "stream" / "model.safetensors")
    path.write_bytes(b"no safetensors")
    with pytest.raises(ValueError, match="no predictor"):
        Predictor.load(path)
    with pytest.raises(ValueError, match="no predictor"):
        Predictor.load(tmp_path / "missing.safetensors")
    save_file({"mean": np.zeros(3, np.float16)}, path, {"format": PREDICTOR_FORMAT})
    with pytest.raises(ValueError, match="no predictor"):
        Predictor.load(path)
    replace(some_predictor(), out=np.zeros((WIDTH, SIZE + 1), np.float32)).save(path)
    with pytest.raises(ValueError, match="out is"):
        Predictor.load(path)
    replace(some_predictor(), keep=np.full(WIDTH, np.nan, np.float32)).save(path)
    with pytest.raises(ValueError, match="finite"):
        Predictor.load(path)


def test_the_shipped_weights_have_one() -> None:
    codec = AffectCodec.from_pretrained()
    predictor = shipped_predictor(codec.fingerprint)
    assert predictor is not None and len(predictor.mean) == codec.config.quantizer.width
    assert shipped_predictor("0" * 16) is None
    files = sorted(shipped_folder().glob("*/concealment.safetensors"))
    assert files and all(file.stat().st_size < 1e6 for file in files)
