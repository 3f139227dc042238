# SPDX-License-Identifier: Apache-2.0
"""Speex and AMR-WB, where they are installed."""

from __future__ import annotations

import ctypes.util
import shutil

import numpy as np
import pytest

from affectcodec.evaluation import telephony
from affectcodec.evaluation.alignment import align
from affectcodec.evaluation.baselines import BaselineError
from affectcodec.evaluation.telephony import AMR_WB_MODES, AmrWb, Speex
from tests.evaluation.sounds import voice

needs_speex = pytest.mark.skipif(shutil.which("speexenc") is None, reason="speex not installed")
needs_amr = pytest.mark.skipif(
    None in (ctypes.util.find_library(n) for n in ("vo-amrwbenc", "opencore-amrwb")),
    reason="AMR-WB not installed",
)


@needs_speex
def test_speex_bits_and_delay() -> None:
    x = voice(3.0)
    low, high = Speex(4.0).roundtrip(x), Speex(9.8).roundtrip(x)
    # a packet is whole bytes, and the flush adds two or three frames to 150
    assert 3.9 <= low.bits / 3.0 / 1000 < 4.6
    assert 9.8 <= high.bits / 3.0 / 1000 < 10.6
    found = align(x, high.wav)
    assert abs(found.delay) < 400 and found.similarity > 0.6
    with pytest.raises(ValueError, match="wide-band"):
        Speex(2.0)


@needs_amr
@pytest.mark.parametrize("kbps", [6.6, 8.85, 23.85])
def test_amr_bits_and_delay(kbps: float) -> None:
    x = voice(3.0)
    codec = AmrWb(kbps)
    coded = codec.roundtrip(x)
    frames = coded.bits / AMR_WB_MODES[kbps][1]
    assert frames == 152  # 150 and the flush
    found = align(x, coded.wav)
    assert 0 <= found.delay < 640 and found.similarity > 0.6
    assert codec.name == f"amrwb:{kbps:g}" and str(kbps) in codec.fingerprint + str(kbps)
    np.testing.assert_array_equal(coded.wav, codec.roundtrip(x).wav)
    assert len(codec.roundtrip(x[:0]).wav) == 640


@needs_amr
def test_amr_rate_is_checked() -> None:
    with pytest.raises(ValueError, match="wanted one of"):
        AmrWb(7.0)


def test_a_missing_library_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    telephony._library.cache_clear()
    monkeypatch.setattr(telephony.ctypes.util, "find_library", lambda name: None)
    with pytest.raises(BaselineError, match="apt-get install libvo-amrwbenc0"):
        AmrWb(6.6)
    telephony._library.cache_clear()
