# SPDX-License-Identifier: Apache-2.0
"""Audio in and out: files (wav, flac, ogg, opus, mp3), raw PCM streams, and resampling.

Waves are float32 in [-1, 1], shaped `[n]` for one channel or `[channels, n]`. Files go through
libsndfile (`soundfile`), resampling through `soxr` at its "HQ" setting, which is deterministic and
works on the whole wave at once: the result never depends on block sizes.

    wav, sr = load_audio("clip.flac", sample_rate=16000)        # [n]
    clipped = save_audio("out.wav", wav, sr)                    # 0 unless samples left [-1, 1]
"""

from __future__ import annotations

import io
import math
import os
import re
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import soundfile as sf
import soxr
import torch

__all__ = [
    "AudioError",
    "load_audio",
    "load_pcm16",
    "pcm16_bytes",
    "resample",
    "resampled_length",
    "save_audio",
]

# Decoding block by block keeps only the channels that are kept in memory, and libsndfile's Vorbis
# encoder overflows its stack when handed minutes of audio in one call.
BLOCK_FRAMES = 65536

# Container and default sample format by file extension.
_WRITE_FORMATS = {
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".ogg": ("OGG", "VORBIS"),
    ".opus": ("OGG", "OPUS"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
}
_FLOAT_SUBTYPES = frozenset({"FLOAT", "DOUBLE"})
_MAX_SAMPLE_RATE = 768_000

# Float samples are about [-1, 1]; 16-bit values by mistake still fit. Far larger ones are no audio.
MAX_SAMPLE = 2.0**20

# libsndfile repairs the header of a short WAV file silently and leaves only this trace.
_SHORT_DATA = re.compile(r"^data : (\d+) \(should be (\d+)\)", re.MULTILINE)
# Sizes that programs writing to a pipe put in the header because they cannot seek back.
_STREAMING_SIZES = frozenset({0, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF})

Wave = TypeVar("Wave", np.ndarray, torch.Tensor)
Source = str | os.PathLike[str] | BinaryIO


class AudioError(ValueError):
    """Audio that cannot be read, written or resampled; the message names it and the way out."""


def load_audio(
    source: Source, *, sample_rate: int | None = None, mono: bool = True
) -> tuple[np.ndarray, int]:
    """Reads a whole audio file.

    Args:
        source: path, or binary file object (a pipe that cannot seek is read to its end first).
        sample_rate: wanted rate in Hz; None keeps the file's own.
        mono: True averages the channels.

    Returns:
        (wave, rate): float32 `[n]` if mono, else `[channels, n]`; n >= 1; all samples finite.

    Raises:
        AudioError: missing, empty, unreadable or truncated file, no samples, NaN or inf samples,
            impossible `sample_rate`.
    """
    name = _describe(source)
    if sample_rate is not None:
        _check_rate(sample_rate, "sample_rate")
    handle = _readable(source, name)
    try:
        with sf.SoundFile(handle) as file:
            wave, rate = _read_blocks(file, mono, name), file.samplerate
    except sf.LibsndfileError as error:
        raise AudioError(
            f"{name}: cannot be decoded ({error.error_string.strip()}). Readable are wav, flac, "
            "ogg (Vorbis, Opus) and mp3; if it is one of these it is damaged: copy it anew, or "
            "convert it, e.g. `ffmpeg -i IN OUT.wav`."
        ) from error
    if sample_rate is not None and sample_rate != rate:
        wave, rate = resample(wave, rate, sample_rate), sample_rate
    return wave, rate


def load_pcm16(
    stream: BinaryIO | bytes,
    *,
    sample_rate_in: int,
    channels: int = 1,
    sample_rate: int | None = None,
    mono: bool = True,
) -> tuple[np.ndarray, int]:
    """Reads headerless little-endian 16-bit PCM (interleaved channels), e.g. from stdin.

    Returns and raises as `load_audio`; an odd number of bytes or a partial frame is an AudioError.
    """
    _check_rate(sample_rate_in, "sample_rate_in")
    if sample_rate is not None:
        _check_rate(sample_rate, "sample_rate")
    if channels < 1:
        raise AudioError(f"channels: got {channels}, wanted 1 or more.")
    name = "raw PCM" if isinstance(stream, bytes) else _describe(stream)
    data = stream if isinstance(stream, bytes) else stream.read()
    if not data:
        raise AudioError(f"{name}: no samples. Pipe in 16-bit little-endian PCM.")
    if len(data) % (2 * channels):
        raise AudioError(
            f"{name}: {len(data)} bytes are not a whole number of {channels}-channel 16-bit "
            "frames. Check the number of channels and that the sender writes 16-bit PCM."
        )
    frames = np.frombuffer(data, dtype="<i2").reshape(-1, channels).astype(np.float32) / 32768.0
    wave = frames.mean(axis=1, dtype=np.float32) if mono else np.ascontiguousarray(frames.T)
    if sample_rate is None:
        return wave, sample_rate_in
    return resample(wave, sample_rate_in, sample_rate), sample_rate


def pcm16_bytes(wav: np.ndarray | torch.Tensor) -> tuple[bytes, int]:
    """Wave `[n]` or `[channels, n]` -> (interleaved little-endian 16-bit PCM, samples clipped)."""
    frames, clipped = _clip(_frames(wav))
    return np.clip(np.rint(frames * 32768.0), -32768, 32767).astype("<i2").tobytes(), clipped


def resampled_length(num_samples: int, sr_in: int, sr_out: int) -> int:
    """Samples that `resample` returns: the nearest whole number (ties up), at least 1."""
    if num_samples == 0:
        return 0
    return max(1, (2 * num_samples * sr_out + sr_in) // (2 * sr_in))


def resample(x: Wave, sr_in: int, sr_out: int) -> Wave:
    """Resamples along the last axis.

    Args:
        x: float array or tensor `[..., n]`; its kind, dtype and device are kept, gradients are not.
        sr_in, sr_out: Hz. Equal rates return `x` itself.

    Returns:
        `[..., resampled_length(n, sr_in, sr_out)]`. Each row is treated alone, so the result of a
        clip does not depend on what else is in the batch.

    Raises:
        AudioError: rates that are not whole numbers in 1..768000; x without axes or not float.
    """
    _check_rate(sr_in, "sr_in")
    _check_rate(sr_out, "sr_out")
    if isinstance(x, torch.Tensor):
        if not x.is_floating_point():
            raise AudioError(f"x: got dtype {x.dtype}, wanted float; divide integers by 2**15.")
        if sr_in == sr_out:
            return x
        out = resample(x.detach().to("cpu", torch.float32).numpy(), sr_in, sr_out)
        return torch.from_numpy(out).to(device=x.device, dtype=x.dtype)
    if not np.issubdtype(x.dtype, np.floating):
        raise AudioError(f"x: got dtype {x.dtype}, wanted float; divide integers by 2**15.")
    if x.ndim == 0:
        raise AudioError("x: got a single number, wanted at least one axis [n].")
    if sr_in == sr_out:
        return x
    n_out = resampled_length(x.shape[-1], sr_in, sr_out)
    num_rows = math.prod(x.shape[:-1])
    rows = np.ascontiguousarray(x.reshape(num_rows, x.shape[-1]), dtype=np.float32)
    out = np.zeros((num_rows, n_out), dtype=np.float32)
    for row, target in zip(rows, out, strict=True):
        if n_out:
            # soxr gives 0 samples for inputs shorter than one output sample: the zeros stay.
            y = soxr.resample(row, sr_in, sr_out, quality="HQ")[:n_out]
            target[: len(y)] = y
    return out.reshape(*x.shape[:-1], n_out).astype(x.dtype, copy=False)


def save_audio(
    target: str | os.PathLike[str] | BinaryIO,
    wav: np.ndarray | torch.Tensor,
    sample_rate: int,
    subtype: str | None = "PCM_16",
    *,
    format: str | None = None,
) -> int:
    """Writes an audio file; samples outside [-1, 1] are clipped, never wrapped.

    Args:
        target: path ending in .wav, .flac, .ogg, .opus or .mp3, or a binary file object.
        wav: `[n]`, `[channels, n]`, or with further leading axes of size 1 (a decoded `[1, 1, n]`).
        sample_rate: Hz.
        subtype: sample format of wav and flac (PCM_16, PCM_24; wav also FLOAT, which is not
            clipped). Ogg, Opus and mp3 have one of their own and ignore PCM_16.
        format: extension that says the format when `target` is a file object (default ".wav").

    Returns:
        Number of clipped samples.

    Raises:
        AudioError: unknown extension, no samples, NaN or inf, folder missing; shape, rate or
            subtype that the format cannot hold.
    """
    _check_rate(sample_rate, "sample_rate")
    name = _describe(target)
    if isinstance(target, str | os.PathLike):
        extension = Path(target).suffix.lower() if format is None else format
        folder = Path(target).parent
        if not folder.is_dir():
            raise AudioError(f"{name}: the folder {folder} does not exist; create it first.")
    else:
        extension = format or ".wav"
    extension = "." + extension.lower().lstrip(".")
    if extension not in _WRITE_FORMATS:
        raise AudioError(
            f"{name}: cannot write {extension!r}; use one of {', '.join(_WRITE_FORMATS)}."
        )
    container, own_subtype = _WRITE_FORMATS[extension]
    if subtype is None or (subtype == "PCM_16" and not own_subtype.startswith("PCM")):
        subtype = own_subtype
    if not sf.check_format(container, subtype):
        raise AudioError(f"{name}: {container} cannot hold subtype {subtype!r}; use {own_subtype}.")
    frames = _frames(wav)
    clipped = 0
    if subtype not in _FLOAT_SUBTYPES:
        frames, clipped = _clip(frames)
    handle = os.fspath(target) if isinstance(target, str | os.PathLike) else target
    try:
        with sf.SoundFile(
            handle, "w", sample_rate, frames.shape[1], subtype, format=container
        ) as file:
            for start in range(0, len(frames), BLOCK_FRAMES):
                file.write(frames[start : start + BLOCK_FRAMES])
    except (sf.LibsndfileError, OSError) as error:
        raise AudioError(
            f"{name}: cannot be written as {container}/{subtype} with {frames.shape[1]} channels "
            f"at {sample_rate} Hz ({error}). Check that the place is writable and that the format "
            "allows this rate (Opus: 8, 12, 16, 24, 48 kHz; mp3: up to 48 kHz)."
        ) from error
    return clipped


def _describe(source: Any) -> str:
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    return str(getattr(source, "name", "<audio stream>"))


def _check_rate(value: int, argument: str) -> None:
    if (
        not isinstance(value, int | np.integer)
        or isinstance(value, bool)
        or not 1 <= value <= _MAX_SAMPLE_RATE
    ):
        raise AudioError(
            f"{argument}: got {value!r}, wanted a whole number of Hz in 1..{_MAX_SAMPLE_RATE}."
        )


def _readable(source: Source, name: str) -> Any:
    """Something libsndfile can open, after the checks whose errors it words badly."""
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        if path.is_dir():
            raise AudioError(f"{name}: is a folder, wanted an audio file.")
        if not path.exists():
            raise AudioError(f"{name}: no such file. Check the path (now in {Path.cwd()}).")
        if not os.access(path, os.R_OK):
            raise AudioError(f"{name}: no permission to read it; change its mode or owner.")
        if path.is_file():
            if path.stat().st_size == 0:
                raise AudioError(f"{name}: the file is empty (0 bytes); copy or record it anew.")
            return os.fspath(path)
        source = io.BytesIO(path.read_bytes())
    if not hasattr(source, "read"):
        raise AudioError(f"source: got {type(source).__name__}, wanted a path or a binary file.")
    seekable = getattr(source, "seekable", None)
    if seekable is None or not seekable():
        source = io.BytesIO(source.read())
    here = source.tell()
    if source.seek(0, io.SEEK_END) == here:
        raise AudioError(f"{name}: the stream is empty (0 bytes); check what writes to it.")
    source.seek(here)
    return source


def _read_blocks(file: sf.SoundFile, mono: bool, name: str) -> np.ndarray:
    """Decodes to `[n]` (channel mean) or `[channels, n]`, checking each block.

    The header's frame count is only compared, never allocated: a damaged one may claim terabytes.
    """
    blocks: list[np.ndarray] = []
    total = 0
    while True:
        block = file.read(BLOCK_FRAMES, dtype="float32", always_2d=True)
        if not len(block):
            break
        if not np.isfinite(block).all():
            bad = total + int(np.argmax(~np.isfinite(block).all(axis=1)))
            raise AudioError(
                f"{name}: NaN or infinite sample at {bad / file.samplerate:.3f} s (frame {bad}); "
                "repair the program that wrote it, or replace such samples by 0 and save again."
            )
        total += len(block)
        blocks.append(block.mean(axis=1, dtype=np.float32) if mono else block.T)
    short = _SHORT_DATA.search(file.extra_info)
    announced = file.frames
    if short and int(short[1]) not in _STREAMING_SIZES and int(short[1]) > int(short[2]):
        announced = total * int(short[1]) // max(int(short[2]), 1)
    if total < announced:
        raise AudioError(
            f"{name}: truncated: its header announces {announced} frames, {total} could be read. "
            "Copy it anew; to keep what is there, rewrite it, e.g. `ffmpeg -i IN OUT.wav`."
        )
    if not total:
        raise AudioError(f"{name}: holds no samples (length 0); leave it out or record it anew.")
    return np.ascontiguousarray(np.concatenate(blocks, axis=-1))


def _frames(wav: np.ndarray | torch.Tensor) -> np.ndarray:
    """float32 `[n, channels]`, the layout files have."""
    if isinstance(wav, torch.Tensor):
        wav = wav.detach().to("cpu", torch.float32).numpy()
    wave = np.asarray(wav)
    if not np.issubdtype(wave.dtype, np.floating):
        raise AudioError(f"wav: got dtype {wave.dtype}, wanted float; divide integers by 2**15.")
    shape = wave.shape
    while wave.ndim > 2 and wave.shape[0] == 1:
        wave = wave[0]
    if wave.ndim not in (1, 2):
        raise AudioError(
            f"wav: got shape {list(shape)}, wanted [n] or [channels, n]: save one clip."
        )
    frames = wave[:, None] if wave.ndim == 1 else wave.T
    if not frames.size:
        raise AudioError(f"wav: got shape {list(shape)}: no samples to write.")
    if frames.shape[1] > 64:
        raise AudioError(
            f"wav: got {frames.shape[1]} channels from shape {list(shape)}, wanted at most 64; "
            "if the shape is [n, channels], transpose it."
        )
    if not np.isfinite(frames).all():
        raise AudioError("wav: has NaN or infinite samples; find where they arise before saving.")
    return np.ascontiguousarray(frames, dtype=np.float32)


def _clip(frames: np.ndarray) -> tuple[np.ndarray, int]:
    over = int(np.count_nonzero(np.abs(frames) > 1.0))
    return (np.clip(frames, -1.0, 1.0), over) if over else (frames, 0)
