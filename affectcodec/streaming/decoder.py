# SPDX-License-Identifier: Apache-2.0
"""``StreamingDecoder``: packets, or their absence, to audio, many streams at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from affectcodec.bitstream.header import BlockLayout, StreamHeader
from affectcodec.bitstream.packet import Packet, parse_packet
from affectcodec.streaming.concealment import Concealment, LatentHistory
from affectcodec.streaming.encoder import Frames
from affectcodec.streaming.engine import (
    DecoderEngine,
    Floats,
    Ints,
    StreamLatency,
    check_slots,
    make_decoder,
)
from affectcodec.streaming.state import StateError, pack_state, unpack_state

if TYPE_CHECKING:
    from affectcodec.codec import AffectCodec

# A jump of the frame index beyond this is no burst of losses but a new place in the stream.
MAX_GAP_FRAMES = 50

STATE_VERSION = 2

_HISTORY_ARRAYS = ("rows", "came", "known")
_HISTORY_NUMBERS = ("lost", "filled", "gain", "level_db", "floor_db")


@dataclass
class StreamCounters:
    """Frames of one stream since its start: decoded, concealed, skipped over (a jump too long to
    conceal), and dropped (of packets that came twice or too late)."""

    decoded: int = 0
    concealed: int = 0
    skipped: int = 0
    dropped: int = 0


@dataclass
class _Stream:
    history: LatentHistory
    counters: StreamCounters
    next_index: int | None = None
    packet_frames: int = 1


class StreamingDecoder:
    """Decoder of ``slots`` independent streams.

    Each frame that goes in gives one hop of audio at once, one hop late: after ``latency`` the
    audio is what ``AffectCodec.decode`` gives for the same tokens.

    Args:
        codec: the codec that the packets were made with.
        slots: streams the object can hold.
        concealment: what fills lost frames, see :mod:`affectcodec.streaming.concealment`:
            ``"predict"``, ``"repeat"`` or ``"silence"``.
        engine: ``"native"``, ``"native-bfloat16"``, ``"torch"``, ``"torch-compiled"``, ``"auto"``
            for the fastest that computes in float32 without compiling, or an engine of that many
            slots, such as ``affectcodec.export.runtime.OnnxDecoder``.
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
        concealment: str = "predict",
        engine: str | DecoderEngine = "auto",
        threads: int = 1,
    ) -> None:
        check_slots(slots)
        config = codec.config
        self.config = config
        self.slots = slots
        self.header = StreamHeader(
            config_hash=codec.fingerprint,
            sample_rate=config.sample_rate,
            hop_length=config.hop_length,
            blocks=tuple(BlockLayout(b.name, b.levels) for b in config.quantizer.blocks),
            num_stages=config.quantizer.num_stages,
        )
        self.concealment = Concealment.of(codec, concealment)
        self.engine: DecoderEngine = make_decoder(codec, engine, slots, threads)
        self._bases = [config.quantizer.token_bases()[b.name] for b in config.quantizer.blocks]
        self._streams = [self._fresh() for _ in range(slots)]

    @property
    def latency(self) -> StreamLatency:
        """Samples from a token to the end of the audio that it completes."""
        return StreamLatency({"overlap": self.config.hop_length}, self.config.sample_rate)

    def counters(self, slot: int = 0) -> StreamCounters:
        """What has happened to a stream; the object stays up to date."""
        self._check_slot(slot)
        return self._streams[slot].counters

    # -- packets --------------------------------------------------------------------------------

    def push(self, packet: bytes | Packet | None, slot: int = 0) -> Floats:
        """Audio of one packet; see :meth:`push_many`."""
        return self.push_many({slot: packet})[slot]

    def push_many(self, packets: Mapping[int, bytes | Packet | None]) -> dict[int, Floats]:
        """Advance some streams in one step.

        Args:
            packets: for each slot an ``.afc`` packet, as bytes or as an ``AfcReader`` gives it, or
                None where the packet of this moment did not come. A packet may have lost acoustic
                stages on its way (``truncate_packet``).

        Returns:
            audio float32 ``[N]`` of each slot. A packet that leaves out frames also gives those,
            concealed; one that comes twice or after its frames were concealed gives nothing.

        Raises:
            ValueError: on a wrong slot; ``AfcPacketError``, which is one, on a damaged packet or
                one of another layout. No stream has advanced then.
        """
        parsed: dict[int, Packet | None] = {}
        for slot, packet in packets.items():
            self._check_slot(slot)
            if packet is None or isinstance(packet, Packet):
                parsed[slot] = packet
            else:
                parsed[slot] = parse_packet(packet, self.header)
        jobs = {slot: self._plan(slot, found) for slot, found in parsed.items()}
        return self._decode(jobs)

    def push_frames(self, frames: Mapping[int, Frames]) -> dict[int, Floats]:
        """As :meth:`push_many`, from frames that never were in packets; their start is not read."""
        jobs: dict[int, tuple[int, Ints, Ints]] = {}
        quantizer = self.config.quantizer
        for slot, found in frames.items():
            self._check_slot(slot)
            codes, stages = np.asarray(found.codes), np.asarray(found.stages)
            rows = len(codes)
            if codes.shape != (rows, quantizer.num_stages) or codes.dtype.kind != "i":
                raise ValueError(
                    f"codes: wanted integers [T, {quantizer.num_stages}], got {codes.dtype} "
                    f"{list(codes.shape)}"
                )
            if rows and not 0 <= int(codes.min()) <= int(codes.max()) < quantizer.codebook_size:
                raise ValueError(
                    f"codes: wanted 0..{quantizer.codebook_size - 1}, got "
                    f"{codes.min()}..{codes.max()}"
                )
            if stages.shape != (rows, len(quantizer.blocks)) or stages.dtype.kind != "i":
                raise ValueError(
                    f"stages: wanted integers [T, {len(quantizer.blocks)}], got {stages.dtype} "
                    f"{list(stages.shape)}"
                )
            jobs[slot] = (0, codes, stages.astype(np.int64))
            self._streams[slot].counters.decoded += rows
        return self._decode(jobs)

    def flush(self, slot: int = 0) -> Floats:
        """End a stream: one more hop of audio, which completes the overlap of its last frame.

        A stream that its encoder flushed needs it not: its last frame is there for that. The slot
        is at the start of a new stream afterwards.
        """
        self._check_slot(slot)
        wanted = self._streams[slot].history.filled
        audio = self._decode({slot: (1 if wanted else 0, *self._nothing())})[slot]
        self.reset(slot)
        return audio

    def reset(self, slot: int = 0) -> None:
        """Put a slot at the start of a stream."""
        self._check_slot(slot)
        self._streams[slot] = self._fresh()
        self.engine.reset(slot)

    # -- state ----------------------------------------------------------------------------------

    def state(self, slot: int = 0) -> bytes:
        """A stream as bytes, about 70 kB: its continuation elsewhere gives the same audio."""
        self._check_slot(slot)
        stream = self._streams[slot]
        arrays = {f"engine.{k}": v for k, v in self.engine.state(slot).items()}
        header = {
            **self._kind(),
            "next_index": stream.next_index,
            "packet_frames": stream.packet_frames,
            "counters": vars(stream.counters),
            **{name: getattr(stream.history, name) for name in _HISTORY_NUMBERS},
        }
        arrays.update((f"history.{n}", getattr(stream.history, n)) for n in _HISTORY_ARRAYS)
        return pack_state(header, arrays)

    def load_state(self, data: bytes, slot: int = 0) -> None:
        """Continue a saved stream in a slot.

        Raises:
            StateError: if the bytes are damaged or do not fit; the slot is unchanged then.
        """
        self._check_slot(slot)
        header, arrays = unpack_state(data, self._kind())
        stream = self._fresh()
        try:
            own = {n: getattr(stream.history, n) for n in _HISTORY_ARRAYS}
            kept = {n: arrays.pop(f"history.{n}") for n in _HISTORY_ARRAYS}
            index, frames = header["next_index"], header["packet_frames"]
            counters = StreamCounters(**header["counters"])
            numbers = [frames, header["lost"], header["filled"], *vars(counters).values()]
            numbers += [] if index is None else [index]
            sound = (
                all(
                    array.shape == own[name].shape
                    and array.dtype == own[name].dtype
                    and bool(np.isfinite(array).all())
                    for name, array in kept.items()
                )
                and all(type(n) is int and 0 <= n < 2**48 for n in numbers)
                and 1 <= frames <= 4096
                and header["filled"] <= len(own["known"])
                and all(type(header[n]) is float for n in ("gain", "level_db", "floor_db"))
                and 0 <= header["gain"] <= 1
                and all(-200 <= header[n] <= 200 for n in ("level_db", "floor_db"))
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise StateError(f"state: {error}") from error
        if not sound:
            raise StateError("state: the history of latents does not fit this codec")
        for name, array in kept.items():
            setattr(stream.history, name, array)
        for name in _HISTORY_NUMBERS:
            setattr(stream.history, name, header[name])
        stream.next_index, stream.packet_frames, stream.counters = index, frames, counters
        self.engine.load_state(slot, {k.removeprefix("engine."): v for k, v in arrays.items()})
        self._streams[slot] = stream

    def _kind(self) -> dict[str, Any]:
        return {
            "kind": "decoder",
            "version": STATE_VERSION,
            "engine": self.engine.name,
            "codec": self.header.config_hash,
            "config": self.config.hash,
        }

    # -- inside ---------------------------------------------------------------------------------

    def _fresh(self) -> _Stream:
        return _Stream(LatentHistory(self.config.quantizer.width), StreamCounters())

    def _check_slot(self, slot: int) -> None:
        if not isinstance(slot, int | np.integer) or isinstance(slot, bool):
            raise ValueError(f"slot: wanted an integer, got {slot!r}")
        if not 0 <= slot < self.slots:
            raise ValueError(f"slot: wanted 0..{self.slots - 1}, got {slot}")

    def _nothing(self) -> tuple[Ints, Ints]:
        quantizer = self.config.quantizer
        dtype = np.int32 if quantizer.codebook_size <= 2**31 else np.int64
        return (
            np.zeros((0, quantizer.num_stages), dtype),
            np.zeros((0, len(quantizer.blocks)), np.int64),
        )

    def _plan(self, slot: int, packet: Packet | None) -> tuple[int, Ints, Ints]:
        """Frames to conceal, then tokens and stage counts to decode; updates the stream's place."""
        stream = self._streams[slot]
        counters = stream.counters
        codes, stages = self._nothing()
        if packet is None:
            lost = stream.packet_frames
            if stream.next_index is not None:
                stream.next_index += lost
            counters.concealed += lost
            return lost, codes, stages
        expected = packet.start if stream.next_index is None else stream.next_index
        if packet.status == "lost":  # a reader's word for frames that are missing
            lost = min(max(0, packet.end - expected), MAX_GAP_FRAMES)
            stream.next_index = max(expected, packet.end)
            counters.concealed += lost
            return lost, codes, stages
        late = max(0, expected - packet.start)
        if late >= packet.frames:
            counters.dropped += packet.frames
            return 0, codes, stages
        lost = max(0, packet.start - expected)
        if lost > MAX_GAP_FRAMES:
            counters.skipped += lost
            lost = 0
        counters.concealed += lost
        counters.dropped += late
        counters.decoded += packet.frames - late
        stream.next_index, stream.packet_frames = packet.end, packet.frames
        codes = np.zeros((packet.frames, self.config.quantizer.num_stages), codes.dtype)
        for part, base in zip(packet.codes, self._bases, strict=True):
            codes[:, : len(part)] += (part.T.astype(codes.dtype) * base).astype(codes.dtype)
        stages = packet.frame_stages.T.astype(np.int64)
        return lost, codes[late:], stages[late:]

    def _decode(self, jobs: Mapping[int, tuple[int, Ints, Ints]]) -> dict[int, Floats]:
        out: dict[int, Floats] = {slot: np.zeros(0, np.float32) for slot in jobs}
        busy = [slot for slot, (lost, codes, _) in jobs.items() if lost + len(codes)]
        if not busy:
            return out
        tokens = np.concatenate([jobs[slot][1] for slot in busy])
        stages = np.concatenate([jobs[slot][2] for slot in busy])
        known = self.engine.dequantize(tokens, stages) if len(tokens) else None
        parts: list[Floats] = []
        gains: list[list[float]] = []
        unheard: list[int] = []
        at = 0
        for slot in busy:
            lost, codes, _ = jobs[slot]
            history = self._streams[slot].history
            # A hop sounds of its frame and the one before: the first after a gap is no witness.
            unheard.append(lost + int(lost + history.lost > 0))
            filled = [self.concealment.next(history) for _ in range(lost)]
            parts += [latent[None] for latent, _ in filled]
            if len(codes):
                assert known is not None
                parts.append(known[at : at + len(codes)])
                history.append(parts[-1])
                at += len(codes)
            gains.append([gain for _, gain in filled] + [1.0] * len(codes))
        counts = [len(part) for part in gains]
        audio = self.engine.synthesize([int(s) for s in busy], counts, np.concatenate(parts))
        at = 0
        for slot, count, own, skipped in zip(busy, counts, gains, unheard, strict=True):
            history = self._streams[slot].history
            rows = _levelled(audio[at : at + count], own, history.gain)
            history.gain = own[-1]
            for hop in audio[at + skipped : at + count]:
                history.hear(hop)
            out[slot] = rows.reshape(-1)
            at += count
        return out


def _levelled(rows: Floats, gains: list[float], before: float) -> Floats:
    """Hops ``[T, hop]`` with the gain of each, which moves linearly from the one before."""
    if before == 1.0 and all(gain == 1.0 for gain in gains):
        return rows  # bitwise what the engine made
    ramp = np.arange(1, rows.shape[1] + 1, dtype=np.float32) / rows.shape[1]
    out = rows.copy()
    for row, gain in zip(out, gains, strict=True):
        row *= np.float32(before) + np.float32(gain - before) * ramp
        before = gain
    return out
