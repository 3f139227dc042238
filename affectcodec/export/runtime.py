# SPDX-License-Identifier: Apache-2.0
"""The exported graphs under ONNX Runtime, as engines of streams.

    encoder = StreamingEncoder(codec, engine=OnnxEncoder(codec, folder))

The quantizer between them is the codec's own: the CPU kernels, or plain PyTorch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from affectcodec.codec import AffectCodec
from affectcodec.export.onnx import FORMAT, GRAPHS, _require
from affectcodec.streaming.engine import Arrays, Floats, Ints, check_slots
from affectcodec.streaming.state import checked_arrays
from affectcodec.streaming.whole import EngineCodec

_DTYPES = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(int64)": np.int64}


class _OnnxEngine:
    """State of all slots as arrays ``[slots, ...]``; a step runs the slots that have a frame."""

    name = "onnx"
    graph: str

    def __init__(
        self, codec: AffectCodec, folder: str | Path, slots: int = 1, threads: int = 1
    ) -> None:
        _require("onnxruntime")
        import onnxruntime

        check_slots(slots)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        path = Path(folder) / f"{self.graph}.onnx"
        self.session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        found = self.session.get_modelmeta().custom_metadata_map.get("affectcodec", "{}")
        about = json.loads(found)
        if about.get("format") != FORMAT or about.get("graph") != self.graph:
            raise ValueError(f"{path}: no graph of this format; export it anew")
        if about["fingerprint"] != codec.fingerprint:
            raise ValueError(
                f"{path}: of codec {about['fingerprint']}, this one is {codec.fingerprint}"
            )
        self.codec = codec
        self.slots = slots
        inputs = {node.name: node for node in self.session.get_inputs()}
        inputs.pop(GRAPHS[self.graph][0])
        self._state = {
            name: np.zeros((slots, *node.shape[1:]), _DTYPES[node.type])
            for name, node in inputs.items()
        }

    def reset(self, slot: int) -> None:
        for value in self._state.values():
            value[slot] = 0

    def state(self, slot: int) -> Arrays:
        return {name: value[slot].copy() for name, value in self._state.items()}

    def load_state(self, slot: int, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        for name, array in checked_arrays(arrays, self.state(slot)).items():
            self._state[name][slot] = array

    def _run(self, slots: Sequence[int], counts: Sequence[int], frames: Floats) -> Floats:
        source = GRAPHS[self.graph][0]
        first = np.cumsum([0, *counts])
        results: list[Floats] = [frames[0]] * len(frames)
        for turn in range(max(counts, default=0)):
            active = [i for i, count in enumerate(counts) if count > turn]
            rows = [int(first[i]) + turn for i in active]
            own = [slots[i] for i in active]
            feed = {source: frames[rows], **{k: v[own] for k, v in self._state.items()}}
            out, *state = self.session.run(None, feed)
            for (_, old), new in zip(self._state.items(), state, strict=True):
                old[own] = new
            for row, value in zip(rows, out, strict=True):
                results[row] = value
        return np.stack(results)


class OnnxEncoder(_OnnxEngine):
    """Audio to tokens."""

    graph = "encoder"

    def encode(self, slots: Sequence[int], counts: Sequence[int], pcm: Floats) -> Ints:
        latent = torch.from_numpy(self._run(slots, counts, pcm))
        with torch.no_grad():
            tokens = self.codec.quantizer.encode(latent[:, None], channels_last=True)
        return tokens[..., 0].numpy()


class OnnxDecoder(_OnnxEngine):
    """Latents to audio."""

    graph = "decoder"

    def dequantize(self, tokens: Ints, stages: Ints) -> Floats:
        with torch.no_grad():
            latent = self.codec.quantizer.decode(
                torch.from_numpy(np.ascontiguousarray(tokens))[..., None],
                torch.from_numpy(np.ascontiguousarray(stages)),
                channels_last=True,
            )
        return latent[:, 0].numpy()

    def synthesize(self, slots: Sequence[int], counts: Sequence[int], latent: Floats) -> Floats:
        return self._run(slots, counts, latent)


class OnnxCodec(EngineCodec):
    """Whole clips through the exported graphs, by the methods that ``AffectCodec`` has.

    Args:
        codec: the codec that was exported.
        folder: where its graphs lie.
        slots: clips that are coded side by side.
        threads: threads inside an operator.
    """

    def __init__(
        self, codec: AffectCodec, folder: str | Path, *, slots: int = 8, threads: int = 1
    ) -> None:
        super().__init__(
            codec,
            OnnxEncoder(codec, folder, slots, threads),
            OnnxDecoder(codec, folder, slots, threads),
        )
