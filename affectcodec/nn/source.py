# SPDX-License-Identifier: Apache-2.0
"""Harmonic-plus-noise source with exact, unbounded phase.

The harmonic part is a band-limited pulse train: a sum of cosines in closed form (the Dirichlet
kernel), two sines a sample whatever the number of harmonics. Phase is a 32-bit fixed-point
fraction of a cycle held in int64, so it neither drifts over hours nor depends on chunking.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from affectcodec.nn.causal import Stateful, StreamState

_CYCLE = 2**32
_NOISE_LENGTH = 65536


def _hash_noise(length: int) -> Tensor:
    """Unit-variance uniform noise from an integer hash of the sample index.

    No random generator: the same numbers on every platform and release. The mixing constants are
    those of the splitmix64 generator (Steele, Lea, Flood 2014).
    """
    mask = 2**64 - 1
    values = []
    for i in range(length):
        x = (i + 1) * 0x9E3779B97F4A7C15 & mask
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & mask
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB & mask
        values.append(((x ^ (x >> 31)) >> 40) / 2**23 - 1.0)
    return torch.tensor(values, dtype=torch.float32) * math.sqrt(3.0)


class HarmonicNoiseSource(Stateful):
    """Excitation from frame-rate F0 and voicing, one buffer of two hops a frame.

    F0 of frame ``t`` holds at the frame's centre, ``t * hop_length``. The first hop of its buffer,
    ``[(t - 1) * hop_length, t * hop_length)``, moves linearly from the F0 before to this one; the
    second one, of which the next frame has the last word, holds it. So the decoder hears the
    contour without lag, though it has to fill windows that reach beyond the centre.
    """

    ramp: Tensor
    noise_table: Tensor

    def __init__(self, sample_rate: int, hop_length: int, top_hz: float | None = None) -> None:
        super().__init__()
        self.sample_rate, self.hop_length = sample_rate, hop_length
        # 7600 Hz at 16 kHz: short of half the rate, so that nothing folds back.
        self.top_hz = 0.475 * sample_rate if top_hz is None else top_hz
        ramp = torch.arange(1, hop_length + 1, dtype=torch.float32) / hop_length
        self.register_buffer("ramp", ramp, persistent=False)
        self.register_buffer("noise_table", _hash_noise(_NOISE_LENGTH), persistent=False)

    @torch.no_grad()
    def forward(
        self,
        f0: Tensor,
        voicing: Tensor,
        state: StreamState | None = None,
        noise_start: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Buffers over ``[(t - 1) * hop_length, (t + 1) * hop_length)`` of every frame ``t``.

        Args:
            f0: ``[B, T]`` in Hz, positive everywhere.
            voicing: ``[B, T]`` in [0, 1], amplitude of the harmonic part.
            noise_start: int64 ``[B]``, position in the noise table; training varies it.

        Returns:
            harmonic and noise parts, each ``[B, T, 2 * hop_length]``, about unit power when active.
        """
        batch, hop = f0.shape[0], self.hop_length
        self.require_key(state)
        key = self.state_key
        if state is not None and f"{key}.phase" in state:
            phase0, previous, position = (
                state[f"{key}.{part}"] for part in ("phase", "previous", "position")
            )
        else:
            phase0 = torch.zeros(batch, 1, dtype=torch.int64, device=f0.device)
            position = torch.zeros(batch, 1, dtype=torch.int64, device=f0.device)
            if noise_start is not None:
                position = noise_start.reshape(batch, 1)
            previous = f0.new_zeros(batch, 2)
        # A stream starts from a state of zeros: its first frame holds its own values.
        first = torch.stack([f0[:, 0], voicing[:, 0]], -1)
        previous = torch.where(previous[:, :1] > 0, previous, first)
        f0_from = torch.cat([previous[:, :1], f0[:, :-1]], 1)[..., None]
        v_from = torch.cat([previous[:, 1:], voicing[:, :-1]], 1)[..., None]
        f0_to, v_to = f0[..., None], voicing[..., None]

        hz = f0_from + (f0_to - f0_from) * self.ramp
        moving = torch.cumsum(self._step(hz), 2)  # [B, T, hop], from the start of the buffer
        ends = torch.cumsum(moving[..., -1], 1)  # phase at each frame's centre, less phase0
        starts = (phase0 + ends - moving[..., -1])[..., None]
        count = torch.arange(1, hop + 1, device=f0.device)
        held = moving[..., -1:] + self._step(f0_to) * count
        phase = (starts + torch.cat([moving, held], 2)) & (_CYCLE - 1)
        amplitude = torch.cat([v_from + (v_to - v_from) * self.ramp, v_to.expand(-1, -1, hop)], 2)
        # One harmonic count a buffer: a count that changes inside it would click.
        top = torch.maximum(f0_from, f0_to)
        harmonics = (self.top_hz / top).floor().clamp(min=1).long()
        harmonic = self._pulse_train(phase, harmonics) * amplitude.float()

        frame = torch.arange(f0.shape[1], device=f0.device)[:, None] * hop
        offset = frame + torch.arange(2 * hop, device=f0.device)
        noise = self.noise_table[(position[..., None] + offset) % _NOISE_LENGTH]
        if state is not None:
            state[f"{key}.phase"] = (phase0 + ends[:, -1:]) & (_CYCLE - 1)
            state[f"{key}.previous"] = torch.stack([f0[:, -1], voicing[:, -1]], -1)
            state[f"{key}.position"] = (position + f0.shape[1] * hop) % _NOISE_LENGTH
        return harmonic, noise

    def _step(self, hz: Tensor) -> Tensor:
        """Phase step a sample in fixed point, int64."""
        return torch.round(hz.double() * (_CYCLE / self.sample_rate)).long()

    @staticmethod
    def _pulse_train(phase: Tensor, count: Tensor) -> Tensor:
        """``sqrt(2 / K) * sum_{k=1..K} cos(2 pi k phase)`` in closed form, exact phase folding."""
        n = 2 * count + 1
        # sin(pi n x) has period 2 in x for odd n: fold in 33-bit fixed point before the float.
        turns = (n * phase) & (2 * _CYCLE - 1)
        upper = torch.sin(turns.double() * (math.pi / _CYCLE))
        lower = torch.sin(phase.double() * (math.pi / _CYCLE))
        near_zero = lower.abs() < 1e-6
        ratio = torch.where(near_zero, n.double(), upper / torch.where(near_zero, 1.0, lower))
        return ((ratio - 1) / 2 * torch.sqrt(2 / count.double())).float()
