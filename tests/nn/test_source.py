# SPDX-License-Identifier: Apache-2.0
"""The harmonic-plus-noise source: right frequencies, exact phase, no aliasing, the same noise."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from affectcodec.nn.causal import assign_state_keys
from affectcodec.nn.source import HarmonicNoiseSource

HOP, RATE = 320, 16000


def source(top_hz: float | None = None) -> HarmonicNoiseSource:
    module = HarmonicNoiseSource(RATE, HOP, top_hz)
    assign_state_keys(module)
    return module


def constant(hz: float, frames: int = 50, voicing: float = 1.0) -> tuple[Tensor, Tensor]:
    return torch.full((1, frames), hz), torch.full((1, frames), voicing)


def waves(module: HarmonicNoiseSource, *args: object) -> tuple[Tensor, Tensor]:
    """Settled first hops of all buffers in a row, ``[B, T * HOP]``."""
    harmonic, noise = module(*args)
    return harmonic[..., :HOP].flatten(1), noise[..., :HOP].flatten(1)


@pytest.mark.parametrize("hz", [60, 125, 333, 700])
def test_spectrum_is_equal_harmonics_below_the_limit(hz: int) -> None:
    harmonic, _ = waves(source(), *constant(hz))  # one second: a bin is one hertz
    level = torch.fft.rfft(harmonic[0].double()).abs() / (RATE / 2)
    count = 7600 // hz
    partials = torch.arange(1, count + 1) * hz
    want = torch.full((count,), math.sqrt(2 / count), dtype=torch.float64)
    torch.testing.assert_close(level[partials], want, rtol=2e-3, atol=0)
    level[partials] = 0
    # One f0 step is 4e-6 Hz, so what leaks beside the lines is tiny; above the limit is nothing.
    assert float(level.max()) < 1e-3
    assert float(level[7601:].max()) < 1e-3
    assert float(harmonic.double().square().mean()) == pytest.approx(1, abs=0.01)


def test_the_limit_follows_the_sample_rate() -> None:
    module = HarmonicNoiseSource(8000, 160)
    assign_state_keys(module)
    harmonic, _ = module(*constant(125))
    level = torch.fft.rfft(harmonic[..., :160].flatten().double()).abs() / 4000
    lines = torch.arange(1, 31) * 125  # up to 3750 of 3800 Hz
    torch.testing.assert_close(
        level[lines], torch.full((30,), math.sqrt(2 / 30), dtype=torch.float64), rtol=2e-3, atol=0
    )
    level[lines] = 0
    assert float(level.max()) < 1e-3


def test_closed_form_is_the_sum_of_cosines() -> None:
    near = torch.tensor([0, 1, 2, 1000, 2**32 - 1, 2**32 - 1000, 2**31, 2**31 - 1])
    phase = torch.cat([near, torch.randint(0, 2**32, (500,))])[None]
    turn = 2 * math.pi * phase.double() / 2**32
    for count in (1, 2, 10, 126):
        got = HarmonicNoiseSource._pulse_train(phase, torch.full_like(phase, count))
        want = sum(torch.cos(k * turn) for k in range(1, count + 1)) * math.sqrt(2 / count)
        torch.testing.assert_close(got.double(), want, rtol=0, atol=2e-5)


def test_phase_advances_by_the_integral_of_f0() -> None:
    f0 = 100 + 200 * torch.rand(1, 400)
    state: dict[str, Tensor] = {}
    module = source()
    module(f0, torch.ones_like(f0), state)
    # The first frame holds its own value, the others run linearly from the one before.
    before = torch.cat([f0[:, :1], f0[:, :-1]], 1).double()
    ramp = torch.arange(1, HOP + 1).double() / HOP
    cycles = (before[..., None] + (f0.double() - before)[..., None] * ramp).sum() / RATE
    got = float(state[f"{module.state_key}.phase"]) / 2**32
    error = (got - float(cycles)) % 1
    assert min(error, 1 - error) < 1e-3


def test_f0_is_reached_at_the_centre_of_its_frame() -> None:
    f0 = torch.tensor([[100.0, 120.0, 120.0]])
    harmonic, _ = waves(source(top_hz=130), f0, torch.ones(1, 3))  # a single cosine
    phase = torch.acos((harmonic[0].double() / math.sqrt(2)).clamp(-1, 1))
    rate = phase.diff().abs() * RATE / (2 * math.pi)
    steady = rate[(phase[1:] > 0.5) & (phase[1:] < 2.6) & (phase[:-1] > 0.5) & (phase[:-1] < 2.6)]
    assert float(steady.min()) == pytest.approx(100, abs=0.5)
    assert float(steady.max()) == pytest.approx(120, abs=0.5)


@pytest.mark.parametrize("sizes", [[1] * 12, [5, 1, 6], [11, 1]])
def test_chunks_are_bitwise_the_whole(sizes: list[int]) -> None:
    f0, voicing = 60 + 600 * torch.rand(3, 12), torch.rand(3, 12)
    module = source()
    want = module(f0, voicing)
    state: dict[str, Tensor] = {}
    parts = [
        module(a, b, state)
        for a, b in zip(f0.split(sizes, 1), voicing.split(sizes, 1), strict=True)
    ]
    for i in range(2):
        assert torch.equal(torch.cat([part[i] for part in parts], 1), want[i])


def test_the_phase_of_a_long_stream_is_exact() -> None:
    module = source()
    state: dict[str, Tensor] = {}
    for _ in range(3):
        module(*constant(123.456, 1000), state)
    step = round(float(torch.tensor(123.456)) * 2**32 / RATE)
    assert int(state[f"{module.state_key}.phase"]) == 3000 * HOP * step % 2**32


def test_voicing_scales_the_harmonics_alone() -> None:
    f0, voicing = constant(150.0, 6)
    module = source()
    full, noise = waves(module, f0, voicing)
    silent, same_noise = waves(module, f0, 0 * voicing)
    assert not silent.any()
    assert torch.equal(noise, same_noise)
    half, _ = waves(module, f0, 0.5 * voicing)
    torch.testing.assert_close(half, 0.5 * full, rtol=0, atol=1e-6)
    voicing[:, 3:] = 0
    fading, _ = waves(module, f0, voicing)
    assert torch.equal(fading[:, : 3 * HOP], full[:, : 3 * HOP])
    ramp = 1 - torch.arange(1, HOP + 1) / HOP
    torch.testing.assert_close(
        fading[:, 3 * HOP : 4 * HOP], full[:, 3 * HOP : 4 * HOP] * ramp, rtol=0, atol=1e-4
    )
    assert not fading[:, 4 * HOP :].any()


def splitmix64(index: int) -> float:
    """Number ``index`` of the sequence, written down once more from its publication."""
    mask = (1 << 64) - 1
    x = (index + 1) * 0x9E3779B97F4A7C15 & mask
    x = ((x ^ x >> 30) * 0xBF58476D1CE4E5B9) & mask
    x = ((x ^ x >> 27) * 0x94D049BB133111EB) & mask
    return math.sqrt(3) * (((x ^ x >> 31) >> 40) / 2**23 - 1)


def test_noise_is_white_of_unit_power_and_always_the_same() -> None:
    _, noise = waves(source(), *constant(100.0, 204))  # 65280 samples
    x = noise[0].double()
    assert float(x.mean()) == pytest.approx(0, abs=0.02)
    assert float(x.square().mean()) == pytest.approx(1, abs=0.02)
    assert float(x.abs().max()) <= math.sqrt(3) + 1e-6
    spectrum = torch.fft.rfft(x, 2 * len(x)).abs().square()
    correlation = torch.fft.irfft(spectrum)[1:2000] / len(x)
    assert float(correlation.abs().max()) < 0.03
    want = [splitmix64(i) for i in (0, 1, 2, 1000)]
    assert x[[0, 1, 2, 1000]].tolist() == pytest.approx(want, abs=1e-6)


def test_noise_start_shifts_the_noise() -> None:
    f0, voicing = constant(100.0, 8)
    module = source()
    _, noise = waves(module, f0.repeat(2, 1), voicing.repeat(2, 1), None, torch.tensor([0, HOP]))
    assert torch.equal(noise[1, :-HOP], noise[0, HOP:])
    _, wrapped = waves(module, f0, voicing, None, torch.tensor([65536 - 5]))
    assert torch.equal(wrapped[0, 5:], noise[0, :-5])


def test_clips_of_a_batch_do_not_share_phase() -> None:
    f0 = torch.tensor([[100.0] * 5, [237.0] * 5])
    both, _ = source()(f0, torch.ones(2, 5))
    for i in range(2):
        alone, _ = source()(f0[i : i + 1], torch.ones(1, 5))
        assert torch.equal(both[i], alone[0])


def test_second_hop_holds_f0_and_continues_the_phase() -> None:
    f0 = torch.tensor([[100.0, 200.0, 200.0, 200.0]])
    harmonic, noise = source()(f0, torch.ones(1, 4))
    # Where F0 stays, the held hop is what the next frame settles on; noise always is.
    torch.testing.assert_close(harmonic[:, 1:-1, HOP:], harmonic[:, 2:, :HOP], rtol=0, atol=1e-5)
    assert torch.equal(noise[:, :-1, HOP:], noise[:, 1:, :HOP])
    # Where F0 moves on, it is not.
    assert float((harmonic[:, 0, HOP:] - harmonic[:, 1, :HOP]).abs().max()) > 0.5
