# SPDX-License-Identifier: Apache-2.0
"""Codecs behind one method: bits, lengths, errors. Outside programs only where installed."""

from __future__ import annotations

import shutil
import sys

import numpy as np
import pytest

from affectcodec.evaluation import baselines
from affectcodec.evaluation.alignment import align
from affectcodec.evaluation.baselines import (
    BaselineError,
    Codec2,
    Opus,
    find_program,
    ogg_packet_sizes,
    run_program,
)
from affectcodec.evaluation.codecs import make_codecs
from tests.evaluation.sounds import voice

needs_codec2 = pytest.mark.skipif(shutil.which("c2enc") is None, reason="codec2 not installed")
needs_opus = pytest.mark.skipif(shutil.which("opusenc") is None, reason="opus-tools not installed")


@needs_codec2
@pytest.mark.parametrize(
    ("mode", "nominal"), [("3200", 3.2), ("2400", 2.4), ("1300", 1.3), ("700C", 0.7)]
)
def test_codec2_bits_and_delay(mode: str, nominal: float) -> None:
    x = voice()
    coded = Codec2(mode).roundtrip(x)
    kbps = coded.bits / 1.5 / 1000
    # at most the flush and one frame more than nominal: no padding to whole bytes
    assert nominal <= kbps < nominal * (1.5 + 0.08) / 1.5
    assert len(coded.wav) >= len(x)
    assert 0 < align(x, coded.wav).delay < 800
    assert np.array_equal(coded.wav, Codec2(mode).roundtrip(x).wav)


@needs_codec2
def test_codec2_mode_is_checked_and_named() -> None:
    assert Codec2("1300").name == "codec2:1300"
    levelled = make_codecs(["codec2:1300@-26"], {})[0]
    assert levelled.name == "codec2:1300@-26"
    quiet = voice() * np.float32(0.01)
    out = levelled.roundtrip(quiet).wav
    assert 0.3 < np.abs(out).max() / np.abs(quiet).max() < 3.0
    assert not np.array_equal(out, Codec2("1300").roundtrip(quiet).wav)
    assert Codec2("1300").fingerprint != Codec2("2400").fingerprint
    with pytest.raises(ValueError, match="3200"):
        Codec2("9600")


@needs_opus
def test_opus_payload_without_container() -> None:
    x = voice(3.0)
    coded = Opus(12.0).roundtrip(x)
    assert 4.0 < coded.bits / 3.0 / 1000 < 20.0
    found = align(x, coded.wav)
    assert abs(found.delay) <= 2 and found.similarity > 0.8
    with pytest.raises(ValueError, match="6 to 256"):
        Opus(3.0)


def ogg_page(table: bytes) -> bytes:
    return b"OggS" + bytes(22) + bytes([len(table)]) + table + bytes(sum(table))


def test_ogg_packets_across_segments_and_pages() -> None:
    data = ogg_page(bytes([19])) + ogg_page(bytes([255, 45])) + ogg_page(bytes([10, 255]))
    data += ogg_page(bytes([0, 7]))
    assert ogg_packet_sizes(data) == [19, 300, 10, 255, 7]
    for broken in (data[:-1], data[:-8], b"x" + data, data + b"OggS"):
        with pytest.raises(ValueError, match="Ogg page"):
            ogg_packet_sizes(broken)


def test_missing_program_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines.shutil, "which", lambda program: None)
    with pytest.raises(BaselineError, match="apt-get install codec2"):
        find_program("c2enc", "codec2")
    with pytest.raises(BaselineError, match="apt-get install opus-tools"):
        Opus(6.0)
    with pytest.raises(BaselineError, match="codec2"):
        make_codecs(["codec2:1300"], {})


def test_programs_that_fail_or_hang() -> None:
    with pytest.raises(BaselineError, match="exit status 3: no good"):
        run_program(
            [sys.executable, "-c", "import sys; sys.stderr.write('no good'); sys.exit(3)"], b"", 30
        )
    with pytest.raises(BaselineError, match="no end after"):
        run_program([sys.executable, "-c", "import time; time.sleep(30)"], b"", 0.5)
    assert run_program(["cat"], b"abc", 10) == b"abc"
