# SPDX-License-Identifier: Apache-2.0
"""What computes a step of many streams, and how one is chosen.

A step takes ``R`` frames of some slots: ``slots [n]`` names each slot once, ``counts [n]`` says how
many frames of it come, and the frames lie in that order in arrays whose first dimension is ``R``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from affectcodec.codec import AffectCodec

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.signedinteger[Any]]
Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class StreamLatency:
    """Algorithmic latency in samples, by its parts.

    Attributes:
        parts: samples of each part: ``frame`` (a token is complete when its hop is), ``packet``
            (frames that wait for others of their packet), ``overlap`` (synthesis windows of the
            next frame reach into the last hop).
        sample_rate: in Hz.
    """

    parts: Mapping[str, int]
    sample_rate: int

    @property
    def samples(self) -> int:
        """Total in samples."""
        return sum(self.parts.values())

    @property
    def milliseconds(self) -> float:
        """Total in milliseconds."""
        return 1000 * self.samples / self.sample_rate


class Engine(Protocol):
    """One direction of coding for a fixed number of slots."""

    name: str
    slots: int

    def reset(self, slot: int) -> None:
        """Put a slot at the start of a stream."""

    def state(self, slot: int) -> Arrays:
        """Everything a slot remembers, as arrays that are not shared."""

    def load_state(self, slot: int, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Inverse of :meth:`state`.

        Raises:
            StateError: if names, shapes or dtypes do not fit; the slot is unchanged then.
        """


class EncoderEngine(Engine, Protocol):
    def encode(self, slots: Sequence[int], counts: Sequence[int], pcm: Floats) -> Ints:
        """Tokens ``[R, K]`` of frames ``pcm [R, hop]``; -1 marks a frame whose latent is NaN."""


class DecoderEngine(Engine, Protocol):
    def dequantize(self, tokens: Ints, stages: Ints) -> Floats:
        """Latents ``[R, D]`` of tokens ``[R, K]`` with ``stages [R, G]`` active ones."""

    def synthesize(self, slots: Sequence[int], counts: Sequence[int], latent: Floats) -> Floats:
        """Audio ``[R, hop]`` of latents ``[R, D]``, one hop late."""


NATIVE = ("native", "native-bfloat16")
ENGINES = ("auto", *NATIVE, "torch", "torch-compiled")


def check_slots(slots: int) -> None:
    """Refuse a slot count that is no positive integer."""
    if not isinstance(slots, int) or isinstance(slots, bool) or slots < 1:
        raise ValueError(f"slots: wanted a positive number of streams, got {slots!r}")


def choose_engine(codec: AffectCodec, name: str) -> str:
    """The engine that serves for a name as users give it.

    ``"auto"`` is the native runtime where there is one and the codec lies on the CPU.

    Raises:
        ValueError: on an unknown name.
        RuntimeUnavailable: if the native runtime is asked for by name and cannot serve.
    """
    if name not in ENGINES:
        raise ValueError(f"engine: wanted one of {list(ENGINES)}, got {name!r}")
    if name.startswith("torch"):
        return name
    from affectcodec.runtime.native import RuntimeUnavailable, why_unavailable

    reason = why_unavailable(codec)
    if name == "auto":
        return "torch" if reason or codec.device.type != "cpu" else "native"
    if reason:
        raise RuntimeUnavailable(f"engine: {name!r} cannot serve: {reason}; use 'auto'")
    return name


def make_encoder(
    codec: AffectCodec, name: str | EncoderEngine, slots: int, threads: int
) -> EncoderEngine:
    """The engine of an encoder, by its name, or one that is there already."""
    if not isinstance(name, str):
        return _given(name, slots)
    name = choose_engine(codec, name)
    if name.startswith("torch"):
        from affectcodec.streaming.torch_engine import TorchEncoder

        return TorchEncoder(codec, slots, compile=name == "torch-compiled")
    from affectcodec.runtime.native import NativeEncoder

    return NativeEncoder(codec, slots, threads, precision_of(name))


def make_decoder(
    codec: AffectCodec, name: str | DecoderEngine, slots: int, threads: int
) -> DecoderEngine:
    """The engine of a decoder, by its name, or one that is there already."""
    if not isinstance(name, str):
        return _given(name, slots)
    name = choose_engine(codec, name)
    if name.startswith("torch"):
        from affectcodec.streaming.torch_engine import TorchDecoder

        return TorchDecoder(codec, slots, compile=name == "torch-compiled")
    from affectcodec.runtime.native import NativeDecoder

    return NativeDecoder(codec, slots, threads, precision_of(name))


_SomeEngine = TypeVar("_SomeEngine", bound=Engine)


def _given(engine: _SomeEngine, slots: int) -> _SomeEngine:
    if engine.slots != slots:
        raise ValueError(f"engine: wanted one of {slots} slots, got one of {engine.slots}")
    return engine


def precision_of(name: str) -> str:
    """Precision of the weights of a native engine, by the engine's name."""
    return "bfloat16" if name.endswith("bfloat16") else "float32"
