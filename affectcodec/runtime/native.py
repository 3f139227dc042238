# SPDX-License-Identifier: Apache-2.0
"""The native runtime as an engine of streams, and as a codec of whole clips.

Every output of a layer is a sum in an order that the layer alone decides, so tokens and samples
are one and the same, bitwise, for any chunks, any neighbours in the batch and any number of threads
on one instruction set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from affectcodec import _native
from affectcodec.codec import AffectCodec
from affectcodec.runtime.weights import (
    decoder_network,
    encoder_network,
    folded_quantizer,
    why_unsupported,
)
from affectcodec.streaming.engine import Arrays, Floats, Ints, check_slots
from affectcodec.streaming.state import StateError, checked_arrays
from affectcodec.streaming.whole import EngineCodec

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


class NativeCodec(EngineCodec):
    """Whole clips through the native runtime, by the methods that ``AffectCodec`` has.

    Args:
        codec: the codec whose weights are packed; later changes of them are not seen.
        precision: ``"float32"``, or ``"bfloat16"`` for weights of half the size.
        threads: threads a batch is shared out among; the result is the same for any number.

    Raises:
        RuntimeUnavailable: if the runtime was not built or cannot run this codec.
    """

    encoder: NativeEncoder
    decoder: NativeDecoder

    def __init__(self, codec: AffectCodec, *, precision: str = "float32", threads: int = 1) -> None:
        super().__init__(
            codec,
            NativeEncoder(codec, _CLIPS, threads, precision),
            NativeDecoder(codec, _CLIPS, threads, precision),
        )
