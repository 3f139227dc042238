# SPDX-License-Identifier: Apache-2.0
"""Speaker similarity: cosine of speaker embeddings of original and coded speech.

The network is the generalised end-to-end speaker encoder of Wan et al. 2018 (three LSTM layers over
40 mel bands) with the weights that come inside the package resemblyzer (MIT). The package itself is
not imported: it wants a voice activity detector that does not install everywhere, and activity is
decided here by the original. Same speaker, other words: about 0.8; other speaker: about 0.5.
"""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path

import numpy as np
import torch
from torch import nn

from affectcodec.evaluation.alignment import HOP, SAMPLE_RATE, WINDOW

NUM_MELS = 40
WIDTH = 256
FRAMES = 160  # 1.6 s, the length that the network was trained on
LEVEL_DB = -30.0  # quiet clips are raised to this, as in training
_STEP = 77  # frames between the beginnings of neighbouring pieces
_COVERAGE = 0.75  # a last piece with less speech than this is left out


class SpeakerNetwork(nn.Module):
    """Mel power `[pieces, 160, 40]` -> unit vectors `[pieces, 256]`."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(NUM_MELS, WIDTH, num_layers=3, batch_first=True)
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, mels: torch.Tensor) -> torch.Tensor:
        hidden = self.lstm(mels)[1][0][-1]
        return nn.functional.normalize(torch.relu(self.linear(hidden)), dim=1)


@functools.cache
def _network() -> SpeakerNetwork:
    spec = importlib.util.find_spec("resemblyzer")
    path = Path(spec.origin).parent / "pretrained.pt" if spec and spec.origin else None
    if path is None or not path.is_file():
        raise ImportError(
            "speaker similarity needs the weights of the package resemblyzer: "
            "pip install --no-deps resemblyzer"
        )
    state = torch.load(path, map_location="cpu", weights_only=True)["model_state"]
    network = SpeakerNetwork()
    network.load_state_dict({key: state[key] for key in network.state_dict()})
    return network.eval()


@functools.cache
def _mel_filters() -> np.ndarray:
    """`[40, 201]` triangles of unit area on Slaney's mel scale (linear up to 1 kHz)."""

    def to_mel(hz: float) -> float:
        return hz * 3 / 200 if hz < 1000 else 15 + 27 * np.log(hz / 1000) / np.log(6.4)

    mels = np.linspace(0.0, to_mel(SAMPLE_RATE / 2), NUM_MELS + 2)
    log_part = 1000.0 * np.exp((mels - 15) * np.log(6.4) / 27)
    edges = np.where(mels < 15, mels * 200 / 3, log_part)
    hz = np.fft.rfftfreq(WINDOW, 1 / SAMPLE_RATE)
    lower, centre, upper = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (hz - lower) / (centre - lower), (upper - hz) / (upper - centre)
    filters = np.maximum(0.0, np.minimum(rising, falling)) * 2.0 / (upper - lower)
    filters.setflags(write=False)
    return filters


def mel_power(wav: np.ndarray) -> np.ndarray:
    """`[n]` at 16 kHz -> float32 `[1 + n // 160, 40]`, 25 ms Hann windows centred each 10 ms."""
    padded = np.pad(np.asarray(wav, np.float64), WINDOW // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP]
    power = np.abs(np.fft.rfft(frames * np.hanning(WINDOW + 1)[:-1], axis=1)) ** 2
    return np.asarray(power @ _mel_filters().T, dtype=np.float32)


def embed(wav: np.ndarray) -> np.ndarray:
    """Unit vector float32 `[256]` of the speech in a 16 kHz wave `[n]`.

    Raises:
        ValueError: the wave is silent.
        ImportError: the weights are not installed.
    """
    wave = np.asarray(wav, dtype=np.float64)
    level = np.sqrt(np.mean(wave**2)) if len(wave) else 0.0
    if not level > 1e-8:
        raise ValueError("speaker: the wave is silent")
    wave = wave * max(1.0, 10.0 ** (LEVEL_DB / 20.0) / level)
    frames = -(-(len(wave) + 1) // HOP)
    starts = list(range(0, max(1, frames - FRAMES + _STEP + 1), _STEP))
    if len(starts) > 1 and (len(wave) - starts[-1] * HOP) / (FRAMES * HOP) < _COVERAGE:
        starts.pop()
    wave = np.pad(wave, (0, max(0, (starts[-1] + FRAMES) * HOP - len(wave))))
    mels = mel_power(wave)
    pieces = torch.from_numpy(np.stack([mels[start : start + FRAMES] for start in starts]))
    with torch.inference_mode():
        mean = _network()(pieces).mean(dim=0)
        return np.asarray(nn.functional.normalize(mean, dim=0).numpy())


def similarity(one: np.ndarray, other: np.ndarray) -> float:
    """Cosine of two embeddings."""
    scale = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(np.dot(one, other)) / scale if scale > 0 else float("nan")
