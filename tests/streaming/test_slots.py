# SPDX-License-Identifier: Apache-2.0
"""Random sequences of calls over slots: no call on one stream changes another one.

Every stream is one of a few clips, whose packets and audio are known from a pair of its own. What
a slot returns is compared bitwise with these at every step, whatever was done to its neighbours:
streams start, pause, are pushed in pieces beside others, saved, loaded into any slot, reset and
ended, and some calls are wrong. AFFECTCODEC_SEQUENCES sets how many sequences are tried.
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from affectcodec import AffectCodec
from affectcodec.runtime import why_unavailable
from affectcodec.streaming import StateError, StreamingDecoder, StreamingEncoder
from tests.codec_fixtures import HOP, speech_like, tiny_codec
from tests.streaming.streams import Samples

SEQUENCES = int(os.environ.get("AFFECTCODEC_SEQUENCES", "200"))
SLOTS = 4
FRAMES_PER_PACKET = 2


@dataclass(frozen=True)
class Known:
    """A clip and what its stream must give: packets, and audio for each of them.

    ``lost`` are packets the decoder never sees; ``tail`` is what its ``flush`` returns.
    """

    wav: Samples
    packets: list[bytes]
    lost: frozenset[int]
    audio: list[Samples]
    tail: Samples


@dataclass(frozen=True)
class Stream:
    """Where a slot stands in its clip: samples pushed, packets received, packets played."""

    clip: int
    at: int = 0
    received: int = 0
    played: int = 0
    paused: bool = False


@functools.cache
def codec() -> AffectCodec:
    return tiny_codec()


def pair(engine: str, slots: int) -> tuple[StreamingEncoder, StreamingDecoder]:
    encoder = StreamingEncoder(
        codec(), slots=slots, frames_per_packet=FRAMES_PER_PACKET, dtx=True, engine=engine
    )
    return encoder, StreamingDecoder(codec(), slots=slots, engine=engine)


@functools.cache
def shared_pair(engine: str) -> tuple[StreamingEncoder, StreamingDecoder]:
    """One pair for all sequences: what one leaves in a slot must not reach the next one either."""
    return pair(engine, SLOTS)


@functools.cache
def known_clips(engine: str) -> list[Known]:
    found = []
    for seed, size in enumerate((9 * HOP + 31, 5 * HOP, 14 * HOP + 200)):
        wav = speech_like(size, seed).numpy()
        if seed == 2:
            wav[3 * HOP : 10 * HOP] *= 1e-4  # a pause, of which not every packet is sent
        # The torch engine rounds by the number of its slots, so it has as many here.
        encoder, decoder = pair(engine, 1 if engine == "native" else SLOTS)
        packets = [*encoder.push(wav), *encoder.flush()]
        lost = frozenset(i for i in range(1, len(packets)) if (7 * i + seed) % 4 == 0)
        audio = [decoder.push(None if i in lost else p) for i, p in enumerate(packets)]
        found.append(Known(wav, packets, lost, audio, decoder.flush()))
    return found


_SLOT = st.integers(0, SLOTS - 1)
_SIZE = st.integers(0, 3 * HOP) | st.sampled_from([1, HOP - 1, HOP, HOP + 1])


class Slots(RuleBasedStateMachine):
    engine = "native"

    def __init__(self) -> None:
        super().__init__()
        self.clips = known_clips(self.engine)
        self.encoder, self.decoder = shared_pair(self.engine)
        self.streams: dict[int, Stream] = {}
        self.saved: list[tuple[bytes, bytes, Stream]] = []
        for slot in range(SLOTS):
            self.encoder.reset(slot)
            self.decoder.reset(slot)

    def _received(self, slot: int, packets: list[bytes]) -> None:
        stream = self.streams[slot]
        want = self.clips[stream.clip].packets[stream.received :]
        assert packets == want[: len(packets)]
        self.streams[slot] = replace(stream, received=stream.received + len(packets))

    def _play(self, counts: dict[int, int]) -> None:
        """Some packets of some streams, one of each a step."""
        for turn in range(max(counts.values(), default=0)):
            jobs = {}
            for slot, count in counts.items():
                stream = self.streams[slot]
                if turn < count and stream.played < stream.received:
                    clip = self.clips[stream.clip]
                    gone = stream.played in clip.lost
                    jobs[slot] = None if gone else clip.packets[stream.played]
            for slot, audio in self.decoder.push_many(jobs).items():
                stream = self.streams[slot]
                assert np.array_equal(audio, self.clips[stream.clip].audio[stream.played])
                self.streams[slot] = replace(stream, played=stream.played + 1)

    @rule(slot=_SLOT, clip=st.integers(0, 2))
    def start(self, slot: int, clip: int) -> None:
        if slot in self.streams:
            self.reset(slot)
        self.streams[slot] = Stream(clip)

    @precondition(lambda self: self.streams)
    @rule(sizes=st.dictionaries(_SLOT, _SIZE, min_size=1))
    def push(self, sizes: dict[int, int]) -> None:
        pieces = {}
        for slot, size in sizes.items():
            stream = self.streams.get(slot)
            if stream is not None and not stream.paused:
                wav = self.clips[stream.clip].wav
                pieces[slot] = wav[stream.at : stream.at + size]
                self.streams[slot] = replace(stream, at=min(len(wav), stream.at + size))
        found = self.encoder.push_many(pieces)
        assert set(found) == set(pieces)
        for slot, packets in found.items():
            self._received(slot, packets)

    @precondition(lambda self: self.streams)
    @rule(counts=st.dictionaries(_SLOT, st.integers(1, 3), min_size=1))
    def play(self, counts: dict[int, int]) -> None:
        active = {s for s, stream in self.streams.items() if not stream.paused}
        self._play({slot: count for slot, count in counts.items() if slot in active})

    @precondition(lambda self: self.streams)
    @rule(slot=_SLOT)
    def pause_or_resume(self, slot: int) -> None:
        if slot in self.streams:
            stream = self.streams[slot]
            self.streams[slot] = replace(stream, paused=not stream.paused)

    @rule(slot=_SLOT)
    def reset(self, slot: int) -> None:
        self.encoder.reset(slot)
        self.decoder.reset(slot)
        self.streams.pop(slot, None)

    @precondition(lambda self: self.streams)
    @rule(slot=_SLOT)
    def end(self, slot: int) -> None:
        if slot not in self.streams:
            return
        stream = self.streams[slot]
        clip = self.clips[stream.clip]
        self._received(slot, self.encoder.push(clip.wav[stream.at :], slot))
        self._received(slot, self.encoder.flush(slot))
        assert self.streams[slot].received == len(clip.packets)
        self._play({slot: len(clip.packets)})
        assert np.array_equal(self.decoder.flush(slot), clip.tail)
        del self.streams[slot]

    @precondition(lambda self: self.streams)
    @rule(slot=_SLOT)
    def save(self, slot: int) -> None:
        if slot in self.streams:
            state = self.encoder.state(slot), self.decoder.state(slot), self.streams[slot]
            self.saved = [*self.saved[-3:], state]

    @precondition(lambda self: self.saved)
    @rule(slot=_SLOT, which=st.integers(0, 3))
    def load(self, slot: int, which: int) -> None:
        encoded, decoded, stream = self.saved[which % len(self.saved)]
        self.encoder.load_state(encoded, slot)
        self.decoder.load_state(decoded, slot)
        self.streams[slot] = stream

    @precondition(lambda self: self.streams)
    @rule(slot=_SLOT, kind=st.integers(0, 4))
    def wrong_call(self, slot: int, kind: int) -> None:
        """Refused, and no stream has advanced: what follows would tell."""
        others = {s: self.clips[t.clip].wav[t.at :] for s, t in self.streams.items()}
        if kind == 0:
            with pytest.raises(ValueError, match="pcm"):
                self.encoder.push_many({**others, slot: np.full(HOP, np.nan, np.float32)})
        elif kind == 1:
            with pytest.raises(ValueError, match="slot"):
                self.encoder.push_many({**others, SLOTS: np.zeros(HOP, np.float32)})
        elif kind == 2:
            packets = {s: self.clips[t.clip].packets[0] for s, t in self.streams.items()}
            with pytest.raises(ValueError):
                self.decoder.push_many({**packets, slot: b"\0" * 9})
        elif kind == 3:
            with pytest.raises(StateError):
                self.encoder.load_state(self.decoder.state(slot), slot)
        else:
            with pytest.raises(StateError):
                self.decoder.load_state(self.decoder.state(slot)[:-1], slot)

    def teardown(self) -> None:
        for slot in list(self.streams):
            self.end(slot)


class TorchSlots(Slots):
    engine = "torch"


def _run(machine: type[Slots], sequences: int) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=sequences,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.slow
@pytest.mark.timeout(7200 if SEQUENCES > 1000 else 300)
@pytest.mark.skipif(bool(why_unavailable()), reason=why_unavailable() or "on")
def test_native_slots_keep_to_themselves() -> None:
    _run(Slots, SEQUENCES)


@pytest.mark.slow
@pytest.mark.timeout(7200 if SEQUENCES > 1000 else 300)
def test_torch_slots_keep_to_themselves() -> None:
    _run(TorchSlots, max(20, SEQUENCES // 10))
