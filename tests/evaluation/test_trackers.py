# SPDX-License-Identifier: Apache-2.0
"""The comparison of F0 trackers: its signals, its means, its command."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from affectcodec.evaluation.pitch import METHODS
from affectcodec.evaluation.trackers import (
    AS_IS,
    CHANGES,
    GIVEN,
    ITSELF,
    SCORES,
    Clock,
    Line,
    main,
    markdown,
    measure,
    with_given_contour,
)
from tests.evaluation.sounds import corpus, speech

MARKS = "before\n<!-- evaluation:trackers -->\nold\n<!-- /evaluation -->\nafter\n"


@pytest.fixture
def packages() -> None:
    for package in ("pyworld", "swift_f0", "scipy"):
        pytest.importorskip(package)


def level_db(x: np.ndarray, hz: float) -> float:
    spectrum = np.abs(np.fft.rfft(x)) / len(x) * 2
    return float(20 * np.log10(spectrum[round(hz * len(x) / 16000)]))


def test_changes_do_what_their_names_say(packages: None) -> None:
    t = np.arange(16000) / 16000
    x = 0.1 * sum(np.sin(2 * np.pi * hz * t) for hz in (100.0, 1000.0, 6000.0))
    rng = np.random.default_rng(0)
    out = {name: change(x, rng) for name, change in CHANGES.items()}
    assert all(wave.shape == x.shape for wave in out.values())
    # fourth order in both directions together: 24 dB an octave
    high, low = out["high-pass, 250 Hz"], out["low-pass, 3.4 kHz"]
    assert level_db(high, 100) < -48 and level_db(high, 1000) == pytest.approx(-20, abs=0.2)
    assert level_db(low, 6000) < -48 and level_db(low, 1000) == pytest.approx(-20, abs=0.2)
    noise = out["white noise, 20 dB SNR"] - x
    assert 10 * np.log10(np.mean(x**2) / np.mean(noise**2)) == pytest.approx(20, abs=0.2)
    assert 0 < np.abs(out["8-bit mu-law"] - x).max() < 0.02
    np.testing.assert_allclose(out["20 dB softer"], 0.1 * x)


def test_a_given_contour_is_what_is_heard(packages: None) -> None:
    found = with_given_contour(speech("angry", 1, seconds=2.0))
    assert found is not None
    wave, given = found
    assert wave.shape == (32000,) and given.shape == (401,)
    voiced = given[given > 0]
    assert voiced.min() >= 65 and voiced.max() <= 650 and voiced.max() / voiced.min() > 1.5
    clock = Clock(dict.fromkeys(METHODS, 0.0))
    lines = measure(speech("angry", 1), 0, clock)
    clean = {line.tracker: line for line in lines if (line.truth, line.change) == (GIVEN, AS_IS)}
    for method in METHODS:
        assert clean[method].scores["f0_corr"] > 0.97, method
        assert clean[method].scores["cents"] < 25, method
    assert len(lines) == len(METHODS) * (2 * len(CHANGES) + 1)
    assert all(seconds > 0 for seconds in clock.spent.values())


def test_nothing_to_hear_gives_no_line(packages: None) -> None:
    clock = Clock(dict.fromkeys(METHODS, 0.0))
    assert measure(np.zeros(16000, np.float32), 0, clock) == []
    assert with_given_contour(np.zeros(16000)) is None


def test_means_are_over_clips_that_every_tracker_has() -> None:
    lines = []
    for method in METHODS:
        for clip, corr in enumerate((0.5, 0.9)):
            # the last tracker finds no correlation in the second clip: it counts for none
            value = math.nan if clip and method == METHODS[-1] else corr
            scores = {"f0_corr": value, "gross_pitch_error": 0.25, "vuv_error": 0.125}
            lines.append(Line(ITSELF, "8-bit mu-law", method, scores))
    text = markdown(lines, Clock(dict.fromkeys(METHODS, 3.0), 2.0))
    row = next(line for line in text.splitlines() if line.startswith("| 8-bit mu-law"))
    assert row == "| 8-bit mu-law |" + " 0.500, 25.00 %, 12.50 % |" * len(METHODS)
    assert f"1.5000 ({METHODS[0]})" in text
    assert "| 20 dB softer |" + " - |" * len(METHODS) in text


def test_the_command_writes_its_tables(packages: None, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(MARKS)
    manifest = corpus(tmp_path, train=0, test=1, takes=1)
    arguments = f"{manifest} --split test --dataset made --limit 2 --docs {page}".split()
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    assert "2 clips of `test`" in done.output
    for name in CHANGES:
        assert done.output.count(f"| {name} |") == 2
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert "| change | swift-f0 | autocorrelation | dio | harvest |" in text


def test_a_manifest_without_the_split_is_an_error(tmp_path: Path) -> None:
    manifest = corpus(tmp_path, train=0, test=1, takes=1)
    done = CliRunner().invoke(main, [str(manifest), "--split", "dev"])
    assert done.exit_code == 1 and "dev" in done.output and "Traceback" not in done.output


def test_scores_are_those_of_the_evaluation() -> None:
    assert set(SCORES) < {"f0_corr", "gross_pitch_error", "vuv_error", "f0_rmse_cents"}
