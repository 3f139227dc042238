# SPDX-License-Identifier: Apache-2.0
"""``affectcodec encode``."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from affectcodec.audio import load_audio, pcm16_bytes
from affectcodec.bitstream import AfcReader, read_tokens
from affectcodec.codec import AffectCodec
from tests.cli.clips import make_clip


def stages(path: Path) -> dict[str, int]:
    return read_tokens(path)[0].stages


def leftovers(folder: Path) -> list[Path]:
    return [p for p in folder.rglob(".*") if p.is_file()]


def test_a_file_is_encoded_beside_its_input_as_the_library_does(run, clip, weights):
    done = run("encode", clip, "--weights", weights, "--kbps", 1.5)
    assert done.exit_code == 0, done.output
    assert "1.5 kbit/s" in done.stderr
    tokens, report = read_tokens(clip.with_suffix(".afc"))
    wave, rate = load_audio(clip)
    expected = AffectCodec.from_pretrained(weights).encode(wave, rate, kbps=1.5)
    assert report.ok and tokens.stages == {"emotion": 2, "acoustic": 2}
    assert (tokens.codes == expected.codes).all()
    assert int(tokens.num_samples[0]) == len(wave) == 8000


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), {"emotion": 8, "acoustic": 8}),
        (("--stages", "3"), {"emotion": 3, "acoustic": 3}),
        (("--stages", "emotion=8,acoustic=1"), {"emotion": 8, "acoustic": 1}),
        (("--kbps", "2.9"), {"emotion": 3, "acoustic": 3}),
        (("--kbps", "100"), {"emotion": 8, "acoustic": 8}),
    ],
)
def test_rates(run, clip, weights, options, expected):
    done = run("encode", clip, "--weights", weights, *options)
    assert done.exit_code == 0, done.output
    assert stages(clip.with_suffix(".afc")) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--kbps", "0.5"), "0.5 is below the lowest rate"),
        (("--kbps", "-1"), "--kbps"),
        (("--stages", "9"), "wanted 0..8"),
        (("--stages", "0"), "every block is cut to 0"),
        (("--stages", "mood=3"), "unknown blocks"),
        (("--stages", "emotion=x"), "neither a number nor"),
        (("--stages", "2", "--kbps", "3"), "give one of them"),
        (("--frames-per-packet", "100000000"), "more than a packet holds"),
        (("--overwrite", "--skip-existing"), "exclude each other"),
        (("-o", "x.mp3"), "end it in .afc"),
        (("-o", "nowhere"), "or in '/' for a folder"),
    ],
)
def test_wrong_use_is_exit_code_2_and_writes_nothing(run, clip, weights, options, message):
    before = sorted(clip.parent.iterdir())
    done = run("encode", clip, "--weights", weights, *options)
    assert done.exit_code == 2
    assert message in done.stderr
    assert sorted(clip.parent.iterdir()) == before


def test_unknown_weights_are_named(run, clip):
    done = run("encode", clip, "--weights", "nope")
    assert done.exit_code == 2
    assert "no weights at 'nope'" in done.stderr
    assert "Traceback" not in done.stderr


def test_damaged_weights_give_one_line(run, clip, tmp_path, weights):
    folder = tmp_path / "w"
    folder.mkdir()
    (folder / "config.json").write_text((Path(weights) / "config.json").read_text())
    (folder / "model.safetensors").write_bytes(b"\x00" * 40)
    done = run("encode", clip, "--weights", folder)
    assert done.exit_code == 1
    assert done.stderr.startswith("Error: ") and done.stderr.count("\n") == 1


@pytest.mark.parametrize(("rate", "channels"), [(44100, 2), (8000, 1), (48000, 6)])
def test_any_rate_and_channels(run, tmp_path, weights, rate, channels):
    clip = make_clip(tmp_path / "a.flac", 0.3, rate, channels)
    done = run("encode", clip, "--weights", weights)
    assert done.exit_code == 0, done.output
    assert (f"{channels} channels mixed to mono" in done.stderr) == (channels > 1)
    with AfcReader(clip.with_suffix(".afc")) as reader:
        assert reader.header.num_samples == 4800


def test_folder_keeps_its_structure(run, tmp_path, weights):
    make_clip(tmp_path / "in/a.wav")
    make_clip(tmp_path / "in/sub/b.flac")
    make_clip(tmp_path / "in/.hidden/c.wav")
    (tmp_path / "in/notes.txt").write_text("no audio")
    done = run("encode", tmp_path / "in", "-o", tmp_path / "out", "--weights", weights)
    assert done.exit_code == 0, done.output
    files = {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.*")}
    assert files == {"a.afc", "sub/b.afc"}
    assert "Encoded 2 files" in done.stderr


def test_pattern(run, tmp_path, weights):
    make_clip(tmp_path / "x1.wav")
    make_clip(tmp_path / "x2.wav")
    make_clip(tmp_path / "y.wav")
    done = run("encode", tmp_path / "x*.wav", "-o", f"{tmp_path}/out/", "--weights", weights)
    assert done.exit_code == 0, done.output
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["x1.afc", "x2.afc"]


def test_a_file_named_like_a_pattern_is_that_file(run, tmp_path, weights):
    clip = make_clip(tmp_path / "take[1].wav")
    done = run("encode", clip, "--weights", weights)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "take[1].afc").exists()


def test_bad_files_do_not_stop_the_others(run, tmp_path, weights):
    make_clip(tmp_path / "a.wav")
    (tmp_path / "b.wav").write_bytes(b"this is no audio")
    (tmp_path / "empty.wav").touch()
    make_clip(tmp_path / "z.wav")
    done = run("encode", tmp_path, tmp_path / "nope.wav", "--weights", weights)
    assert done.exit_code == 1
    assert (tmp_path / "a.afc").exists() and (tmp_path / "z.afc").exists()
    assert not (tmp_path / "b.afc").exists()
    assert "3 of 5 files failed" in done.stderr
    for name in ("b.wav", "empty.wav", "nope.wav"):
        assert f"{tmp_path / name}: " in done.stderr
    assert "Traceback" not in done.stderr and not leftovers(tmp_path)


@pytest.mark.parametrize("argument", ["nothing/", "*.nope", "gone.wav"])
def test_nothing_found_is_an_error(run, tmp_path, weights, argument, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nothing").mkdir()
    done = run("encode", argument, "--weights", weights)
    assert done.exit_code == 1
    assert done.stderr.startswith(f"Error: {argument}") and done.stderr.count("\n") == 1


def test_existing_output_is_kept_unless_told(run, clip, weights):
    target = clip.with_suffix(".afc")
    target.write_bytes(b"precious")
    done = run("encode", clip, "--weights", weights)
    assert done.exit_code == 1 and "--overwrite" in done.stderr
    assert target.read_bytes() == b"precious"
    done = run("encode", clip, "--weights", weights, "--skip-existing")
    assert done.exit_code == 0 and "Skipped 1" in done.stderr
    assert target.read_bytes() == b"precious"
    assert run("encode", clip, "--weights", weights, "--overwrite").exit_code == 0
    assert read_tokens(target)[1].ok


def test_two_inputs_for_one_output_are_refused(run, tmp_path, weights):
    make_clip(tmp_path / "a.wav")
    make_clip(tmp_path / "a.flac")
    done = run("encode", tmp_path, "--weights", weights)
    assert done.exit_code == 2 and "would both be written" in done.stderr
    assert not (tmp_path / "a.afc").exists()


def test_the_same_input_twice_is_done_once(run, clip, weights):
    done = run("encode", clip, clip, "--weights", weights)
    assert done.exit_code == 0, done.output


def test_an_interrupt_leaves_no_half_file(run, clip, weights, monkeypatch):
    target = clip.with_suffix(".afc")
    target.write_bytes(b"old")

    def interrupted(self, data):
        with open(self, "wb") as file:
            file.write(data[:10])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", interrupted)
    done = run("encode", clip, "--weights", weights, "--overwrite")
    assert done.exit_code == 130
    assert "0 of 1 files are done" in done.stderr
    assert target.read_bytes() == b"old" and not leftovers(clip.parent)


def test_stdin_to_stdout(run, clip, weights):
    done = run("encode", "-", "--weights", weights, "-q", stdin=clip.read_bytes())
    assert done.exit_code == 0, done.stderr
    assert done.stderr == ""
    run("encode", clip, "--weights", weights)
    assert done.stdout_bytes == clip.with_suffix(".afc").read_bytes()


def test_raw_stdin(run, tmp_path, clip, weights):
    wave, _ = load_audio(clip)
    stereo = np.stack([wave, wave])
    arguments = ("encode", "-", "--weights", weights, "--raw-rate", 16000)
    mono = run(*arguments, stdin=pcm16_bytes(wave)[0])
    both = run(*arguments, "--raw-channels", 2, stdin=pcm16_bytes(stereo)[0])
    assert mono.exit_code == both.exit_code == 0
    run("encode", clip, "--weights", weights)
    assert mono.stdout_bytes == both.stdout_bytes == clip.with_suffix(".afc").read_bytes()
    odd = run(*arguments, stdin=b"abc")
    assert odd.exit_code == 1 and odd.stderr.startswith("Error: ") and not odd.stdout_bytes


def test_raw_folder(run, tmp_path, weights):
    (tmp_path / "a.pcm").write_bytes(b"\x10\x00" * 800)
    make_clip(tmp_path / "b.wav")
    done = run("encode", tmp_path, "--raw-rate", 8000, "--weights", weights)
    assert done.exit_code == 0, done.output
    with AfcReader(tmp_path / "a.afc") as reader:
        assert reader.header.num_samples == 1600
    assert not (tmp_path / "b.afc").exists()


@pytest.mark.parametrize(
    "arguments", [("-", "a.wav"), ("-", "-o", "folder/"), ("-", "-o", "x.wav")]
)
def test_wrong_use_of_stdin(run, arguments, weights):
    done = run("encode", *arguments, "--weights", weights, stdin=b"")
    assert done.exit_code == 2


def test_silence_and_one_sample_are_coded(run, tmp_path, weights):
    for name, wave in (("silent", np.zeros(1600)), ("one", np.full(1, 0.5))):
        sf.write(tmp_path / f"{name}.wav", wave, 16000)
    done = run("encode", tmp_path, "--weights", weights)
    assert done.exit_code == 0, done.output
    with AfcReader(tmp_path / "silent.afc") as reader:
        assert reader.header.loudness_dbfs is None
    with AfcReader(tmp_path / "one.afc") as reader:
        assert reader.header.num_samples == 1


def test_debug_shows_where(run, tmp_path, weights, monkeypatch):
    monkeypatch.setenv("AFFECTCODEC_DEBUG", "1")
    (tmp_path / "b.wav").write_bytes(b"this is no audio")
    done = run("encode", tmp_path / "b.wav", "--weights", weights)
    assert done.exit_code == 1 and "Traceback" in done.stderr


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error::DeprecationWarning"}


@pytest.mark.slow
def test_a_real_pipe_there_and_back(clip, weights, tmp_path):
    command = [sys.executable, "-m", "affectcodec"]
    encoder = subprocess.Popen(
        [*command, "encode", "-", "--weights", weights],
        stdin=clip.open("rb"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    decoder = subprocess.run(
        [*command, "decode", "-", "--weights", weights],
        stdin=encoder.stdout,
        capture_output=True,
        env=environment(),
        timeout=100,
    )
    assert encoder.wait(100) == 0, encoder.stderr.read()
    assert decoder.returncode == 0, decoder.stderr
    wave, rate = load_audio(io.BytesIO(decoder.stdout))
    assert rate == 16000 and len(wave) == 8000
    codec = AffectCodec.from_pretrained(weights)
    expected = codec.decode(codec.encode(load_audio(clip)[0]))[0, 0].numpy()
    assert np.abs(wave - np.clip(expected, -1, 1)).max() < 1e-3


@pytest.mark.slow
def test_several_processes_make_the_same_files(run, tmp_path, weights):
    for name in "abc":
        make_clip(tmp_path / f"{name}.wav", 0.2 + 0.1 * ord(name) % 0.3)
    (tmp_path / "bad.wav").write_bytes(b"this is no audio")
    one = run("encode", tmp_path, "-o", tmp_path / "one", "--weights", weights)
    two = run("encode", tmp_path, "-o", tmp_path / "two", "--weights", weights, "-j", 2)
    assert one.exit_code == two.exit_code == 1
    assert "1 of 4 files failed" in two.stderr and "bad.wav" in two.stderr
    for name in "abc":
        first = (tmp_path / "one" / f"{name}.afc").read_bytes()
        assert (tmp_path / "two" / f"{name}.afc").read_bytes() == first


def test_two_names_are_input_and_output(run, clip, weights, tmp_path):
    target = tmp_path / "out.afc"
    done = run("encode", clip, target, "--weights", weights)
    assert done.exit_code == 0, done.output
    assert read_tokens(target)[1].ok
    again = tmp_path / "again.wav"
    assert run("decode", target, again, "--weights", weights).exit_code == 0
    assert sf.info(again).frames == 8000
    # Two files to read stay two inputs.
    other = make_clip(tmp_path / "other.wav")
    done = run("encode", clip, other, "--weights", weights, "-o", tmp_path / "coded")
    assert done.exit_code == 0, done.output
    assert len(list((tmp_path / "coded").rglob("*.afc"))) == 2
