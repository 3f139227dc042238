# SPDX-License-Identifier: Apache-2.0
"""Made-up speech and a corpus of it: two emotions are told apart by pitch, level and pace."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from affectcodec.audio import save_audio

# emotion -> (F0 in Hz, excursion in Hz, level, syllables a second)
EMOTIONS = {
    "angry": (220.0, 60.0, 0.15, 5.0),
    "neutral": (130.0, 10.0, 0.05, 3.5),
    "sad": (105.0, 5.0, 0.02, 2.0),
}


def speech(emotion: str, seed: int, seconds: float = 1.2) -> np.ndarray:
    """Harmonics in syllables; the seed moves every parameter a little."""
    rng = np.random.default_rng(seed)
    base, swing, level, pace = np.array(EMOTIONS[emotion]) * rng.uniform(0.93, 1.07, 4)
    t = np.arange(int(16000 * seconds)) / 16000
    f0 = base + swing * np.sin(2 * np.pi * 1.3 * t + seed)
    phase = 2 * np.pi * np.cumsum(f0) / 16000
    tone = sum(np.sin(k * phase) / k for k in range(1, 20))
    syllables = np.clip(np.sin(2 * np.pi * pace * t) + 0.4, 0, None)
    noise = 0.05 * rng.standard_normal(len(t))
    return np.asarray(level * syllables * (tone + noise), dtype=np.float32)


def voice(seconds: float = 1.5) -> np.ndarray:
    """A monotone at 130 Hz in syllables."""
    t = np.arange(int(seconds * 16000)) / 16000
    tone = sum(np.sin(2 * np.pi * 130 * k * t) / k for k in range(1, 20))
    return np.asarray(0.1 * tone * np.clip(np.sin(2 * np.pi * 2 * t) + 0.3, 0, 1), dtype="f4")


def corpus(folder: Path, *, train: int = 4, test: int = 2, takes: int = 2) -> Path:
    """Manifest of `train` + `test` speakers with `takes` clips of each emotion, as WAV."""
    lines = ["path,dataset,speaker,gender,language,emotion,transcript,split"]
    for speaker in range(train + test):
        split = "train" if speaker < train else "test"
        for i, emotion in enumerate(EMOTIONS):
            for take in range(takes):
                name = f"s{speaker}-{emotion}-{take}.wav"
                wav = speech(emotion, 100 * speaker + 10 * i + take)
                save_audio(folder / name, wav, 16000)
                gender = "fm"[speaker % 2]
                lines.append(f"{name},made,s{speaker},{gender},en,{emotion},,{split}")
    path = folder / "manifest.csv"
    path.write_text("\n".join(lines) + "\n")
    return path
