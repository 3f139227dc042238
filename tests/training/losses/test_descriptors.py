# SPDX-License-Identifier: Apache-2.0
"""Frame descriptors of sounds whose properties are known."""

from __future__ import annotations

import math

import torch

from affectcodec.training.losses import FrameDescriptors

RATE, HOP = 16000, 320


def described(wav: torch.Tensor, hz: float = 200.0):
    module = FrameDescriptors(RATE, HOP, 60.0, 700.0)
    frames = wav.shape[1] // HOP + 1
    return module(wav, torch.full((len(wav), frames), math.log(hz)))


def harmonics(hz: float, slope: float = 1.0, seconds: float = 1.0) -> torch.Tensor:
    time = torch.arange(int(RATE * seconds), dtype=torch.float64) / RATE
    count = int(7000 / hz)
    parts = [torch.sin(2 * math.pi * hz * k * time + k) * k**-slope for k in range(1, count)]
    return (0.1 * torch.stack(parts).sum(0)).float()[None]


def test_shapes() -> None:
    out = described(torch.randn(2, 10 * HOP))
    assert out.log_energy.shape == out.tilt.shape == out.harmonicity.shape == (2, 11)
    assert out.salience.shape[:2] == (2, 11)


def test_a_periodic_sound_is_harmonic_at_its_own_pitch_and_noise_is_not() -> None:
    middle = slice(10, 40)
    for hz in (70.0, 123.0, 457.0, 650.0):
        own = described(harmonics(hz), hz).harmonicity[0, middle]
        other = described(harmonics(hz), hz * 1.4 if hz < 400 else hz / 1.4)
        assert float(own.min()) > 2.5, hz
        assert float(other.harmonicity[0, middle].mean()) < float(own.mean()) - 2
    torch.manual_seed(0)
    noise = described(0.1 * torch.randn(1, RATE)).harmonicity[0, middle]
    assert float(noise.mean()) < -1.5


def test_salience_peaks_at_the_period() -> None:
    out = described(harmonics(200.0))
    first = int(RATE / 700.0)
    lag = int(out.salience[0, 25].argmax()) + first
    assert min(abs(lag - period) for period in (80, 160, 240)) <= 1


def test_tilt_is_the_slope_of_the_spectrum() -> None:
    # Harmonics that fall by 1/k lose ln 2 an octave; third-octave means of few harmonics are rough.
    flat, falling = (described(harmonics(80.0, s)).tilt[0, 10:40].mean() for s in (0.0, 1.0))
    assert abs(float(flat)) < 0.15
    assert abs(float(falling) + math.log(2)) < 0.15


def test_level_changes_energy_alone() -> None:
    wav = harmonics(150.0)
    loud, soft = described(wav, 150.0), described(0.1 * wav, 150.0)
    middle = slice(10, 40)
    step = (loud.log_energy - soft.log_energy)[0, middle]
    torch.testing.assert_close(step, torch.full_like(step, math.log(10)), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(
        loud.harmonicity[0, middle], soft.harmonicity[0, middle], rtol=0.05, atol=0.05
    )


def test_gradients_are_finite_even_for_silence() -> None:
    for wav in (torch.zeros(1, 10 * HOP), 0.1 * torch.randn(1, 10 * HOP)):
        leaf = wav.requires_grad_()
        out = described(leaf)
        sum(part.sum() for part in out).backward()
        assert leaf.grad is not None and bool(torch.isfinite(leaf.grad).all())


def test_against_float64() -> None:
    torch.manual_seed(1)
    wav = harmonics(130.0) + 0.02 * torch.randn(1, RATE)
    module = FrameDescriptors(RATE, HOP, 60.0, 700.0)
    log_f0 = torch.full((1, RATE // HOP + 1), math.log(130.0))
    single = module(wav, log_f0)
    double = module.double()(wav.double(), log_f0.double())
    for a, b in zip(single, double, strict=True):
        torch.testing.assert_close(a, b.float(), rtol=1e-3, atol=1e-3)
