# SPDX-License-Identifier: Apache-2.0
"""The native runtime as an engine of streams, and as a codec of whole clips.

Every output of a layer is a sum in an order that the layer alone decides, so tokens and samples
are one and the same, bitwise, for any chunks, any neighbours in the batch and any number of threads
on one instruction set.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from affectcodec import _native
from affectcodec.codec import CHUNK_FRAMES, AffectCodec
from affectcodec.config import StageSpec
from affectcodec.runtime.weights import (
    decoder_network,
    encoder_network,
    folded_quantizer,
    why_unsupported,
)
from affectcodec.streaming.engine import Arrays, Floats, Ints, check_slots
from affectcodec.streaming.state import StateError, checked_arrays
from affectcodec.tokens import Tokens

PRECISIONS = ("float32", "bfloat16")
_CLIPS = 8  # clips of a batch that are coded side by side


class RuntimeUnavailable(RuntimeError):
    """The native runtime cannot serve here; the message says why and what to do."""


def why_unavailable(codec: AffectCodec | None = None) -> str:
    """Empty where the native runtime can serve, otherwise one sentence for the user.

    Args:
        codec: ask for this codec too, not only for the machine and the build.
    """
    runtime = _native.load("affectcodec._runtime")
    if runtime.module is None:
        return runtime.reason
    try:
        runtime.module.isa()
    except RuntimeError as error:
        return str(error)
    kernels = _native.load("affectcodec._cpu")  # folds the quantizer's weights
    if not kernels.available:
        return f"the CPU kernels are missing: {kernels.reason}"
    return "" if codec is None else why_unsupported(codec)


def _runtime(codec: AffectCodec) -> ModuleType:
    reason = why_unavailable(codec)
    module = _native.load("affectcodec._runtime").module
    if reason or module is None:
        raise RuntimeUnavailable(f"the native runtime is off: {reason}")
    return module


class _NativeEngine:
    """Slots of one direction."""

    name: str
    _impl: Any

    def __init__(self, codec: AffectCodec, slots: int, precision: str) -> None:
        check_slots(slots)
        if precision not in PRECISIONS:
            raise ValueError(f"precision: wanted one of {list(PRECISIONS)}, got {precision!r}")
        self.slots = slots
        self.config = codec.config
        self.name = "native" if precision == "float32" else f"native-{precision}"

    @property
    def slot_bytes(self) -> int:
        """Memory of one stream."""
        return int(self._impl.slot_bytes)

    @property
    def weight_bytes(self) -> int:
        """Memory of the weights, which all streams share."""
        return int(self._impl.weight_bytes)

    def reset(self, slot: int) -> None:
        self._impl.reset(slot)

    def state(self, slot: int) -> Arrays:
        ints, doubles, floats = self._impl.state(slot)
        return {"ints": ints, "doubles": doubles, "floats": floats}

    def load_state(self, slot: int, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        found = checked_arrays(arrays, self.state(slot))
        try:
            self._impl.load_state(slot, found["ints"], found["doubles"], found["floats"])
        except ValueError as error:
            raise StateError(str(error)) from error


def _indices(numbers: Sequence[int]) -> npt.NDArray[np.int32]:
    return np.asarray(numbers, np.int32)


class NativeEncoder(_NativeEngine):
    """Audio to tokens."""

    def __init__(
        self, codec: AffectCodec, slots: int, threads: int = 1, precision: str = "float32"
    ) -> None:
        super().__init__(codec, slots, precision)
        runtime = _runtime(codec)
        network = encoder_network(codec)
        description, folded = folded_quantizer(codec)
        self.token_dtype = np.int32 if codec.config.quantizer.codebook_size <= 2**31 else np.int64
        self._impl = runtime.Encoder(
            network.config,
            network.arrays,
            description,
            folded,
            slots,
            threads,
            precision == "bfloat16",
        )

    def encode(self, slots: Sequence[int], counts: Sequence[int], pcm: Floats) -> Ints:
        tokens = np.empty((len(pcm), self.config.quantizer.num_stages), self.token_dtype)
        self._impl.encode(_indices(slots), _indices(counts), np.ascontiguousarray(pcm), tokens)
        return tokens


class NativeDecoder(_NativeEngine):
    """Latents to audio."""

    def __init__(
        self, codec: AffectCodec, slots: int, threads: int = 1, precision: str = "float32"
    ) -> None:
        super().__init__(codec, slots, precision)
        runtime = _runtime(codec)
        network = decoder_network(codec)
        description, folded = folded_quantizer(codec)
        self._impl = runtime.Decoder(
            network.config,
            network.reals,
            network.arrays,
            description,
            folded,
            slots,
            threads,
            precision == "bfloat16",
        )

    def dequantize(self, tokens: Ints, stages: Ints) -> Floats:
        latent = np.empty((len(tokens), self.config.quantizer.width), np.float32)
        ready = np.ascontiguousarray(tokens)
        self._impl.dequantize(ready, np.ascontiguousarray(stages, np.int64), latent)
        return latent

    def synthesize(self, slots: Sequence[int], counts: Sequence[int], latent: Floats) -> Floats:
        audio = np.empty((len(latent), self.config.hop_length), np.float32)
        ready = np.ascontiguousarray(latent, np.float32)
        self._impl.synthesize(_indices(slots), _indices(counts), ready, audio)
        return audio


class NativeCodec:
    """Whole clips through the native runtime, by the methods that ``AffectCodec`` has.

    Args:
        codec: the codec whose weights are packed; later changes of them are not seen.
        precision: ``"float32"``, or ``"bfloat16"`` for weights of half the size.
        threads: threads a batch is shared out among; the result is the same for any number.

    Raises:
        RuntimeUnavailable: if the runtime was not built or cannot run this codec.
    """

    def __init__(self, codec: AffectCodec, *, precision: str = "float32", threads: int = 1) -> None:
        self.codec = codec
        self.config = codec.config
        self.encoder = NativeEncoder(codec, _CLIPS, threads, precision)
        self.decoder = NativeDecoder(codec, _CLIPS, threads, precision)

    def encode(
        self,
        wav: Any,
        sample_rate: int = 16000,
        *,
        lengths: Tensor | None = None,
        stages: StageSpec = None,
        kbps: float | None = None,
    ) -> Tokens:
        """As ``AffectCodec.encode``."""
        return self.codec.encode_with(
            self._encode_frames, wav, sample_rate, lengths=lengths, stages=stages, kbps=kbps
        )

    def decode(self, tokens: Tokens) -> Tensor:
        """As ``AffectCodec.decode``."""
        return self.codec.decode_with(self._decode_frames, tokens)

    def _encode_frames(self, wav: Tensor) -> Tensor:
        batch, hop = len(wav), self.config.hop_length
        frames = wav.shape[1] // hop
        pcm = wav.cpu().reshape(batch, frames, hop).numpy()
        shape = (batch, frames, self.config.quantizer.num_stages)
        codes = np.zeros(shape, self.encoder.token_dtype)
        for clips, span in _pieces(batch, frames):
            part = pcm[clips, span]
            if span.start == 0:
                for slot in range(len(part)):
                    self.encoder.reset(slot)
            counts = [part.shape[1]] * len(part)
            found = self.encoder.encode(range(len(part)), counts, part.reshape(-1, hop))
            codes[clips, span] = found.reshape(*part.shape[:2], -1)
        return torch.from_numpy(codes).transpose(1, 2).contiguous()

    def _decode_frames(self, codes: Tensor, stages: Tensor) -> Tensor:
        batch, _, frames = codes.shape
        hop = self.config.hop_length
        rows, counts = (x.cpu().transpose(1, 2).contiguous().numpy() for x in (codes, stages))
        audio = np.zeros((batch, frames, hop), np.float32)
        for clips, span in _pieces(batch, frames):
            part, kept = rows[clips, span], counts[clips, span]
            if span.start == 0:
                for slot in range(len(part)):
                    self.decoder.reset(slot)
            latent = self.decoder.dequantize(
                part.reshape(-1, part.shape[2]), kept.reshape(-1, kept.shape[2])
            )
            size = [part.shape[1]] * len(part)
            found = self.decoder.synthesize(range(len(part)), size, latent)
            audio[clips, span] = found.reshape(*part.shape[:2], hop)
        return torch.from_numpy(audio).reshape(batch, frames * hop)


def _pieces(batch: int, frames: int) -> Iterator[tuple[slice, slice]]:
    """Clips and frames of one call each, so that long clips and large batches stay small."""
    for clip in range(0, batch, _CLIPS):
        for frame in range(0, frames, CHUNK_FRAMES):
            yield slice(clip, clip + _CLIPS), slice(frame, min(frames, frame + CHUNK_FRAMES))
