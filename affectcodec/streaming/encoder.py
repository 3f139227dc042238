# SPDX-License-Identifier: Apache-2.0
"""``StreamingEncoder``: audio of any length to packets, many streams at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from affectcodec.audio import MAX_SAMPLE
from affectcodec.bitstream.header import BlockLayout, StreamHeader
from affectcodec.bitstream.packet import serialize_packet
from affectcodec.config import StageSpec
from affectcodec.streaming.engine import (
    EncoderEngine,
    Floats,
    Ints,
    StreamLatency,
    check_slots,
    make_encoder,
)
from affectcodec.streaming.rate import Counts, RateController, SilenceDetector
from affectcodec.streaming.state import StateError, pack_state, unpack_state

if TYPE_CHECKING:
    from affectcodec.codec import AffectCodec

# While a stream is silent, one packet in so many frames keeps the background noise up to date.
SILENCE_INTERVAL = 8


class Frames(NamedTuple):
    """Encoded frames: ``codes [T, K]`` composite tokens, ``stages [T, G]`` how many of them count
    for each block (none at all in a frame of silence that need not be sent), ``start`` the index of
    the first one."""

    codes: Ints
    stages: Ints
    start: int


@dataclass
class _Stream:
    """What one slot waits with."""

    rest: Floats
    stages: tuple[int, ...]
    index: int = 0
    controller: RateController | None = None
    silence: SilenceDetector | None = None
    pending: list[tuple[Ints, tuple[int, ...]]] = field(default_factory=list)


class StreamingEncoder:
    """Encoder of ``slots`` independent streams.

    ``push`` serves one stream, ``push_many`` any set of them in one step. What a slot returns does
    not depend on how its audio was cut, nor on its neighbours.

    Args:
        codec: the codec.
        slots: streams the object can hold.
        stages, kbps: rate at the start of every stream, as ``AffectCodec.encode`` takes them.
        frames_per_packet: frames gathered into a packet; each one more adds 20 ms of latency.
        dtx: discontinuous transmission: of silence only one packet in eight frames is made.
        engine: ``"native"``, ``"native-bfloat16"``, ``"torch"``, ``"torch-compiled"``, ``"auto"``
            for the fastest that computes in float32 without compiling, or an engine of that many
            slots, such as ``affectcodec.export.runtime.OnnxEncoder``.
        threads: threads of the native engine.

    Raises:
        ValueError: on a wrong argument.
        RuntimeError: if the engine asked for by name is not there.
    """

    def __init__(
        self,
        codec: AffectCodec,
        *,
        slots: int = 1,
        stages: StageSpec = None,
        kbps: float | None = None,
        frames_per_packet: int = 1,
        dtx: bool = False,
        engine: str | EncoderEngine = "auto",
        threads: int = 1,
    ) -> None:
        check_slots(slots)
        if not isinstance(frames_per_packet, int) or not 1 <= frames_per_packet <= 64:
            raise ValueError(f"frames_per_packet: wanted 1..64, got {frames_per_packet!r}")
        config = codec.config
        self.config = config
        self.slots = slots
        self.frames_per_packet = frames_per_packet
        self.dtx = dtx
        self.header = StreamHeader(
            config_hash=codec.fingerprint,
            sample_rate=config.sample_rate,
            hop_length=config.hop_length,
            blocks=tuple(BlockLayout(b.name, b.levels) for b in config.quantizer.blocks),
            num_stages=config.quantizer.num_stages,
        )
        self._stages = self._resolve(stages, kbps)
        self.engine: EncoderEngine = make_encoder(codec, engine, slots, threads)
        self._bases = [
            (config.quantizer.token_bases()[block.name], block.codebook_size)
            for block in config.quantizer.blocks
        ]
        self._streams = [self._fresh() for _ in range(slots)]

    @property
    def latency(self) -> StreamLatency:
        """Samples from the first one of a packet until the packet is there."""
        hop = self.config.hop_length
        parts = {"frame": hop, "packet": (self.frames_per_packet - 1) * hop}
        return StreamLatency(parts, self.config.sample_rate)

    # -- rate -----------------------------------------------------------------------------------

    def _resolve(self, stages: StageSpec, kbps: float | None) -> tuple[int, ...]:
        if kbps is not None:
            if stages is not None:
                raise ValueError(f"give stages or kbps, not both (stages={stages}, kbps={kbps})")
            stages = self.config.stages_for_kbps(kbps)
        counts = self.config.quantizer.resolve_stages(stages)
        return tuple(counts[name] for name in self.config.quantizer.names)

    def set_rate(
        self, stages: StageSpec = None, *, kbps: float | None = None, slot: int = 0
    ) -> None:
        """Change the rate of a stream from its next frame on.

        Raises:
            ValueError: on a rate that the codec does not have, or a slot out of range.
        """
        self._check_slot(slot)
        self._streams[slot].stages = self._resolve(stages, kbps)
        self._streams[slot].controller = None

    def follow_rate(self, controller: RateController | None, *, slot: int = 0) -> None:
        """Let a controller choose the stage counts of each packet of a stream; None to stop that.

        It is asked once a packet, so each stream needs one of its own. :meth:`reset` keeps it,
        a saved state does not hold it.
        """
        self._check_slot(slot)
        self._streams[slot].controller = controller

    # -- audio ----------------------------------------------------------------------------------

    def push(self, pcm: npt.ArrayLike, slot: int = 0) -> list[bytes]:
        """Packets that the samples complete; see :meth:`push_many`."""
        return self.push_many({slot: pcm})[slot]

    def push_many(self, pcm: Mapping[int, npt.ArrayLike]) -> dict[int, list[bytes]]:
        """Advance some streams in one step.

        Args:
            pcm: samples ``[N]`` of each slot at the codec's rate, any ``N``: floating point in
                [-1, 1], or int16.

        Returns:
            for each slot the ``.afc`` packets that are complete, in order.

        Raises:
            ValueError: on a wrong slot, shape or dtype, or on NaN, infinite or huge samples. No
                stream has advanced then.
        """
        frames = self.push_frames(pcm)
        return {slot: self._packets(slot, found) for slot, found in frames.items()}

    def push_frames(self, pcm: Mapping[int, npt.ArrayLike]) -> dict[int, Frames]:
        """As :meth:`push_many`, but the frames themselves, before they are put into packets.

        A stream takes either its frames or its packets: frames returned here are in no packet.
        """
        ready: dict[int, Floats] = {}
        for slot, samples in pcm.items():
            self._check_slot(slot)
            ready[slot] = self._samples(samples)
        return self._encode(ready)

    def flush(self, slot: int = 0) -> list[bytes]:
        """End a stream: the last packets, with the frame that completes the overlap.

        A stream of ``n`` samples has had ``ceil(n / hop) + 1`` frames then, as an encoded clip.
        The slot is at the start of a new stream afterwards; its rate stays.
        """
        frames = self.flush_frames(slot)
        packets = self._packets(slot, frames, last=True)
        self.reset(slot)
        return packets

    def flush_frames(self, slot: int = 0) -> Frames:
        """The last frames of a stream; call :meth:`reset` before the slot is used again."""
        self._check_slot(slot)
        stream, hop = self._streams[slot], self.config.hop_length
        if not stream.index and not len(stream.rest):
            return self._no_frames(slot)  # a clip without samples has no frames
        missing = -len(stream.rest) % hop + hop
        return self._encode({slot: np.zeros(missing, np.float32)})[slot]

    def reset(self, slot: int = 0) -> None:
        """Put a slot at the start of a stream; what it had waiting is dropped, its rate stays."""
        self._check_slot(slot)
        old = self._streams[slot]
        self._streams[slot] = self._fresh()
        self._streams[slot].stages, self._streams[slot].controller = old.stages, old.controller
        self.engine.reset(slot)

    # -- state ----------------------------------------------------------------------------------

    def state(self, slot: int = 0) -> bytes:
        """A stream as bytes, about 40 kB: its continuation elsewhere gives the same packets."""
        self._check_slot(slot)
        stream = self._streams[slot]
        waiting = self._no_frames(slot).codes
        if stream.pending:
            waiting = np.stack([codes for codes, _ in stream.pending])
        arrays = {f"engine.{k}": v for k, v in self.engine.state(slot).items()}
        header = {
            **self._kind(),
            "index": stream.index,
            "stages": list(stream.stages),
            "pending": [list(stages) for _, stages in stream.pending],
            "silence": None
            if stream.silence is None
            else [stream.silence.floor_db, stream.silence.quiet],
        }
        return pack_state(header, {**arrays, "rest": stream.rest, "pending": waiting})

    def load_state(self, data: bytes, slot: int = 0) -> None:
        """Continue a saved stream in a slot.

        Raises:
            StateError: if the bytes are damaged or do not fit; the slot is unchanged then.
        """
        self._check_slot(slot)
        header, arrays = unpack_state(data, self._kind())
        stream = self._read_stream(header, arrays.pop("rest", None), arrays.pop("pending", None))
        prefix = "engine."
        self.engine.load_state(slot, {k.removeprefix(prefix): v for k, v in arrays.items()})
        self._streams[slot] = stream

    def _kind(self) -> dict[str, Any]:
        return {
            "kind": "encoder",
            "engine": self.engine.name,
            "codec": self.header.config_hash,
            "config": self.config.hash,
            "frames_per_packet": self.frames_per_packet,
            "dtx": self.dtx,
        }

    def _read_stream(self, header: dict[str, Any], rest: Any, waiting: Any) -> _Stream:
        quantizer, hop = self.config.quantizer, self.config.hop_length
        try:
            index = header["index"]
            counts = [header["stages"], *header["pending"]]
            resolved = [
                self._resolve(dict(zip(quantizer.names, entry, strict=True)), None)
                for entry in counts
            ]
            shape = (len(resolved) - 1, quantizer.num_stages)
            sound = (
                isinstance(index, int)
                and 0 <= index < 2**40
                and rest.dtype == np.float32
                and rest.ndim == 1
                and len(rest) < hop
                and bool((np.abs(rest) <= MAX_SAMPLE).all())
                and waiting.shape == shape
                and waiting.dtype == self._no_frames(0).codes.dtype
                and shape[0] < self.frames_per_packet
                and (not waiting.size or 0 <= waiting.min() <= waiting.max())
                and (not waiting.size or waiting.max() < quantizer.codebook_size)
            )
            silence = self._fresh().silence
            if silence is not None:
                floor, quiet = header["silence"]
                sound = sound and -100 <= float(floor) <= 100 and 0 <= int(quiet) < 2**48
                silence.floor_db, silence.quiet = float(floor), int(quiet)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise StateError(f"state: {error}") from error
        if not sound:
            raise StateError("state: what waits to be coded does not fit this codec")
        pending = list(zip(waiting, resolved[1:], strict=True))
        return _Stream(rest.copy(), resolved[0], index, None, silence, pending)

    # -- inside ---------------------------------------------------------------------------------

    def _fresh(self) -> _Stream:
        silence = SilenceDetector() if self.dtx else None
        return _Stream(np.zeros(0, np.float32), self._stages, silence=silence)

    def _check_slot(self, slot: int) -> None:
        # NumPy integers are welcome, True is not a slot.
        if not isinstance(slot, int | np.integer) or isinstance(slot, bool):
            raise ValueError(f"slot: wanted an integer, got {slot!r}")
        if not 0 <= slot < self.slots:
            raise ValueError(f"slot: wanted 0..{self.slots - 1}, got {slot}")

    @staticmethod
    def _samples(samples: npt.ArrayLike) -> Floats:
        x = np.asarray(samples)
        if x.ndim != 1:
            raise ValueError(f"pcm: wanted samples [N], got shape {list(x.shape)}")
        if x.dtype == np.int16:
            return x.astype(np.float32) / np.float32(32768)
        if x.dtype.kind != "f" and x.size:
            raise ValueError(f"pcm: wanted floating point samples or int16, got {x.dtype}")
        y = x.astype(np.float32)  # a copy: what waits must not change with the caller's buffer
        # A comparison that NaN fails as well.
        if y.size and not bool(np.abs(y).max() <= MAX_SAMPLE):
            raise ValueError(
                "pcm: holds NaN, infinite or huge samples; wanted about [-1, 1], got up to "
                f"{float(np.abs(y).max()):g}"
            )
        return y

    def _no_frames(self, slot: int) -> Frames:
        quantizer = self.config.quantizer
        dtype = np.int32 if quantizer.codebook_size <= 2**31 else np.int64
        codes = np.zeros((0, quantizer.num_stages), dtype)
        stages = np.zeros((0, len(quantizer.blocks)), np.int64)
        return Frames(codes, stages, self._streams[slot].index)

    def _encode(self, pcm: Mapping[int, Floats]) -> dict[int, Frames]:
        hop = self.config.hop_length
        out = {slot: self._no_frames(slot) for slot in pcm}
        slots, counts, parts = [], [], []
        for slot, samples in pcm.items():
            stream = self._streams[slot]
            if len(stream.rest):
                samples = np.concatenate([stream.rest, samples])
            whole = len(samples) // hop
            stream.rest = samples[whole * hop :].copy()
            if whole:
                slots.append(int(slot))
                counts.append(whole)
                parts.append(samples[: whole * hop].reshape(whole, hop))
        if not slots:
            return out
        codes = self.engine.encode(slots, counts, np.concatenate(parts))
        at = 0
        for slot, count, frames in zip(slots, counts, parts, strict=True):
            stream = self._streams[slot]
            stages = np.array([self._next_stages(stream, frame) for frame in frames], np.int64)
            out[slot] = Frames(codes[at : at + count], stages, stream.index - count)
            at += count
        return out

    def _next_stages(self, stream: _Stream, frame: Floats) -> Counts:
        """Stage counts of the next frame of a stream; none where it is not sent."""
        start = stream.index
        first = start % self.frames_per_packet == 0
        stream.index += 1
        if stream.silence is not None and stream.silence.silent(frame):
            place = (stream.silence.quiet - stream.silence.hang_frames - 1) % SILENCE_INTERVAL
            if place:
                if stream.controller is not None and first:
                    stream.controller.skip()
                return (0,) * len(stream.stages)
        if stream.controller is not None and first:
            stream.stages = stream.controller.next(start)
        return stream.stages

    def _packets(self, slot: int, frames: Frames, last: bool = False) -> list[bytes]:
        stream = self._streams[slot]
        stream.pending += [
            (codes, tuple(int(k) for k in stages))
            for codes, stages in zip(frames.codes, frames.stages, strict=True)
        ]
        packets = []
        start = stream.index - len(stream.pending)
        while stream.pending:
            alike = self._run_length(stream.pending)
            # A change of rate ends a packet early: one packet has one stage count a block.
            if alike < self.frames_per_packet and alike == len(stream.pending) and not last:
                break
            size = min(alike, self.frames_per_packet)
            run, stream.pending = stream.pending[:size], stream.pending[size:]
            if any(run[0][1]):
                packets.append(self._serialize([codes for codes, _ in run], run[0][1], start))
            start += size
        return packets

    @staticmethod
    def _run_length(pending: Sequence[tuple[Ints, tuple[int, ...]]]) -> int:
        first = pending[0][1]
        for i, (_, stages) in enumerate(pending):
            if stages != first:
                return i
        return len(pending)

    def _serialize(self, frames: list[Ints], stages: tuple[int, ...], start: int) -> bytes:
        tokens = np.stack(frames, 1)  # [K, T]
        if tokens.size and int(tokens.min()) < 0:
            raise ValueError("pcm: the encoder's latent is NaN; check the weights of the codec")
        codes = [
            tokens[:count] // base % size
            for count, (base, size) in zip(stages, self._bases, strict=True)
        ]
        return serialize_packet(codes, self.header, start)
