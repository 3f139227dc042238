# SPDX-License-Identifier: Apache-2.0
"""A self-supervised speech model from the user's own disk as a teacher."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from affectcodec.audio import resample
from affectcodec.training.teachers.protocol import TeacherClip

_RATE = 16000  # of every model of this class
# The encoder of this class judges recognition after coding; a judge that teaches proves nothing.
_JUDGES = ("whisper",)


class SSLTeacher:
    """Hidden states of a wav2vec 2.0, HuBERT, WavLM or data2vec-audio (emotion2vec) class model.

    Read from a folder in the format of `transformers`, safetensors only; nothing is downloaded and
    no code of the folder is run. The model is frozen; gradients pass through it to the wave.

    Args:
        folder: holds ``config.json`` and ``model.safetensors``, and ``preprocessor_config.json``
            where the waves are to be normalised.
        layer: index into the hidden states; -1 is the last layer.
        device: where the model runs.

    Raises:
        ImportError: without the extra ``affectcodec[ssl]``.
        ValueError: if the folder holds no such model, one without safetensors, or a judge.
    """

    def __init__(
        self, folder: str | Path, *, layer: int = -1, device: torch.device | str = "cpu"
    ) -> None:
        try:
            import transformers
        except ImportError as error:
            raise ImportError(
                "a self-supervised teacher needs transformers: pip install 'affectcodec[ssl]'"
            ) from error
        path = Path(folder)
        if not (path / "config.json").is_file():
            raise ValueError(f"folder: no config.json in {path}; name the folder of a saved model")
        kind = json.loads((path / "config.json").read_text()).get("model_type")
        if kind in _JUDGES:
            raise ValueError(
                f"folder: {path} holds a {kind!r} model, which judges this codec and must not "
                "teach it; take a wav2vec2, hubert, wavlm or data2vec-audio model"
            )
        try:
            self.model: nn.Module = transformers.AutoModel.from_pretrained(
                path, local_files_only=True, use_safetensors=True, trust_remote_code=False
            )
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(f"folder: {path} cannot be loaded ({error})") from error
        config: Any = self.model.config
        if not hasattr(config, "conv_stride"):
            raise ValueError(
                f"folder: {path} holds a {kind!r} model, wanted one that reads waves "
                "(wav2vec2, hubert, wavlm, data2vec-audio)"
            )
        self.model.eval().requires_grad_(False).to(device)
        count = int(config.num_hidden_layers)
        if not -count - 1 <= layer <= count:
            raise ValueError(f"layer: wanted {-count - 1}..{count}, got {layer}")
        self.layer = layer
        self.name = f"{kind}:{path.name}"
        self.dim = int(config.hidden_size)
        self.rate: float | None = _RATE / math.prod(config.conv_stride)
        self.shortest = _receptive_field(config.conv_kernel, config.conv_stride)
        self.normalize = _normalizes(path)
        self.fingerprint = _fingerprint(path, layer)

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        return next(self.model.parameters()).device

    def embed(self, wav: Tensor) -> Tensor:
        """``wav [B, N]`` at 16 kHz to ``[B, rows, dim]``, differentiable by ``wav``.

        Clips below the model's receptive field are filled up with silence.
        """
        x = wav.to(self.device, torch.float32)
        if x.shape[1] < self.shortest:
            x = nn.functional.pad(x, (0, self.shortest - x.shape[1]))
        if self.normalize:
            x = x - x.mean(1, keepdim=True)
            x = x / torch.sqrt(x.var(1, keepdim=True, unbiased=False) + 1e-7)
        states = self.model(x, output_hidden_states=True).hidden_states
        out: Tensor = states[self.layer]
        return out

    @torch.no_grad()
    def targets(self, clip: TeacherClip) -> np.ndarray:
        """``[rows, dim]`` of a clip at any sample rate."""
        wav = np.asarray(clip.wav, np.float32)
        if clip.sample_rate != _RATE:
            wav = np.asarray(resample(wav, clip.sample_rate, _RATE))
        return self.embed(torch.from_numpy(wav)[None])[0].cpu().numpy()


def _receptive_field(kernels: list[int], strides: list[int]) -> int:
    field, step = 1, 1
    for kernel, stride in zip(kernels, strides, strict=True):
        field += (kernel - 1) * step
        step *= stride
    return field


def _normalizes(path: Path) -> bool:
    record = path / "preprocessor_config.json"
    return record.is_file() and bool(json.loads(record.read_text()).get("do_normalize", False))


def _files(path: Path) -> Iterator[Path]:
    yield from sorted(path.glob("*.safetensors"))
    for name in ("config.json", "preprocessor_config.json"):
        if (path / name).is_file():
            yield path / name


def _fingerprint(path: Path, layer: int) -> str:
    digest = hashlib.blake2b(f"ssl {layer}".encode(), digest_size=8)
    for file in _files(path):
        digest.update(file.name.encode())
        with open(file, "rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
