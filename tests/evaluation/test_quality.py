# SPDX-License-Identifier: Apache-2.0
"""ViSQOL and DNSMOS order what any listener orders."""

from __future__ import annotations

from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from affectcodec.audio import load_audio
from affectcodec.evaluation import quality
from affectcodec.evaluation.controls import LowPass, MuLaw

SAMPLE = Path(str(files("affectcodec") / "samples" / "female-2.flac"))


@pytest.fixture(scope="module")
def clean() -> np.ndarray:
    return load_audio(SAMPLE, sample_rate=16000)[0]


def needs(*packages: str) -> pytest.MarkDecorator:
    missing = [name for name in packages if find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{missing} not installed")


@needs("visqol", "ai_edge_litert")
@pytest.mark.slow
def test_visqol_orders_treatments(clean: np.ndarray) -> None:
    scores = [
        quality.visqol(clean, wav)
        for wav in (clean, MuLaw().roundtrip(clean).wav, LowPass(1.0).roundtrip(clean).wav)
    ]
    assert 4.3 < scores[0] <= 5.0
    assert scores[0] > scores[1] > scores[2] + 0.5
    with pytest.raises(ValueError, match="half a second"):
        quality.visqol(clean[:5000], clean[:5000])
    with pytest.raises(ValueError, match="silent"):
        quality.visqol(clean, 0 * clean)


@needs("speechmos", "onnxruntime")
@pytest.mark.slow
def test_dnsmos_hears_noise(clean: np.ndarray) -> None:
    noise = 0.05 * np.random.default_rng(0).standard_normal(len(clean)).astype("f4")
    good, bad = quality.dnsmos(clean), quality.dnsmos(clean + noise)
    assert set(good) == {"sig", "bak", "ovrl"}
    assert good["ovrl"] > bad["ovrl"] + 0.5 and good["bak"] > bad["bak"] + 1.0
    assert all(1.0 <= value <= 5.0 for value in (*good.values(), *bad.values()))
    long = quality.dnsmos(np.tile(clean, 4))
    assert abs(long["ovrl"] - good["ovrl"]) < 0.4
    with pytest.raises(ValueError, match="silent"):
        quality.dnsmos(np.zeros(0))


def test_missing_packages_name_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality.importlib.util, "find_spec", lambda name: None)
    quality._dnsmos.cache_clear()
    quality._visqol.cache_clear()
    with pytest.raises(ImportError, match=r"affectcodec\[judges\]"):
        quality.dnsmos(np.ones(16000))
    with pytest.raises(ImportError, match=r"affectcodec\[judges\]"):
        quality.visqol(np.ones(16000), np.ones(16000))
    quality._dnsmos.cache_clear()
    quality._visqol.cache_clear()
