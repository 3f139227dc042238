# SPDX-License-Identifier: Apache-2.0
"""Known answers: identical, louder, noisier, silent."""

from __future__ import annotations

import numpy as np
import pytest

from affectcodec.evaluation.alignment import active_frames
from affectcodec.evaluation.metrics import METRICS, measure, pesq_wb, stoi
from affectcodec.evaluation.spectral import energy_metrics, mel_distances, mel_filters

pytest.importorskip("pesq")
pytest.importorskip("pystoi")
pytest.importorskip("swift_f0")


def speechlike(seconds: float = 3.0, seed: int = 0) -> np.ndarray:
    """Gliding harmonics with noise in syllables, half a second of near silence at both ends."""
    rng = np.random.default_rng(seed)
    n = int(seconds * 16000)
    t = np.arange(n) / 16000
    f0 = 140 * 2 ** (0.4 * np.sin(2 * np.pi * 0.7 * t))
    phase = 2 * np.pi * np.cumsum(f0) / 16000
    tone = sum(np.sin(k * phase) / k for k in range(1, 25))
    syllables = np.clip(np.sin(2 * np.pi * 2.5 * t) + 0.5, 0, None)
    x = 0.05 * syllables * (tone + 0.3 * rng.standard_normal(n))
    x[:8000] = x[-8000:] = 0
    return (x + 1e-6 * rng.standard_normal(n)).astype("f4")


