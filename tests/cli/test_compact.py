# SPDX-License-Identifier: Apache-2.0
"""``affectcodec encode --compact`` and what the other commands make of its files."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import affectcodec
from affectcodec.bitstream import AfcReader, coded_payload_bits, read_tokens
from affectcodec.checkpoint import CheckpointError
from affectcodec.cli.stream import _decode_pipe
from tests.bitstream.coders import CODER_ID, DeflateCoder

SAMPLES = Path(affectcodec.__file__).parent / "samples"
SHIPPED = DeflateCoder(id="0" * 16)


@pytest.fixture
def entropy(monkeypatch: pytest.MonkeyPatch, weights: str) -> SimpleNamespace:
    """Stands in for the package: one coder beside the weights at hand, another one shipped."""
    beside = DeflateCoder()

    def load_coder(name: str | None) -> DeflateCoder:
        if name != weights:
            raise CheckpointError(f"{name} has no prior")
        return beside

    def find_prior(coder_id: str) -> DeflateCoder:
        if coder_id != SHIPPED.id:
            raise LookupError(f"here is {SHIPPED.id}")
        return SHIPPED

    package = SimpleNamespace(load_coder=load_coder, find_prior=find_prior)
    monkeypatch.setitem(sys.modules, "affectcodec.entropy", package)
    return package


@pytest.fixture
def compact(run, clip, weights, entropy) -> Path:
    path = clip.with_suffix(".afc")
    done = run("encode", clip, "--weights", weights, "--compact", "--stages", 4)
    assert done.exit_code == 0, done.output
    assert "3 kbit/s coded as " in done.stderr
    return path


def test_the_same_tokens_are_written_coded(run, clip, weights, compact, tmp_path):
    plain = tmp_path / "plain.afc"
    assert run("encode", clip, plain, "--weights", weights, "--kbps", 3).exit_code == 0
    tokens, report = read_tokens(compact, coder=DeflateCoder())
    assert report.ok and tokens == read_tokens(plain)[0]
    assert AfcReader(compact.read_bytes()).header.coder == CODER_ID


def test_decode_takes_the_coder_beside_the_weights(run, clip, weights, compact, tmp_path):
    plain, wave, coded_wave = (tmp_path / n for n in ("plain.afc", "plain.wav", "coded.wav"))
    run("encode", clip, plain, "--weights", weights, "--kbps", 3)
    assert run("decode", plain, wave, "--weights", weights).exit_code == 0
    done = run("decode", compact, coded_wave, "--weights", weights)
    assert done.exit_code == 0, done.output
    assert wave.read_bytes() == coded_wave.read_bytes()
    done = run("decode", compact, tmp_path / "low.wav", "--weights", weights, "--kbps", 1.5)
    assert done.exit_code == 0 and "from 1.5 kbit/s" in done.stderr


def test_decode_says_what_is_missing(run, weights, compact, entropy, monkeypatch):
    entropy.load_coder = lambda name: SHIPPED
    done = run("decode", compact, "--weights", weights, "--overwrite")
    assert done.exit_code == 1 and CODER_ID in done.stderr and SHIPPED.id in done.stderr
    monkeypatch.setitem(sys.modules, "affectcodec.entropy", None)
    done = run("decode", compact, "--weights", weights, "--overwrite")
    assert done.exit_code == 1 and "pip install constriction" in done.stderr


def test_live_decoding_of_coded_packets(compact, weights, entropy):
    import io

    from affectcodec.cli.options import coder_finder, load_codec
    from affectcodec.streaming import StreamingDecoder

    codec = load_codec(weights)
    target = io.BytesIO()
    decoder = StreamingDecoder(codec, engine="torch")
    _decode_pipe(decoder, io.BytesIO(compact.read_bytes()), target, False, coder_finder(weights))
    assert len(target.getvalue()) == 2 * 320 * 26  # 0.5 s and the frame that flushes them


def test_info_measures_without_the_coder(run, compact, monkeypatch):
    monkeypatch.setitem(sys.modules, "affectcodec.entropy", None)
    done = run("info", compact)
    assert done.exit_code == 0, done.output
    assert "kbit/s of entropy-coded tokens" in done.stdout
    assert f"coder      {CODER_ID}" in done.stdout and "all well" in done.stdout
    assert "at most 4 stages; 12 bits each before coding" in done.stdout
    (record,) = json.loads(run("info", "--json", compact).stdout)
    assert record["coder"] == CODER_ID and record["kbps_nominal"] is None
    assert record["kbps_payload"] == pytest.approx(coded_payload_bits(compact) / 500, abs=1e-4)
    assert record["kbps_payload"] < record["kbps_on_disk"]
    assert record["blocks"][0]["stages"] == {"4": 26} and record["blocks"][0]["kbps"] is None


@pytest.mark.parametrize(
    ("problem", "word"),
    [
        (CheckpointError("no prior there"), "no prior there"),
        (ImportError("[compact]"), "[compact]"),
    ],
)
def test_without_a_coder_nothing_is_encoded(run, clip, weights, entropy, problem, word):
    def load_coder(name: str | None) -> DeflateCoder:
        raise problem

    entropy.load_coder = load_coder
    done = run("encode", clip, "--weights", weights, "--compact")
    assert done.exit_code == 2 and word in done.stderr and "--compact" in done.stderr
    assert not clip.with_suffix(".afc").exists()


def test_packets_are_no_longer_than_the_coder_takes(run, clip, weights, entropy):
    done = run("encode", clip, "--weights", weights, "--compact", "--frames-per-packet", 401)
    assert done.exit_code == 2 and "wanted 1 to 400" in done.stderr


def test_a_rate_with_the_shipped_coder(run, tmp_path):
    """Stages follow the rate, which the payload then has."""
    source = sorted(SAMPLES.glob("*.flac"))[0]
    target, wave = tmp_path / "small.afc", tmp_path / "small.wav"
    done = run("encode", source, target, "--compact", "--kbps", 1.5)
    assert done.exit_code == 0, done.output
    tokens, report = read_tokens(target)
    assert report.ok and tokens.frame_stages is not None
    kbps = coded_payload_bits(target) / float(tokens.duration[0]) / 1000
    assert 1.3 < kbps <= 1.51
    assert f"{kbps:.3g} kbit/s," in done.stderr
    assert run("decode", target, wave).exit_code == 0
    assert wave.stat().st_size > 2 * int(tokens.num_samples[0])
    done = run("encode", source, target, "--compact", "--kbps", 0.2, "--overwrite")
    assert done.exit_code == 0 and "one stage, the least, takes more than the 0.2" in done.stderr
