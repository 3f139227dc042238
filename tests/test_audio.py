# SPDX-License-Identifier: Apache-2.0
"""Reading, writing and resampling audio, on files made here."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch

from affectcodec.audio import (
    AudioError,
    load_audio,
    load_pcm16,
    pcm16_bytes,
    resample,
    resampled_length,
    save_audio,
)


def tone(seconds: float, rate: int, hz: float = 440.0, level: float = 0.5) -> np.ndarray:
    return (level * np.sin(2 * np.pi * hz * np.arange(int(seconds * rate)) / rate)).astype("f4")


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
def test_mono_file_at_wanted_rate(tmp_path: Path, rate: int) -> None:
    path = tmp_path / "a.wav"
    save_audio(path, tone(1.0, rate), rate)
    wav, sr = load_audio(path, sample_rate=16000)
    assert sr == 16000 and wav.dtype == np.float32 and wav.shape == (16000,)
    inner = slice(800, -800)
    np.testing.assert_allclose(wav[inner], tone(1.0, 16000)[inner], atol=2e-3)


def test_stereo_48k_mono_is_channel_mean(tmp_path: Path) -> None:
    path = tmp_path / "s.wav"
    both = np.stack([tone(0.5, 48000), np.zeros(24000, np.float32)])
    assert save_audio(path, both, 48000) == 0
    wav, sr = load_audio(path)
    assert (wav.shape, sr) == ((24000,), 48000)
    np.testing.assert_allclose(wav, both.mean(0), atol=1e-4)
    stereo, _ = load_audio(path, mono=False)
    np.testing.assert_allclose(stereo, both, atol=1e-4)
    stereo16, sr = load_audio(path, sample_rate=16000, mono=False)
    assert (stereo16.shape, sr) == ((2, 8000), 16000)


def test_longer_than_one_block(tmp_path: Path) -> None:
    path = tmp_path / "long.flac"
    x = np.random.default_rng(0).uniform(-0.5, 0.5, 200_001).astype("f4")
    save_audio(path, x, 16000)
    np.testing.assert_allclose(load_audio(path)[0], x, atol=1 / 32768)


def test_24_bit_keeps_more_than_16(tmp_path: Path) -> None:
    x = tone(0.1, 16000, level=1e-4)
    errors = {}
    for subtype in ("PCM_16", "PCM_24"):
        path = tmp_path / f"{subtype}.wav"
        save_audio(path, x, 16000, subtype)
        errors[subtype] = np.abs(load_audio(path)[0] - x).max()
    assert errors["PCM_24"] < 2e-7
    assert errors["PCM_16"] > 5e-6


def test_16_bit_round_trip_is_exact(tmp_path: Path) -> None:
    codes = np.array([-32768, -32767, -1, 0, 1, 2, 32766, 32767], dtype="<i2")
    x = codes.astype("f4") / 32768
    for path in (tmp_path / "a.wav", tmp_path / "a.flac"):
        assert save_audio(path, x, 16000) == 0
        assert np.array_equal(sf.read(path, dtype="int16")[0], codes)
    assert pcm16_bytes(x) == (codes.tobytes(), 0)
    back, rate = load_pcm16(io.BytesIO(codes.tobytes()), sample_rate_in=16000)
    assert rate == 16000 and np.array_equal(back, x)


@pytest.mark.parametrize("extension", [".ogg", ".opus", ".mp3"])
def test_lossy_formats(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"a{extension}"
    save_audio(path, tone(1.0, 48000), 48000)
    wav, sr = load_audio(path, sample_rate=16000)
    assert sr == 16000 and abs(len(wav) - 16000) < 1600
    spectrum = np.abs(np.fft.rfft(wav[4000:12000]))
    assert np.argmax(spectrum) == 220  # 440 Hz at 2 Hz a bin


def test_clipping_is_counted_and_never_wraps(tmp_path: Path) -> None:
    path = tmp_path / "loud.wav"
    x = np.array([0.0, 1.5, -3.0, 1.0, 0.25], dtype="f4")
    assert save_audio(path, x, 16000) == 2
    np.testing.assert_allclose(load_audio(path)[0], [0, 1, -1, 1, 0.25], atol=1e-4)
    assert pcm16_bytes(x)[1] == 2
    assert save_audio(path, x, 16000, "FLOAT") == 0
    np.testing.assert_array_equal(load_audio(path)[0], x)


def test_file_objects_and_pipes(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    save_audio(buffer, torch.from_numpy(tone(0.1, 16000))[None, None], 16000, format="flac")
    data = buffer.getvalue()
    assert data[:4] == b"fLaC"
    buffer.seek(0)
    assert load_audio(buffer)[0].shape == (1600,)

    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.data = io.BytesIO(data)

        def read(self, size: int = -1) -> bytes:
            return self.data.read(size)

        def seekable(self) -> bool:
            return False

    assert load_audio(Pipe())[0].shape == (1600,)


def broken(tmp_path: Path, kind: str) -> Path:
    path = tmp_path / f"{kind}.wav"
    x = tone(0.5, 16000)
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("this is no audio\n" * 20)
    elif kind == "no_samples":
        sf.write(path, np.zeros(0, np.float32), 16000)
    elif kind == "nan":
        sf.write(path, np.where(np.arange(8000) == 4000, np.nan, x), 16000, subtype="FLOAT")
    elif kind == "inf":
        sf.write(path, np.where(np.arange(8000) == 7999, np.inf, x), 16000, subtype="FLOAT")
    elif kind == "folder":
        path.mkdir()
    elif kind == "truncated":
        sf.write(path, x, 16000)
        path.write_bytes(path.read_bytes()[:5000])
    elif kind == "truncated_flac":
        sf.write(path, x, 16000, format="FLAC")
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif kind == "header_only":
        sf.write(path, x, 16000)
        path.write_bytes(path.read_bytes()[:30])
    return path


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("missing", "no such file"),
        ("empty", "empty"),
        ("text", "cannot be decoded"),
        ("no_samples", "no samples"),
        ("nan", r"0\.250 s"),
        ("inf", "infinite"),
        ("folder", "is a folder"),
        ("truncated", "truncated"),
        ("truncated_flac", "truncated|cannot be decoded"),
        ("header_only", "cannot be decoded|no samples|truncated"),
    ],
)
def test_unusable_files_say_which_and_why(tmp_path: Path, kind: str, says: str) -> None:
    path = broken(tmp_path, kind)
    with pytest.raises(AudioError, match=says) as caught:
        load_audio(path)
    assert str(path) in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_truncated_mp3_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    save_audio(path, tone(2.0, 16000), 16000)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(AudioError, match="truncated|cannot be decoded"):
        load_audio(path)


def test_wav_written_to_a_pipe_is_read(tmp_path: Path) -> None:
    """Programs that cannot seek back leave 0xFFFFFFFF as the data size."""
    path = tmp_path / "stream.wav"
    save_audio(path, tone(0.5, 16000), 16000)
    data = bytearray(path.read_bytes())
    at = data.find(b"data") + 4
    data[at : at + 4] = data[4:8] = b"\xff" * 4
    path.write_bytes(data)
    assert load_audio(path)[0].shape == (8000,)


def test_empty_stream_and_wrong_source() -> None:
    with pytest.raises(AudioError, match="empty"):
        load_audio(io.BytesIO())
    with pytest.raises(AudioError, match="wanted a path"):
        load_audio(3.5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "wav", "rate", "subtype", "says"),
    [
        ("a.xyz", np.zeros(8, "f4"), 16000, "PCM_16", r"\.wav, \.flac"),
        ("a", np.zeros(8, "f4"), 16000, "PCM_16", "cannot write"),
        ("no/such/a.wav", np.zeros(8, "f4"), 16000, "PCM_16", "does not exist"),
        ("a.wav", np.zeros(0, "f4"), 16000, "PCM_16", "no samples"),
        ("a.wav", np.full(8, np.nan, "f4"), 16000, "PCM_16", "NaN"),
        ("a.wav", np.zeros((2, 3, 8), "f4"), 16000, "PCM_16", r"\[2, 3, 8\]"),
        ("a.wav", np.zeros((16000, 2), "f4"), 16000, "PCM_16", "transpose"),
        ("a.wav", np.zeros(8, "i2"), 16000, "PCM_16", "int16"),
        ("a.wav", np.zeros(8, "f4"), 0, "PCM_16", "sample_rate"),
        ("a.flac", np.zeros(8, "f4"), 16000, "FLOAT", "FLOAT"),
        ("a.opus", np.zeros(8, "f4"), 11025, "PCM_16", "Opus"),
    ],
)
def test_unwritable(
    tmp_path: Path, name: str, wav: np.ndarray, rate: int, subtype: str, says: str
) -> None:
    with pytest.raises(AudioError, match=says):
        save_audio(tmp_path / name, wav, rate, subtype)


@pytest.mark.parametrize(
    ("n", "sr_in", "sr_out"),
    [
        (1, 48000, 16000),
        (2, 48000, 16000),
        (100, 44100, 16000),
        (16001, 16000, 8000),
        (7, 8000, 16000),
    ],
)
def test_resampled_length_holds(n: int, sr_in: int, sr_out: int) -> None:
    out = resample(np.ones(n, np.float32), sr_in, sr_out)
    assert len(out) == resampled_length(n, sr_in, sr_out) >= 1
    assert abs(len(out) - n * sr_out / sr_in) <= 1


def test_resample_numpy_and_torch_agree_bitwise_and_by_row() -> None:
    x = np.random.default_rng(1).standard_normal((3, 2, 4001)).astype("f4")
    a = resample(x, 44100, 16000)
    b = resample(torch.from_numpy(x), 44100, 16000)
    assert isinstance(b, torch.Tensor) and np.array_equal(a, b.numpy())
    assert np.array_equal(a, resample(x, 44100, 16000))
    assert np.array_equal(a[1, 1], resample(x[1, 1], 44100, 16000))
    assert resample(torch.from_numpy(x).double(), 8000, 16000).dtype == torch.float64


def test_resample_removes_what_the_new_rate_cannot_hold() -> None:
    out = resample(tone(1.0, 48000, hz=12000.0), 48000, 16000)
    assert np.abs(out[400:-400]).max() < 1e-3


def test_resample_same_rate_and_errors() -> None:
    x = np.ones(5, np.float32)
    assert resample(x, 16000, 16000) is x
    assert resample(np.zeros((2, 0), np.float32), 8000, 16000).shape == (2, 0)
    with pytest.raises(AudioError, match="sr_out"):
        resample(x, 16000, 0)
    with pytest.raises(AudioError, match="int64"):
        resample(np.ones(5, np.int64), 8000, 16000)


def test_raw_pcm_stereo_and_errors() -> None:
    frames = np.array([[16384, 0], [-16384, 0]], dtype="<i2")
    wav, rate = load_pcm16(frames.tobytes(), sample_rate_in=8000, channels=2)
    assert rate == 8000
    np.testing.assert_allclose(wav, [0.25, -0.25])
    wav, rate = load_pcm16(frames.tobytes() * 100, sample_rate_in=8000, sample_rate=16000)
    assert (rate, wav.shape) == (16000, (800,))
    with pytest.raises(AudioError, match="frames"):
        load_pcm16(b"abc", sample_rate_in=8000)
    with pytest.raises(AudioError, match="no samples"):
        load_pcm16(b"", sample_rate_in=8000)