def ones(n: int) -> np.ndarray:
    return np.ones(1 + (n - 400) // 160, dtype=bool)


def test_identical_input_is_perfect() -> None:
    x = speechlike()
    scores = measure(x, x)
    assert not scores.failures
    assert scores.values["pesq_wb"] > 4.6
    for name in ("stoi", "estoi", "f0_corr", "energy_corr", "f0_range_ratio", "ac_f0_corr"):
        assert scores.values[name] == pytest.approx(1.0, abs=1e-6)
    for name in ("f0_rmse_cents", "vuv_error", "mel_db", "mel_4k_db", "level_error_db"):
        assert scores.values[name] == 0.0


def test_every_metric_has_a_value() -> None:
    x = speechlike()
    assert list(measure(x, x).values) == [m.name for m in METRICS]


@pytest.mark.parametrize("gain_db", [6.0, -6.0])
def test_level_is_measured_and_nothing_else_moves(gain_db: float) -> None:
    x = speechlike()
    values = measure(x, x * np.float32(10 ** (gain_db / 20))).values
    assert values["level_diff_db"] == pytest.approx(gain_db, abs=1e-3)
    assert values["level_error_db"] == pytest.approx(6.0, abs=1e-3)
    assert values["energy_corr"] == pytest.approx(1.0)
    assert values["f0_corr"] == pytest.approx(1.0)
    assert values["pesq_wb"] > 4.6


def test_louder_noise_has_that_mel_distance() -> None:
    x = 0.1 * np.random.default_rng(0).standard_normal(16000)
    out = mel_distances(x, x * 2, ones(16000))
    assert out["mel_db"] == pytest.approx(6.0206, abs=1e-3)
    assert out["mel_4k_db"] == pytest.approx(6.0206, abs=1e-3)


def test_lost_upper_band_counts_only_in_the_full_band() -> None:
    x = 0.1 * np.random.default_rng(0).standard_normal(16000)
    spectrum = np.fft.rfft(x)
    spectrum[np.fft.rfftfreq(16000, 1 / 16000) > 4100] = 0
    out = mel_distances(x, np.fft.irfft(spectrum), ones(16000))
    assert out["mel_db"] > 10 and out["mel_4k_db"] < 0.1


def test_what_is_far_below_the_strongest_band_is_equal() -> None:
    x = speechlike()
    quiet = x + 1e-6 * np.random.default_rng(9).standard_normal(len(x))
    assert measure(x, quiet.astype("f4")).values["mel_db"] < 0.1


def test_every_mel_filter_sees_a_bin() -> None:
    filters, upper = mel_filters()
    assert filters.shape == (80, 257) and (filters.sum(axis=1) > 0).all()
    assert upper[-1] == pytest.approx(8000.0)


def test_more_noise_is_worse_everywhere() -> None:
    x = speechlike()
    noise = np.random.default_rng(3).standard_normal(len(x)).astype("f4")
    low, high = measure(x, x + 0.001 * noise).values, measure(x, x + 0.03 * noise).values
    for metric in METRICS:
        if metric.name in ("pesq_wb", "stoi", "estoi", "mel_db", "energy_corr", "level_error_db"):
            assert metric.better * (low[metric.name] - high[metric.name]) > 0, metric.name


def test_silence_at_the_ends_does_not_count() -> None:
    x = speechlike()
    deg = x + 0.002 * np.random.default_rng(1).standard_normal(len(x)).astype("f4")
    longer = [np.concatenate([np.zeros(8000, "f4"), w, np.zeros(8000, "f4")]) for w in (x, deg)]
    a, b = measure(x, deg).values, measure(*longer).values
    assert a["mel_db"] == pytest.approx(b["mel_db"], rel=0.02)
    assert a["vuv_error"] == pytest.approx(b["vuv_error"], abs=0.02)


def test_silent_original_and_silent_output() -> None:
    x = speechlike()
    silent = measure(np.zeros_like(x), x)
    assert all(np.isnan(v) for v in silent.values.values())
    assert set(silent.failures) == {m.name for m in METRICS}
    lost = measure(x, np.zeros_like(x))
    assert np.isnan(lost.values["pesq_wb"]) and "silent" in lost.failures["pesq_wb"]
    assert lost.values["vuv_error"] > 0.3 and lost.values["mel_db"] > 20
    assert np.isfinite(lost.values["level_diff_db"])


def test_too_short_is_said() -> None:
    x = speechlike()[12000:14000]
    with pytest.raises(ValueError, match="0.4 s"):
        stoi(x, x)
    with pytest.raises(ValueError, match=r"[Bb]uffer|short|utterance"):
        pesq_wb(x, x)
    scores = measure(x, x)
    assert np.isnan(scores.values["stoi"]) and "stoi" in scores.failures


def test_unusable_pairs() -> None:
    x = speechlike()
    with pytest.raises(ValueError, match="align"):
        measure(x, x[:-1])
    with pytest.raises(ValueError, match="deg has NaN"):
        measure(x, np.where(np.arange(len(x)) == 5, np.nan, x))


def test_energy_correlation_of_a_flattened_contour_is_low() -> None:
    x = speechlike()
    levels = np.sqrt(np.convolve(x.astype(float) ** 2, np.ones(400) / 400, mode="same"))
    flat = x / np.maximum(levels, 1e-3)
    active = active_frames(x)
    assert energy_metrics(x, flat, active)["energy_corr"] < 0.95
    assert np.isnan(energy_metrics(x, x, np.zeros_like(active))["energy_corr"])


def test_a_voice_higher_by_a_known_interval() -> None:
    t = np.arange(32000) / 16000
    contour = 130 * 2 ** (0.4 * np.sin(2 * np.pi * 0.7 * t))

    def sung(f0: np.ndarray) -> np.ndarray:
        phase = 2 * np.pi * np.cumsum(f0) / 16000
        return (0.05 * sum(np.sin(k * phase) / k for k in range(1, 15))).astype("f4")

    semitone = measure(sung(contour), sung(contour * 2 ** (1 / 12))).values
    octave = measure(sung(contour), sung(2 * contour)).values
    flat = measure(sung(contour), sung(np.full_like(contour, 130.0))).values
    for prefix in ("", "ac_"):
        assert semitone[f"{prefix}f0_rmse_cents"] == pytest.approx(100.0, abs=3.0)
        assert semitone[f"{prefix}f0_corr"] > 0.999
        assert semitone[f"{prefix}gross_pitch_error"] == 0.0
        assert semitone[f"{prefix}f0_range_ratio"] == pytest.approx(1.0, abs=0.02)
        assert octave[f"{prefix}f0_rmse_cents"] == pytest.approx(1200.0, abs=10.0)
        assert octave[f"{prefix}gross_pitch_error"] == 1.0
        assert flat[f"{prefix}f0_range_ratio"] < 0.05
