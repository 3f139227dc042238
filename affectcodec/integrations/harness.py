# SPDX-License-Identifier: Apache-2.0
"""Adapters for evaluation harnesses: codec classes by duck typing, and lists of files.

``HarnessCodec`` has the methods that harnesses like Codec-SUPERB call on a codec;
``resynthesize_scp`` makes the pair of lists that harnesses like VERSA compare.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from affectcodec.audio import load_audio, resample, save_audio
from affectcodec.codec import AffectCodec
from affectcodec.config import StageSpec
from affectcodec.tokens import Tokens


@dataclass
class ExtractedUnit:
    """Codes ``[K, T]`` of a clip, and what makes audio of them."""

    unit: torch.Tensor
    stuff_for_synth: Tokens


@dataclass
class BatchExtractedUnit:
    """The same of several clips."""

    units: list[torch.Tensor]
    stuff_for_synth: list[Tokens]
    batch_size: int


class HarnessCodec:
    """A codec of one rate. Clips are mappings: ``{"id", "audio": {"array", "sampling_rate"}}``.

    Args:
        codec: an ``AffectCodec``, a folder, or the name of shipped weights.
        stages, kbps: as in ``AffectCodec.encode``.
        folder: where ``synth(..., local_save=True)`` writes.
    """

    supports_decode = True

    def __init__(
        self,
        codec: AffectCodec | str | None = None,
        *,
        stages: StageSpec = None,
        kbps: float | None = None,
        folder: str | Path = "resynthesized",
    ) -> None:
        self.model = codec if isinstance(codec, AffectCodec) else AffectCodec.from_pretrained(codec)
        self.stages, self.kbps, self.folder = stages, kbps, Path(folder)
        self.sampling_rate = self.model.config.sample_rate
        self.setting = f"affectcodec-{self.model.fingerprint}"

    def extract_unit(self, data: dict[str, Any]) -> ExtractedUnit:
        """Codes of one clip, at whatever rate it is.

        Raises:
            ValueError: as ``AffectCodec.encode``.
        """
        audio = data["audio"]
        wave = np.asarray(audio["array"], dtype=np.float32)
        wave = wave.mean(0) if wave.ndim == 2 else wave
        rate = int(audio.get("sampling_rate") or self.sampling_rate)
        tokens = self.model.encode(wave, rate, stages=self.stages, kbps=self.kbps)
        return ExtractedUnit(tokens.codes[0].long(), tokens)

    def decode_unit(self, stuff_for_synth: Tokens) -> np.ndarray:
        """Audio ``[N]`` at ``sampling_rate``."""
        return self.model.decode(stuff_for_synth)[0, 0].cpu().numpy()

    def synth(self, data: dict[str, Any], local_save: bool = True) -> dict[str, Any]:
        """``data`` with its codes as ``unit`` and its audio coded, at the rate it came in."""
        found = self.extract_unit(data)
        rate = int(data["audio"].get("sampling_rate") or self.sampling_rate)
        wave = np.asarray(
            resample(self.decode_unit(found.stuff_for_synth), self.sampling_rate, rate)
        )
        data["unit"] = found.unit
        if local_save:
            # The id may come from anywhere; only its last part may name a file.
            path = self.folder / f"{Path(str(data.get('id', 'clip'))).name or 'clip'}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            save_audio(path, wave, rate)
            data["audio"] = str(path)
        else:
            data["audio"] = {"array": wave, "sampling_rate": rate}
        return data

    def batch_extract_unit(self, data_list: Sequence[dict[str, Any]]) -> BatchExtractedUnit:
        """Codes of several clips."""
        found = [self.extract_unit(data) for data in data_list]
        return BatchExtractedUnit(
            [item.unit for item in found], [item.stuff_for_synth for item in found], len(found)
        )

    def batch_decode_unit(self, batch: BatchExtractedUnit) -> list[np.ndarray]:
        """Audio of several clips."""
        return [self.decode_unit(item) for item in batch.stuff_for_synth]

    def batch_synth(
        self, data_list: Sequence[dict[str, Any]], local_save: bool = True
    ) -> list[dict[str, Any]]:
        """:meth:`synth` of several clips."""
        return [self.synth(data, local_save) for data in data_list]


def resynthesize_scp(
    scp: str | Path,
    folder: str | Path,
    codec: AffectCodec | str | None = None,
    *,
    stages: StageSpec = None,
    kbps: float | None = None,
    progress: bool = True,
) -> Path:
    """Code every file of a Kaldi list and write the list of the results.

    Args:
        scp: lines ``NAME PATH``.
        folder: gets ``NAME.wav``, as long and at the rate of its original, and ``wav.scp``.

    Returns:
        The path of the new list, to give to a harness beside ``scp``.

    Raises:
        ValueError: on a line of another form or a name that is no file name.
        AudioError: if a file cannot be read.
    """
    adapter = HarnessCodec(codec, stages=stages, kbps=kbps)
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, line in enumerate(Path(scp).read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        name, _, path = line.strip().partition(" ")
        if not path or Path(name).name != name:
            raise ValueError(f"{scp} line {number}: wanted NAME PATH, got {line!r}")
        rows.append((name, path.strip()))
    listed = []
    for name, path in tqdm(rows, disable=not progress, unit="clip"):
        wave, rate = load_audio(path)
        made = adapter.synth({"audio": {"array": wave, "sampling_rate": rate}}, local_save=False)
        out = np.zeros_like(wave)
        coded = made["audio"]["array"][: len(wave)]
        out[: len(coded)] = coded
        save_audio(target / f"{name}.wav", out, rate)
        listed.append(f"{name} {target / f'{name}.wav'}\n")
    (target / "wav.scp").write_text("".join(listed), encoding="utf-8")
    return target / "wav.scp"
