# SPDX-License-Identifier: Apache-2.0
"""``affectcodec stream``: pipes and the UDP pair."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import soundfile

from affectcodec import AffectCodec
from affectcodec.runtime import NativeCodec, why_unavailable
from tests.codec_fixtures import HOP, speech_like


def pcm(frames: int) -> bytes:
    return np.round(speech_like(frames * HOP + 20).numpy() * 32767).astype("<i2").tobytes()


def test_a_pipe_there_and_back(run, weights: str) -> None:
    data = pcm(20)
    coded = run("stream", "encode", "--weights", weights, "--kbps", "1.5", stdin=data)
    assert coded.exit_code == 0, coded.output
    back = run("stream", "decode", "--weights", weights, stdin=coded.stdout_bytes)
    assert back.exit_code == 0, back.output
    assert len(back.stdout_bytes) == 2 * HOP * 22
    codec = AffectCodec.from_pretrained(weights)
    whole = NativeCodec(codec) if not why_unavailable(codec) else codec
    samples = np.frombuffer(data, "<i2").astype(np.float32) / 32768
    want = whole.decode(whole.encode(samples, kbps=1.5))[0, 0].numpy()
    got = np.frombuffer(back.stdout_bytes, "<i2").astype(np.float32) / 32768
    error = np.square(got[HOP : HOP + len(want)] - want).sum() / np.square(want).sum()
    assert error < 1e-3


def test_processes_in_a_pipe(weights: str) -> None:
    """As a shell would: the first packet comes out before the input ends."""
    command = [sys.executable, "-m", "affectcodec", "stream"]
    options = ["--weights", weights, "--engine", "torch"]
    encoder = subprocess.Popen(
        [*command, "encode", *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert encoder.stdin is not None and encoder.stdout is not None
    encoder.stdin.write(pcm(3))
    encoder.stdin.flush()
    assert encoder.stdout.read(3) == b"AFC"
    size = encoder.stdout.read(40)
    assert len(size) == 40  # header and packets, while the input is open
    encoder.stdin.close()
    encoder.stdout.read()
    assert encoder.wait(60) == 0


def test_bad_input(run, weights: str) -> None:
    done = run("stream", "decode", "--weights", weights, stdin=b"no stream at all")
    assert done.exit_code == 1 and "Error" in done.stderr
    done = run("stream", "encode", "--weights", weights, stdin=b"\0\0\0")
    assert done.exit_code == 0 and "inside a sample" in done.stderr
    done = run("stream", "encode", "--kbps", "1", "--stages", "2", stdin=b"")
    assert done.exit_code == 2 and "give one of them" in done.stderr
    done = run("stream", "udp", "missing.wav")
    assert done.exit_code == 2


def test_udp_pair(run, weights: str, tmp_path: Path) -> None:
    clip = tmp_path / "clip.wav"
    soundfile.write(clip, speech_like(30 * HOP).numpy(), 16000)
    out = tmp_path / "heard.wav"
    arguments = ["--loss", "0.1", "--burst", "2", "--fast", "--weights", weights, "-o", out]
    done = run("stream", "udp", clip, *arguments)
    assert done.exit_code == 0, done.output
    assert "kbit/s" in done.stdout and "p50/p99" in done.stdout
    assert len(soundfile.read(out)[0]) > 20 * HOP
