# SPDX-License-Identifier: Apache-2.0
"""Spectra with a backward of their own, against torch.stft and finite differences."""

from __future__ import annotations

import pytest
import torch

from affectcodec.training.spectrogram import magnitude, spectrum

SIZES = [(32, 8, 100), (32, 32, 64), (48, 12, 7), (64, 16, 1)]


def windows(size: int) -> torch.Tensor:
    return torch.hann_window(size, dtype=torch.float64)


def reference(wav: torch.Tensor, size: int, hop: int) -> torch.Tensor:
    out = torch.stft(
        wav, size, hop, window=windows(size), center=True, pad_mode="constant", return_complex=True
    )
    return out.transpose(1, 2)


@pytest.mark.parametrize(("size", "hop", "length"), SIZES)
def test_spectra_and_their_gradients_are_those_of_stft(size: int, hop: int, length: int) -> None:
    torch.manual_seed(0)
    wav = torch.randn(3, length, dtype=torch.float64, requires_grad=True)
    got, want = spectrum(wav, windows(size), hop), reference(wav, size, hop)
    torch.testing.assert_close(got, want)
    weight = torch.randn_like(want.real) + 1j * torch.randn_like(want.real)
    (a,) = torch.autograd.grad((got * weight).abs().square().sum(), wav)
    (b,) = torch.autograd.grad((want * weight).abs().square().sum(), wav)
    torch.testing.assert_close(a, b)


@pytest.mark.parametrize(("size", "hop", "length"), SIZES)
def test_magnitudes_and_their_gradients_are_those_of_stft(size: int, hop: int, length: int) -> None:
    torch.manual_seed(1)
    wav = torch.randn(2, length, dtype=torch.float64, requires_grad=True)
    got = magnitude(wav, windows(size), hop, 1e-6)
    want = torch.sqrt(reference(wav, size, hop).abs().square() + 1e-6)
    torch.testing.assert_close(got, want)
    weight = torch.randn_like(want)
    (a,) = torch.autograd.grad((got * weight).sum(), wav)
    (b,) = torch.autograd.grad((want * weight).sum(), wav)
    torch.testing.assert_close(a, b)


def test_gradients_of_silence_are_finite() -> None:
    wav = torch.zeros(1, 64, requires_grad=True)
    magnitude(wav, torch.hann_window(32), 8).sum().backward()
    assert wav.grad is not None and bool(torch.isfinite(wav.grad).all())


@pytest.mark.parametrize(
    ("wav", "hop", "words"),
    [
        (torch.zeros(8), 8, r"float \[B, N\], got torch.float32 \(8,\)"),
        (torch.zeros(1, 8, dtype=torch.int32), 8, "int32"),
        (torch.zeros(1, 8), 5, "divisor of the even window size 32, got 5"),
        (torch.zeros(1, 8), 0, "got 0"),
    ],
)
def test_bad_arguments_are_named(wav: torch.Tensor, hop: int, words: str) -> None:
    for function in (spectrum, magnitude):
        with pytest.raises(ValueError, match=words):
            function(wav, torch.hann_window(32), hop)
