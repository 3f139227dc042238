# SPDX-License-Identifier: Apache-2.0
"""Made-up corpora, with broken clips among the good ones."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import soundfile as sf

from affectcodec.codec import AffectCodec
from affectcodec.corpus.plan import Settings
from tests.codec_fixtures import speech_like, tiny_codec


def wav_bytes(samples: int, seed: int = 0, rate: int = 16000) -> bytes:
    """An encoded clip."""
    sink = io.BytesIO()
    sf.write(sink, speech_like(samples, seed % 5, rate).numpy(), rate, format="WAV")
    return sink.getvalue()


def make_folder(root: Path, count: int) -> Path:
    """Clips of different lengths in two folders, every fifth one broken."""
    for index in range(count):
        path = root / f"speaker{index % 2}" / f"clip{index:04d}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        good = wav_bytes(700 + 311 * (index % 7), index)
        path.write_bytes(b"RIFF of nothing" if index % 5 == 4 else good)
    return root


def make_tar(path: Path, count: int) -> Path:
    """A WebDataset shard with JSON and text beside each clip."""
    with tarfile.open(path, "w") as archive:
        for index in range(count):
            members = {
                "wav": wav_bytes(900 + 100 * index, index),
                "json": json.dumps({"speaker": f"s{index}"}).encode(),
                "txt": f"text {index}".encode(),
            }
            if index == 2:
                del members["wav"]
            for extension, data in members.items():
                member = tarfile.TarInfo(f"clip{index}.{extension}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return path


def save_codec(folder: Path) -> AffectCodec:
    """A tiny codec and its folder."""
    codec = tiny_codec()
    codec.save_pretrained(folder)
    return AffectCodec.from_pretrained(folder)


def settings_for(source: Path, weights: Path, codec: AffectCodec, **changes) -> Settings:
    """Settings with small parts."""
    values = {
        "source": str(source),
        "weights": str(weights),
        "fingerprint": codec.fingerprint,
        "stages": codec.config.quantizer.resolve_stages(2),
        "clips_per_part": 4,
    }
    return Settings(**{**values, **changes})


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file of a finished run but the lock."""
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name != ".lock"
    }


def noise(samples: int) -> np.ndarray:
    """White noise."""
    return np.random.default_rng(0).standard_normal(samples).astype(np.float32) * 0.1
