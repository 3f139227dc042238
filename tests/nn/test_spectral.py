# SPDX-License-Identifier: Apache-2.0
"""Short-time analysis and synthesis against torch's FFT, and the pitch features by known tones."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from affectcodec.nn.causal import assign_state_keys
from affectcodec.nn.spectral import (
    OverlapAddSynthesis,
    PitchFeatures,
    ShortTimeAnalysis,
    WindowedDFT,
    dft_basis,
    inverse_dft_basis,
    log_magnitude,
)

HOP, WINDOW, SHORT_HOP = 320, 480, 160


def analysis() -> ShortTimeAnalysis:
    module = ShortTimeAnalysis(HOP, WINDOW, SHORT_HOP)
    assign_state_keys(module)
    return module


def synthesis() -> OverlapAddSynthesis:
    module = OverlapAddSynthesis(HOP, WINDOW, SHORT_HOP)
    assign_state_keys(module)
    return module


def chunked(module: torch.nn.Module, x: Tensor, sizes: list[int]) -> Tensor:
    state: dict[str, Tensor] = {}
    return torch.cat([module(part, state) for part in x.split(sizes, 1)], 1)


@pytest.mark.parametrize("size", [8, 480, 1024])
def test_bases_are_the_windowed_fft_and_its_inverse(size: int) -> None:
    x = torch.randn(5, size, dtype=torch.float64)
    window = torch.hann_window(size, dtype=torch.float64)
    want = torch.fft.rfft(x * window)
    got = x @ dft_basis(size).double()
    torch.testing.assert_close(got, torch.cat([want.real, want.imag], 1), rtol=0, atol=2e-5)
    spectrum = torch.fft.rfft(x)
    back = torch.cat([spectrum.real, spectrum.imag], 1) @ inverse_dft_basis(size).double()
    torch.testing.assert_close(back, x * window, rtol=0, atol=2e-5)


def test_analysis_frames_are_those_of_stft() -> None:
    x = torch.randn(2, 10 * HOP)
    got = analysis()(x)
    assert got.shape == (2, 20, 2 * 241)
    before = torch.cat([torch.zeros(2, HOP), x], 1).double()
    want = torch.stft(
        before,
        WINDOW,
        SHORT_HOP,
        window=torch.hann_window(WINDOW, dtype=torch.float64),
        center=False,
        return_complex=True,
    ).transpose(1, 2)
    torch.testing.assert_close(got, torch.cat([want.real, want.imag], 2), rtol=0, atol=1e-12)


def test_no_window_reaches_beyond_its_frame() -> None:
    x = torch.randn(1, 6 * HOP)
    want = analysis()(x)
    for frame in range(6):
        changed = x.clone()
        changed[:, (frame + 1) * HOP :] = 1e3
        seen = 2 * (frame + 1)
        assert torch.equal(analysis()(changed)[:, :seen], want[:, :seen])
        # Its last sample is used: there is no needless delay.
        changed = x.clone()
        changed[:, (frame + 1) * HOP - 2] += 1
        assert not torch.equal(analysis()(changed)[:, seen - 1], want[:, seen - 1])


def test_synthesis_of_the_analysis_is_the_wave_one_hop_late() -> None:
    x = torch.randn(2, 12 * HOP)
    y = synthesis()(analysis()(x).float())
    torch.testing.assert_close(y[:, HOP:], x[:, :-HOP], rtol=0, atol=1e-5)
    # What lies before the first sample is the silence that the analysis assumed.
    torch.testing.assert_close(y[:, :HOP], torch.zeros(2, HOP), rtol=0, atol=1e-5)


def test_synthesis_is_torch_istft() -> None:
    spectrum = torch.randn(2, 24, 2 * 241)
    real, imag = spectrum.chunk(2, 2)
    want = torch.istft(
        torch.complex(real, imag).transpose(1, 2),
        WINDOW,
        SHORT_HOP,
        window=torch.hann_window(WINDOW),
        center=True,
    )
    got = synthesis()(spectrum)
    assert got.shape == (2, 24 * SHORT_HOP)
    # Both are complete where three windows overlap; istft has cut half a window at its start.
    start, stop = WINDOW - SHORT_HOP, 24 * SHORT_HOP
    trimmed = WINDOW // 2
    torch.testing.assert_close(
        got[:, start:stop], want[:, start - trimmed : stop - trimmed], rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("sizes", [[1] * 9, [4, 1, 4], [8, 1]])
def test_chunks_equal_the_whole(sizes: list[int]) -> None:
    x = torch.randn(2, 9 * HOP)
    spectrum = analysis()(x)
    got = chunked(analysis(), x, [n * HOP for n in sizes])
    torch.testing.assert_close(got, spectrum, rtol=0, atol=1e-12)
    spectrum = spectrum.float()
    got = chunked(synthesis(), spectrum, [2 * n for n in sizes])
    torch.testing.assert_close(got, synthesis()(spectrum), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("window", "hop"), [(480, 320), (500, 160)])
def test_windows_that_do_not_add_up_are_refused(window: int, hop: int) -> None:
    with pytest.raises(ValueError, match=f"window {window}, hop {hop}"):
        OverlapAddSynthesis(HOP, window, hop)


def test_log_magnitude_of_silence_is_finite() -> None:
    assert bool(torch.isfinite(log_magnitude(torch.zeros(1, 2, 482))).all())
    loud = log_magnitude(torch.tensor([[3.0, 4.0]]))
    assert float(loud) == pytest.approx(math.log(5), abs=1e-5)


def pitch() -> PitchFeatures:
    module = PitchFeatures(HOP, 16000, 1024, 60.0, 700.0)
    assign_state_keys(module)
    return module


@pytest.mark.parametrize("hz", [80.0, 125.0, 200.0, 400.0])
def test_the_autocorrelation_peaks_at_the_period(hz: float) -> None:
    module = pitch()
    t = torch.arange(20 * HOP, dtype=torch.float64) / 16000
    wave = sum(torch.cos(2 * math.pi * hz * k * t) / k for k in range(1, 6))
    lags = module(0.1 * wave.float()[None])[0, -1, : len(module.lags)]
    # Multiples of the period are as high as the period: look up to 1.5 of them.
    near = [i for i, lag in enumerate(module.lags) if lag < 1.5 * 16000 / hz]
    best = module.lags[int(lags[near].argmax())]
    assert abs(best - 16000 / hz) <= 1
    assert float(lags[near].max()) / 2 > 0.9  # harmonicity of a pure tone is near 1


def test_noise_has_no_peak() -> None:
    module = pitch()
    lags = module(torch.randn(1, 20 * HOP))[0, -1, : len(module.lags)]
    assert float(lags.max()) / 2 < 0.6


def test_pitch_features_are_causal_and_chunked() -> None:
    x = 0.1 * torch.randn(2, 9 * HOP)
    want = pitch()(x)
    assert want.shape == (2, 9, pitch().channels)
    changed = x.clone()
    changed[:, 5 * HOP :] = 9.0
    assert torch.equal(pitch()(changed)[:, :5], want[:, :5])
    got = chunked(pitch(), x, [HOP, 3 * HOP, 5 * HOP])
    torch.testing.assert_close(got, want, rtol=0, atol=1e-3)


def test_level_moves_one_pitch_feature_only() -> None:
    x = torch.randn(1, 6 * HOP)
    quiet, loud = pitch()(x), pitch()(10 * x)
    shift = (loud - quiet)[:, 4:]
    torch.testing.assert_close(
        shift[..., -1], torch.full_like(shift[..., -1], 0.3 * math.log(10)), rtol=0, atol=1e-4
    )
    assert float(shift[..., :-1].abs().max()) < 1e-3


@pytest.mark.parametrize("size", [32, 480, 1024])
@pytest.mark.parametrize("by_fft", [False, True], ids=["float64", "as the frames"])
def test_the_transform_is_the_product_with_the_basis(size: int, by_fft: bool) -> None:
    torch.manual_seed(0)
    dft = WindowedDFT(size)
    dft.by_fft = by_fft
    frames = torch.randn(2, 5, size, requires_grad=True)
    want = frames.double() @ dft_basis(size, torch.float64)
    got = dft(frames)
    assert got.dtype == (torch.float32 if by_fft else torch.float64)
    tolerance = 1e-4 if by_fft else 1e-10
    torch.testing.assert_close(got.double(), want, rtol=tolerance, atol=tolerance)
    weight = torch.randn_like(want)
    for a, b in zip(
        torch.autograd.grad((got * weight).sum(), frames),
        torch.autograd.grad((want * weight).sum(), frames),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_the_fast_synthesis_is_the_transposed_convolution() -> None:
    torch.manual_seed(0)
    module = synthesis()
    spectrum = torch.randn(2, 12, 2 * (WINDOW // 2 + 1), requires_grad=True)
    want = module(spectrum)
    module.by_fft = True
    got = module(spectrum)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    weight = torch.randn_like(want)
    (a,) = torch.autograd.grad((got * weight).sum(), spectrum)
    (b,) = torch.autograd.grad((want * weight).sum(), spectrum)
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
