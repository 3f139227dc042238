# SPDX-License-Identifier: Apache-2.0
"""``affectcodec decode``."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile as sf

from affectcodec.audio import load_audio
from affectcodec.bitstream import AfcReader, read_tokens
from affectcodec.codec import AffectCodec


def test_a_file_is_decoded_as_the_library_does(run, coded, weights):
    target = coded.with_name("again.wav")
    done = run("decode", coded, "-o", target, "--weights", weights)
    assert done.exit_code == 0, done.output
    wave, rate = load_audio(target)
    codec = AffectCodec.from_pretrained(weights)
    tokens, _ = read_tokens(coded, quantizer=codec.config.quantizer)
    expected = codec.decode(tokens)[0, 0].numpy()
    assert rate == 16000 and len(wave) == len(expected) == 8000
    assert np.abs(wave - np.clip(expected, -1, 1)).max() <= 1 / 32767


@pytest.mark.parametrize(
    ("name", "format", "subtype"),
    [
        ("a.wav", "WAV", "PCM_16"),
        ("a.FLAC", "FLAC", "PCM_16"),
        ("a.ogg", "OGG", "VORBIS"),
        ("a.opus", "OGG", "OPUS"),
        ("a.mp3", "MP3", "MPEG_LAYER_III"),
    ],
)
def test_the_extension_gives_the_format(run, coded, weights, name, format, subtype):
    target = coded.with_name(name)
    done = run("decode", coded, "-o", target, "--weights", weights)
    assert done.exit_code == 0, done.output
    info = sf.info(target)
    assert (info.format, info.subtype) == (format, subtype)
    assert info.channels == 1 and abs(info.duration - 0.5) < 0.1


def test_existing_audio_is_kept(run, coded, weights):
    # clip.wav is the original beside clip.afc: the worst file to lose
    before = coded.with_suffix(".wav").read_bytes()
    done = run("decode", coded, "--weights", weights)
    assert done.exit_code == 1 and "--overwrite" in done.stderr
    assert coded.with_suffix(".wav").read_bytes() == before


def test_folder_with_format(run, coded, weights, tmp_path):
    (tmp_path / "in/sub").mkdir(parents=True)
    coded.rename(tmp_path / "in/sub/x.afc")
    done = run(
        "decode", tmp_path / "in", "-o", tmp_path / "out", "--format", "flac", "--weights", weights
    )
    assert done.exit_code == 0, done.output
    assert sf.info(tmp_path / "out/sub/x.flac").frames == 8000


@pytest.mark.parametrize(
    ("options", "stages"),
    [
        (("--stages", "2"), 2),
        (("--kbps", "1.5"), 2),
        (("--stages", "emotion=0,acoustic=3"), {"emotion": 0, "acoustic": 3}),
        (("--stages", "emotion=8,acoustic=1"), {"emotion": 8, "acoustic": 1}),
    ],
)
def test_stages_can_be_dropped(run, coded, weights, options, stages):
    target = coded.with_name("cut.wav")
    done = run("decode", coded, "-o", target, "--weights", weights, *options)
    assert done.exit_code == 0, done.output
    codec = AffectCodec.from_pretrained(weights)
    tokens, _ = read_tokens(coded, quantizer=codec.config.quantizer)
    full, cut = codec.decode(tokens)[0, 0], codec.decode(tokens.truncate(stages))[0, 0]
    wave = load_audio(target)[0]
    assert np.abs(wave - cut.clamp(-1, 1).numpy()).max() <= 1 / 32767
    assert not np.allclose(wave, full.clamp(-1, 1).numpy(), atol=1e-3)


def test_asking_for_what_the_file_lacks(run, coded, clip, weights):
    flat = coded.with_name("flat.afc")
    run("encode", clip, "-o", flat, "--stages", "emotion=0,acoustic=1", "--weights", weights)
    done = run("decode", flat, "-o", flat.with_suffix(".wav"), "--weights", weights, "--kbps", "6")
    assert done.exit_code == 0, done.output  # more than there is: all there is
    done = run(
        "decode", flat, "-o", flat.with_name("x.wav"), "--weights", weights,
        "--stages", "emotion=4,acoustic=0",
    )  # fmt: skip
    assert done.exit_code == 1 and "nothing is left of it" in done.stderr


def test_a_cut_file_is_decoded_up_to_the_cut(run, coded, weights):
    with AfcReader(coded) as reader:
        header_bytes = len(reader.header.to_bytes())
    data = coded.read_bytes()
    cut = coded.with_name("cut.afc")
    cut.write_bytes(data[: header_bytes + (len(data) - header_bytes) * 6 // 10])
    done = run("decode", cut, "--weights", weights)
    assert done.exit_code == 3
    assert "Warning: " in done.stderr and "truncated" in done.stderr
    wave, _ = load_audio(cut.with_suffix(".wav"))
    full = AffectCodec.from_pretrained(weights)
    expected = full.decode(read_tokens(coded, quantizer=full.config.quantizer)[0])[0, 0].numpy()
    assert 3200 <= len(wave) < 8000
    # whole packets before the cut decode to the same audio
    assert np.abs(wave[:3000] - np.clip(expected, -1, 1)[:3000]).max() <= 1 / 32767


def test_a_damaged_packet_is_concealed(run, coded, weights):
    data = bytearray(coded.read_bytes())
    data[len(data) // 2] ^= 0xFF
    bad = coded.with_name("bad.afc")
    bad.write_bytes(bytes(data))
    done = run("decode", bad, "--weights", weights, "--quiet")
    assert done.exit_code == 3 and "damaged" in done.stderr
    assert len(load_audio(bad.with_suffix(".wav"))[0]) == 8000


@pytest.mark.parametrize("keep", [0, 3, 12, 25])
def test_what_holds_nothing_is_an_error(run, coded, weights, keep):
    stub = coded.with_name("stub.afc")
    stub.write_bytes(coded.read_bytes()[:keep])
    done = run("decode", stub, "--weights", weights)
    assert done.exit_code == 1
    assert done.stderr.startswith(f"Error: {stub}: ") and done.stderr.count("\n") == 1
    assert not stub.with_suffix(".wav").exists()


def test_other_weights_are_refused_with_the_way_out(run, coded, other_weights):
    done = run("decode", coded, "-o", coded.with_name("x.wav"), "--weights", other_weights)
    assert done.exit_code == 1
    assert "made with other weights" in done.stderr and "--weights" in done.stderr
    assert not coded.with_name("x.wav").exists()


def test_streams(run, coded, weights):
    wav = run("decode", "-", "--weights", weights, "-q", stdin=coded.read_bytes())
    assert wav.exit_code == 0, wav.stderr
    wave, rate = load_audio(io.BytesIO(wav.stdout_bytes))
    assert (len(wave), rate) == (8000, 16000)
    raw = run("decode", coded, "-o", "-", "--format", "raw", "--weights", weights, "-q")
    pcm = np.frombuffer(raw.stdout_bytes, "<i2")
    assert len(pcm) == 8000 and np.abs(pcm / 32768 - wave).max() <= 1 / 32768


def test_raw_file(run, coded, weights):
    target = coded.with_suffix(".raw")
    assert run("decode", coded, "-o", target, "--weights", weights).exit_code == 0
    assert target.stat().st_size == 16000


def test_name_and_format_must_agree(run, coded, weights):
    done = run("decode", coded, "-o", "x.wav", "--format", "flac", "--weights", weights)
    assert done.exit_code == 2 and "contradict" in done.stderr


def test_one_bad_file_among_good_ones(run, coded, weights, tmp_path):
    (tmp_path / "in").mkdir()
    for name in "ac":
        (tmp_path / f"in/{name}.afc").write_bytes(coded.read_bytes())
    (tmp_path / "in/b.afc").write_bytes(b"nonsense")
    done = run("decode", tmp_path / "in", "--weights", weights)
    assert done.exit_code == 1
    assert "1 of 3 files failed" in done.stderr and "not an .afc stream" in done.stderr
    assert (tmp_path / "in/a.wav").exists() and (tmp_path / "in/c.wav").exists()
