# SPDX-License-Identifier: Apache-2.0
"""A pair over UDP on loopback: RTP packets, simulated loss and jitter, a jitter buffer.

For trying out how a stream behaves in a network, and as the shape of a real sender and receiver.
"""

from __future__ import annotations

import heapq
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from affectcodec.bitstream import AfcPacketError
from affectcodec.bitstream.head import parse_head
from affectcodec.streaming.decoder import StreamingDecoder
from affectcodec.streaming.encoder import StreamingEncoder
from affectcodec.streaming.engine import Floats
from affectcodec.streaming.loss import LossModel
from affectcodec.streaming.meter import Meter
from affectcodec.streaming.rtp import RtpPacket

MAX_DATAGRAM = 1500
_TIMEOUT_S = 0.2


@dataclass(frozen=True)
class Network:
    """What happens to packets on the way.

    Args:
        loss: model of loss.
        jitter_ms: largest random delay of a packet; packets may overtake each other.
        seed: of both.
    """

    loss: LossModel
    jitter_ms: float = 0.0
    seed: int = 0


class JitterBuffer:
    """Hands out packets by frame index at their time, None where one has not come by then.

    Args:
        delay_frames: frames to wait after the first packet before playing.
    """

    def __init__(self, delay_frames: int) -> None:
        self.delay_frames = delay_frames
        self.late = 0
        self._packets: dict[int, bytes] = {}
        self._next: int | None = None

    def put(self, index: int, packet: bytes) -> None:
        """A packet that came; one whose time is over is dropped and counted."""
        if self._next is None:
            self._next = index - self.delay_frames
        if index < self._next:
            self.late += 1
        # A packet from far ahead would only wait: bounded, so that nobody can fill the memory.
        elif index < self._next + 500:
            self._packets[index] = packet

    def get(self) -> tuple[bool, bytes | None]:
        """Whether it is time to play, and the packet of this frame."""
        if self._next is None:
            return False, None
        index, self._next = self._next, self._next + 1
        packet = self._packets.pop(index, None)
        if packet is None and self.delay_frames > 0:
            self.delay_frames -= 1  # the wait before the first packet
            return False, None
        return True, packet


def run_pair(
    encoder: StreamingEncoder,
    decoder: StreamingDecoder,
    wav: Floats,
    network: Network,
    *,
    jitter_buffer_ms: float = 60.0,
    realtime: bool = True,
    on_tick: Callable[[Meter, Meter], None] | None = None,
) -> tuple[Floats, Meter, Meter]:
    """Send a clip through a socket of its own to a receiver in another thread.

    Args:
        wav: samples ``[N]``.
        realtime: pace frames by the clock; otherwise each frame is sent at once and the network
            delays nothing.
        on_tick: called about four times a second of audio.

    Returns:
        the audio that was played, and the meters of both ends.
    """
    hop, rate = encoder.config.hop_length, encoder.config.sample_rate
    frame_s = hop / rate
    sent, heard = Meter(frame_s), Meter(frame_s)
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.bind(("127.0.0.1", 0))
    receiver.settimeout(_TIMEOUT_S)
    buffer = JitterBuffer(int(np.ceil(jitter_buffer_ms / 1000 / frame_s)) if realtime else 0)
    lock, done = threading.Lock(), threading.Event()
    captured: dict[int, float] = {}

    def listen() -> None:
        while not done.is_set():
            try:
                data = receiver.recv(MAX_DATAGRAM)
                packet = RtpPacket.from_bytes(data)
                head = parse_head(packet.payload, decoder.header)
            except TimeoutError:
                continue
            except (ValueError, OSError):
                continue  # not ours, or damaged: as good as lost
            with lock:
                buffer.put(head.start, packet.payload)
                heard.packet(len(data))

    played: list[Floats] = []

    def play(index: int) -> None:
        with lock:
            ready, packet = buffer.get()
        if not ready:
            return
        with heard.step():
            try:
                played.append(decoder.push(packet))
            except AfcPacketError:
                played.append(decoder.push(None))
        heard.lost += packet is None
        if index in captured:
            heard.delay(time.monotonic() - captured[index])

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        generator = np.random.default_rng(network.seed)
        frames = encoder.config.num_frames(len(wav))
        lost = network.loss.draw(frames + 1, network.seed)
        waiting: list[tuple[float, int, bytes]] = []
        start = time.monotonic()
        sequence = 0
        for frame in range(frames):
            captured[frame] = time.monotonic()
            with sent.step():
                last = frame == frames - 1
                packets = encoder.flush() if last else encoder.push(wav[frame * hop :][:hop])
            for payload in packets:
                header = parse_head(payload, encoder.header)
                stamp = header.start * hop & 0xFFFFFFFF
                data = RtpPacket(payload, sequence & 0xFFFF, stamp).to_bytes()
                sent.packet(len(data))
                delay = generator.uniform(0, network.jitter_ms / 1000) if realtime else 0.0
                if not lost[sequence]:
                    heapq.heappush(waiting, (time.monotonic() + delay, sequence, data))
                sequence += 1
            due = start + (frame + 1) * frame_s
            while waiting and (not realtime or waiting[0][0] < due):
                moment, _, data = heapq.heappop(waiting)
                if realtime:
                    time.sleep(max(0.0, moment - time.monotonic()))
                sender.sendto(data, receiver.getsockname())
            if realtime:
                time.sleep(max(0.0, due - time.monotonic()))
            else:
                time.sleep(0.001)  # loopback delivers while we wait
            play(frame)
            if on_tick is not None and frame % int(0.25 / frame_s) == 0:
                on_tick(sent, heard)
        for frame in range(frames, frames + int(jitter_buffer_ms / 1000 / frame_s) + 1):
            with lock:
                left = len(buffer._packets)
            if left:
                play(frame)
    finally:
        done.set()
        listener.join(2 * _TIMEOUT_S + 1)
        sender.close()
        receiver.close()
    audio = np.concatenate(played) if played else np.zeros(0, np.float32)
    return audio, sent, heard
