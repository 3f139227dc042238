# SPDX-License-Identifier: Apache-2.0
"""A small corpus on disk, made of tones and noise, and a run that trains on it in seconds."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from affectcodec.training.cache import Clip, ClipCache, read_manifest
from affectcodec.training.config import TrainConfig
from tests.codec_fixtures import speech_like, tiny_config

RATE = 16000


def tone(hz: float, seconds: float = 1.0, level: float = 0.2) -> np.ndarray:
    """Ten harmonics of a steady pitch."""
    t = np.arange(round(seconds * RATE)) / RATE
    wave = sum(np.cos(2 * np.pi * hz * k * t) / k for k in range(1, 11))
    return (level * wave / np.abs(wave).max()).astype(np.float32)


def write_corpus(folder: Path) -> Path:
    """Four clips that can be read and three that cannot, and their manifest."""
    (folder / "wav").mkdir(parents=True)
    noise = 0.1 * np.random.default_rng(1).standard_normal(RATE).astype(np.float32)
    sounds = {
        "speech0.wav": (speech_like(2 * RATE, 0).numpy(), "a", "happy"),
        "speech1.wav": (speech_like(RATE, 1).numpy(), "a", "sad"),
        "tone.wav": (tone(200.0), "b", ""),
        "noise.wav": (noise, "b", "bored"),
        "short.wav": (noise[:400], "b", "sad"),
        "silent.wav": (np.zeros(RATE, np.float32), "b", "sad"),
    }
    for name, (wave, _, _) in sounds.items():
        soundfile.write(folder / "wav" / name, wave, RATE)
    (folder / "wav" / "broken.wav").write_bytes(b"RIFF not a wave at all")
    manifest = folder / "manifest.csv"
    with open(manifest, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "dataset", "speaker", "emotion", "split"])
        for name, (_, dataset, emotion) in sounds.items():
            writer.writerow([f"wav/{name}", dataset, "s1", emotion, "train"])
        writer.writerow(["wav/broken.wav", "b", "s1", "sad", "train"])
        writer.writerow(["wav/speech1.wav", "a", "s1", "sad", "dev"])
    return manifest


def build_cache(folder: Path, split: str = "train", **arguments: Any) -> ClipCache:
    clips = read_manifest(folder / "manifest.csv", split)
    return cache_of(clips, folder, **arguments)


def cache_of(clips: list[Clip], folder: Path, **arguments: Any) -> ClipCache:
    return ClipCache.build(
        clips, tiny_config(), folder / "cache", progress=False, workers=1, **arguments
    )


def tiny_run(**changes: Any) -> TrainConfig:
    values: dict[str, Any] = {
        "codec": tiny_config(),
        "steps": 6,
        "batch_size": 2,
        "crop_frames": 24,
        "warmup_steps": 2,
        "decay_steps": 2,
        "stage_choices": (1, 2, 4),
        "stage_weights": (1.0, 1.0, 2.0),
        "log_every": 2,
        "eval_every": 4,
        "checkpoint_every": 3,
    }
    return TrainConfig(**{**values, **changes})


def same_tensors(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Equal names and equal bits."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
