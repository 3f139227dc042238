# SPDX-License-Identifier: Apache-2.0
"""What one client of the page can ask for, without any network: messages in, messages out.

Text messages are JSON objects with an ``op``; binary ones are 16-bit little-endian PCM at the
codec's rate, one channel. Nothing a client sends names a file.

| op | answer |
|---|---|
| ``clip`` | the next binary message is a whole clip: ``coded`` with its codes |
| ``decode`` with ``stages``, ``emotion`` | ``audio``, then a binary message |
| ``donor`` | ``donor``: the clip at hand gives its emotion codes to later ``swap`` decodings |
| ``live`` with ``stages`` | ``live``; binary messages are then answered by decoded ones |
| ``stop`` | ``stopped``: live coding ends |
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from affectcodec.codec import AffectCodec
from affectcodec.streaming import StreamingDecoder, StreamingEncoder
from affectcodec.tokens import Tokens

Reply = dict[str, Any] | bytes

MAX_CLIP_SECONDS = 60
MAX_LIVE_MESSAGE_SECONDS = 2
EMOTION_MODES = ("keep", "strip", "swap")


class ClientError(ValueError):
    """A message that the client should not have sent; its text goes back to it."""


class WholeCodec(Protocol):
    """What codes whole clips: a codec, or its native form."""

    def encode(self, wav: Any) -> Tokens: ...

    def decode(self, tokens: Tokens) -> torch.Tensor: ...


@dataclass(frozen=True)
class Limits:
    """Bounds of one client and of all together.

    Attributes:
        clients: connections at a time.
        live: of which code live.
        audio_seconds_a_minute: audio that one client may send and ask for.
        errors: messages refused until the connection is closed.
    """

    clients: int = 128
    live: int = 16
    audio_seconds_a_minute: float = 600.0
    errors: int = 20


class Budget:
    """Seconds of audio a client may still ask for; fills over time."""

    def __init__(self, a_minute: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._most, self._clock = a_minute / 60, a_minute, clock
        self._left, self._at = a_minute, clock()

    def take(self, seconds: float) -> None:
        """Spend some.

        Raises:
            ClientError: if there is not as much left.
        """
        now = self._clock()
        self._left = min(self._most, self._left + (now - self._at) * self._rate)
        self._at = now
        if seconds > self._left:
            raise ClientError("too much audio in too little time; wait a moment")
        self._left -= seconds


class Coder:
    """The codec that all clients share: whole clips, and slots for live streams."""

    def __init__(self, codec: AffectCodec, limits: Limits, engine: str = "auto") -> None:
        from affectcodec.streaming.engine import choose_engine

        self.codec = codec
        self.limits = limits
        self.whole: WholeCodec = codec
        if choose_engine(codec, engine) != "torch":
            from affectcodec.runtime import NativeCodec

            self.whole = NativeCodec(codec)
        self.encoder = StreamingEncoder(codec, slots=limits.live, engine=engine)
        self.decoder = StreamingDecoder(codec, slots=limits.live, engine=engine)
        self._free = list(range(limits.live))
        # The streams are used one at a time, and so are the slots of whole clips.
        self.lock, self.clip_lock = threading.Lock(), threading.Lock()

    def take_slot(self) -> int:
        """A slot for a live stream.

        Raises:
            ClientError: if all are taken.
        """
        with self.lock:
            if not self._free:
                raise ClientError("all live streams are in use; try again later")
            return self._free.pop()

    def give_slot(self, slot: int) -> None:
        """Put a slot back, at the start of a stream."""
        with self.lock:
            self.encoder.reset(slot)
            self.decoder.reset(slot)
            self._free.append(slot)


class Session:
    """One client. Methods block while they compute; call them in a thread."""

    def __init__(self, coder: Coder) -> None:
        self.coder = coder
        self.config = coder.codec.config
        self._budget = Budget(coder.limits.audio_seconds_a_minute)
        self._expect_clip = False
        self._slot: int | None = None
        self._tokens: Tokens | None = None
        self._donor: Tokens | None = None

    @property
    def live(self) -> bool:
        """Whether the client codes live."""
        return self._slot is not None

    def close(self) -> None:
        """Give back what the client holds."""
        if self._slot is not None:
            self.coder.give_slot(self._slot)
            self._slot = None

    def text(self, message: str) -> list[Reply]:
        """Answer a text message.

        Raises:
            ClientError: on anything that is no known request.
        """
        try:
            data = json.loads(message)
        except (ValueError, RecursionError):
            raise ClientError("not JSON") from None
        if not isinstance(data, dict) or not isinstance(data.get("op"), str):
            raise ClientError("wanted an object with an 'op'")
        handlers: dict[str, Callable[[dict[str, Any]], list[Reply]]] = {
            "clip": self._clip,
            "decode": self._decode,
            "donor": self._set_donor,
            "live": self._live,
            "stop": self._stop,
        }
        handler = handlers.get(data["op"])
        if handler is None:
            raise ClientError(f"unknown op; there are {sorted(handlers)}")
        return handler(data)

    def binary(self, message: bytes) -> list[Reply]:
        """Answer samples.

        Raises:
            ClientError: if none were announced, or they are too many.
        """
        if len(message) % 2:
            raise ClientError("wanted 16-bit samples, got an odd number of bytes")
        samples = np.frombuffer(message, "<i2").astype(np.int16)
        seconds = len(samples) / self.config.sample_rate
        if self._slot is not None:
            if seconds > MAX_LIVE_MESSAGE_SECONDS:
                raise ClientError(f"live messages hold at most {MAX_LIVE_MESSAGE_SECONDS} s")
            self._budget.take(seconds)
            return [self._live_audio(self._slot, samples)]
        if not self._expect_clip:
            raise ClientError("samples without a request; send op 'clip' or 'live' before")
        self._expect_clip = False
        if not 0 < seconds <= MAX_CLIP_SECONDS:
            raise ClientError(f"wanted a clip of at most {MAX_CLIP_SECONDS} s, got {seconds:.1f} s")
        self._budget.take(seconds)
        with self.coder.clip_lock:
            self._tokens = self.coder.whole.encode(samples.astype(np.float32) / 32768)
        codes = {
            name: self._tokens.block_codes(name)[0].tolist() for name in self.config.quantizer.names
        }
        return [{"op": "coded", "frames": self._tokens.num_frames, "codes": codes}]

    # -- requests -----------------------------------------------------------------------------

    def _clip(self, data: dict[str, Any]) -> list[Reply]:
        if self._slot is not None:
            raise ClientError("stop live coding first")
        self._expect_clip = True
        return []

    def _stages(self, data: dict[str, Any], least: int = 0) -> dict[str, int]:
        """Stage counts of a request, one for each block."""
        asked, most = data.get("stages"), self.config.quantizer.num_stages
        names = self.config.quantizer.names
        if not isinstance(asked, dict) or set(asked) != set(names):
            raise ClientError(f"stages: wanted a number for each of {list(names)}")
        for value in asked.values():
            if type(value) is not int or not least <= value <= most:
                raise ClientError(f"stages: wanted integers in {least}..{most}")
        if not any(asked.values()):
            raise ClientError("stages: at least one stage of any block is needed")
        return asked

    def _decode(self, data: dict[str, Any]) -> list[Reply]:
        if self._tokens is None:
            raise ClientError("no clip yet")
        mode = data.get("emotion", "keep")
        if mode not in EMOTION_MODES:
            raise ClientError(f"emotion: wanted one of {list(EMOTION_MODES)}")
        stages, tokens = self._stages(data), self._tokens
        if mode == "swap":
            if self._donor is None:
                raise ClientError("no donor yet")
            tokens = with_emotion_of(tokens, self._donor)
        if mode == "strip":
            stages = {**stages, "emotion": 0}
            if not any(stages.values()):
                raise ClientError("stages: nothing is left without the emotion stages")
        self._budget.take(float(tokens.duration[0]))
        with self.coder.clip_lock:
            audio = self.coder.whole.decode(tokens.truncate(stages))[0, 0].numpy()
        kept = tokens.truncate(stages)
        return [{"op": "audio", "samples": len(audio), "kbps": kept.kbps}, pcm_bytes(audio)]

    def _set_donor(self, data: dict[str, Any]) -> list[Reply]:
        if self._tokens is None:
            raise ClientError("no clip yet")
        self._donor = self._tokens
        return [{"op": "donor", "frames": self._donor.num_frames}]

    def _live(self, data: dict[str, Any]) -> list[Reply]:
        stages = self._stages(data)
        if self._slot is None:
            self._slot = self.coder.take_slot()
        with self.coder.lock:
            self.coder.encoder.set_rate(stages, slot=self._slot)
        latency = self.coder.encoder.latency.samples + self.coder.decoder.latency.samples
        return [{"op": "live", "latency_ms": 1000 * latency / self.config.sample_rate}]

    def _stop(self, data: dict[str, Any]) -> list[Reply]:
        self.close()
        return [{"op": "stopped"}]

    def _live_audio(self, slot: int, samples: np.ndarray) -> bytes:
        with self.coder.lock:
            frames = self.coder.encoder.push_frames({slot: samples})
            audio = self.coder.decoder.push_frames(frames)[slot]
        return pcm_bytes(audio)


def pcm_bytes(audio: np.ndarray) -> bytes:
    """16-bit little-endian samples."""
    scaled = np.clip(np.round(audio * 32768), -32768, 32767)
    return scaled.astype("<i2").tobytes()


def with_emotion_of(tokens: Tokens, donor: Tokens) -> Tokens:
    """Tokens of one clip with the emotion codes of another, stretched to its length."""
    base = tokens.quantizer.token_bases()["emotion"]
    size = next(b.codebook_size for b in tokens.quantizer.blocks if b.name == "emotion")
    frames = tokens.num_frames
    place = torch.div(torch.arange(frames) * donor.num_frames, frames, rounding_mode="floor")
    own = tokens.codes // base % size
    other = donor.codes[..., place] // base % size
    codes = tokens.codes + (other - own) * base
    return Tokens(**{**vars(tokens), "codes": codes})
