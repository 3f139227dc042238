# SPDX-License-Identifier: Apache-2.0
"""The codec with entropy-coded tokens, as evaluation runs it."""

from __future__ import annotations

import numpy as np
import pytest

from affectcodec.entropy import RateControl, load_coder
from affectcodec.evaluation.codecs import make_codecs
from affectcodec.evaluation.compact import CompactCodec


@pytest.fixture(scope="module")
def wav() -> np.ndarray:
    time = np.arange(32000) / 16000
    tone = sum(np.sin(2 * np.pi * 130 * k * time) / k for k in range(1, 20))
    return (0.05 * tone * np.sin(2 * np.pi * 2 * time) ** 2).astype(np.float32)


@pytest.fixture(scope="module")
def codec() -> CompactCodec:
    (found,) = make_codecs(["affectcodec:1.5@compact"], {"affectcodec": None})
    return found


def test_bits_are_those_of_the_payloads_and_keep_to_the_rate(codec, wav):
    coded = codec.roundtrip(wav)
    assert codec.name == "affectcodec:1.5@compact"
    assert coded.wav.shape == wav.shape
    assert coded.bits % 8 == 0
    assert 1000 < coded.bits / 2 <= 1510


def test_more_stages_than_the_plain_form_at_the_same_rate(codec, wav):
    (plain,) = make_codecs(["affectcodec:1.5"], {"affectcodec": None})
    assert plain.roundtrip(wav).bits > codec.roundtrip(wav).bits
    assert plain.fingerprint != codec.fingerprint


def test_what_changes_the_sound_changes_the_fingerprint(codec):
    other = CompactCodec(
        codec.codec,
        1.5,
        load_coder(),
        label="affectcodec",
        digest="",
        control=RateControl(quiet_steps=1.0),
    )
    assert other.fingerprint != codec.fingerprint
    assert load_coder().id in codec.fingerprint


def test_an_unknown_form_is_refused():
    with pytest.raises(ValueError, match="compact"):
        make_codecs(["affectcodec:1.5@zip"], {"affectcodec": None})
