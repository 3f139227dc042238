# SPDX-License-Identifier: Apache-2.0
"""A corpus of everything that should not be in a corpus, and what has to become of it."""

from __future__ import annotations

import csv
import io
import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from affectcodec.training.data import Clip
from tests.codec_fixtures import speech_like

RATE = 16000
SKIPPED, NOTED, USED = "skipped", "noted", "used"


def wav_bytes(wave: np.ndarray, rate: int = RATE, **how: Any) -> bytes:
    """A sound file in memory."""
    out = io.BytesIO()
    soundfile.write(out, wave, rate, **{"format": "WAV", **how})
    return out.getvalue()


class CrashingClip(Clip):
    """A clip whose decoder takes the process with it."""

    def open(self) -> str:
        os._exit(1)


def write_bad_corpus(folder: Path) -> tuple[Path, dict[str, tuple[str, str]]]:
    """A manifest of bad clips between good ones.

    Returns:
        the manifest, and for each item (its end of path, or row number) what must become of it and
        words of the reason.
    """
    folder.mkdir(parents=True, exist_ok=True)
    speech = speech_like(2 * RATE, 0).numpy()
    rng = np.random.default_rng(0)
    files: dict[str, tuple[bytes | None, str, str]] = {}

    def add(name: str, data: bytes | None, what: str, words: str) -> None:
        files[name] = (data, what, words)

    def nth(seed: int) -> np.ndarray:
        return speech_like(RATE, seed).numpy()

    good = wav_bytes(speech)
    add("good.wav", good, USED, "")
    add("empty.wav", b"", SKIPPED, "empty")
    add("header-only.wav", wav_bytes(np.zeros(0, np.float32)), SKIPPED, "holds no samples")
    add("one-sample.wav", wav_bytes(speech[:1]), SKIPPED, "1 samples, less than two frames")
    add("639-samples.wav", wav_bytes(speech[:639]), SKIPPED, "639 samples, less than two")
    nan = speech.copy()
    nan[777] = np.nan
    add("nan.wav", wav_bytes(nan, subtype="FLOAT"), SKIPPED, "NaN or infinite sample")
    infinite = speech.copy()
    infinite[5] = np.inf
    add("infinite.wav", wav_bytes(infinite, subtype="FLOAT"), SKIPPED, "NaN or infinite sample")
    add("huge.wav", wav_bytes(speech * 1e30, subtype="FLOAT"), SKIPPED, "its samples reach")
    integers = wav_bytes(speech * 32768, subtype="FLOAT")
    add("integers.wav", integers, SKIPPED, "were integers stored as floats")
    add("silence.wav", wav_bytes(np.zeros(RATE, np.float32)), SKIPPED, "no active speech")
    add("constant.wav", wav_bytes(np.full(RATE, 0.5, np.float32)), SKIPPED, "or a constant")
    faint = wav_bytes(5e-5 * rng.standard_normal(RATE).astype(np.float32), subtype="FLOAT")
    add("faint.wav", faint, SKIPPED, "no active speech")
    add("clipped.wav", wav_bytes(np.clip(9 * nth(1), -1, 1)), NOTED, "clipped")
    add("8khz.wav", wav_bytes(nth(2)[::2], 8000), NOTED, "has 8000 Hz")
    surround = np.repeat(nth(3)[:, None], 6, 1)
    add("surround.wav", wav_bytes(surround, 96000), NOTED, "6 channels")
    add("wav-called.mp3", wav_bytes(nth(4)), NOTED, "its name says .mp3, its content WAV")
    add("text.wav", b"this is not sound\n" * 99, SKIPPED, "cannot be decoded")
    add("text.flac", b"nor is this\n" * 99, SKIPPED, "cannot be decoded")
    noise = rng.integers(0, 256, 5000, dtype=np.uint8).tobytes()
    add("noise.ogg", noise, SKIPPED, "cannot be decoded")
    add("noise.mp3", noise, SKIPPED, "")
    add("truncated.wav", good[: len(good) // 2], SKIPPED, "truncated")
    flac = wav_bytes(nth(5), format="FLAC")
    add("truncated.flac", flac[: len(flac) // 2], SKIPPED, "")
    ogg = wav_bytes(nth(6), format="OGG", subtype="VORBIS")
    add("truncated.ogg", ogg[: len(ogg) // 3], SKIPPED, "")
    lying = bytearray(wav_bytes(nth(7)))
    lying[40:44] = struct.pack("<I", 0x7FFFFFF0)
    add("terabytes.wav", bytes(lying), SKIPPED, "truncated")
    slow = bytearray(wav_bytes(nth(8)))
    slow[24:28] = struct.pack("<I", 0)
    add("0hz.wav", bytes(slow), SKIPPED, "")
    add("4bit.wav", wav_bytes(nth(9), subtype="IMA_ADPCM"), USED, "")
    add("twin.wav", good, SKIPPED, "has the samples of")
    add("missing.wav", None, SKIPPED, "No such file")
    add("folder.wav", None, SKIPPED, "is a folder")
    add("pipe.wav", None, SKIPPED, "is a pipe or device")
    add("dangling.wav", None, SKIPPED, "No such file")
    add("loop.wav", None, SKIPPED, "")
    add("named\nover two lines.wav", wav_bytes(nth(10)), USED, "")
    add("latin1-\udce9.wav", wav_bytes(nth(11)), USED, "")
    add("unknown-label.wav", wav_bytes(nth(12)), NOTED, "'bored' is not one of")
    add("wrong-numbers.wav", wav_bytes(nth(13)), USED, "")
    for name, (data, _, _) in files.items():
        if data is not None:
            (folder / name).write_bytes(data)
    (folder / "folder.wav").mkdir()
    os.mkfifo(folder / "pipe.wav")
    (folder / "dangling.wav").symlink_to(folder / "nowhere.wav")
    (folder / "loop.wav").symlink_to(folder / "loop.wav")
    wants = {name: (what, words) for name, (_, what, words) in files.items()}
    manifest = folder / "manifest.csv"
    labels = {"unknown-label.wav": "bored"}
    numbers = {"wrong-numbers.wav": "loud"}
    with manifest.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "split", "dataset", "emotion", "arousal"])
        for name in files:
            writer.writerow([name, "train", "x", labels.get(name, "sad"), numbers.get(name, "0.5")])
        writer.writerow(["good.wav", "train", "x", "sad", ""])
        writer.writerow(["", "train", "x", "sad", ""])
        writer.writerow(["short-row.wav"])
        writer.writerow([*["long-row.wav", "train", "x", "sad", ""], "and", "more"])
        writer.writerow(["zero\0byte.wav", "train", "x", "sad", ""])
    wants["good.wav"] = (SKIPPED, "listed more than once")
    rows = {"the path is empty": "", "no value for 'split'": "", "more values than columns": ""}
    for words in rows:
        wants[f"row: {words}"] = (SKIPPED, words)
    return manifest, wants


def write_bad_lines(folder: Path) -> tuple[Path, list[str]]:
    """JSON lines of which one can be used; and words of the reasons of the others."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "a.wav").write_bytes(wav_bytes(speech_like(RATE, 20).numpy()))
    row = {"path": "a.wav", "split": "train", "emotion": "happy", "arousal": 0.0, "valence": None}
    lines = [
        json.dumps(row),
        "{not json",
        "[1, 2]",
        json.dumps({"split": "train"}),
        json.dumps({"path": ["a.wav"], "split": "train"}),
        json.dumps({"path": "b\0.wav", "split": "train"}),
        "",
        "[" * 100_000,
    ]
    path = folder / "list.jsonl"
    path.write_text("\n".join(lines) + "\n")
    reasons = [
        "no JSON",
        "wanted a JSON object",
        "no value for 'path'",
        "must be text",
        "zero byte",
    ]
    return path, [*reasons, "no JSON"]
