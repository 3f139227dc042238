# SPDX-License-Identifier: Apache-2.0
"""Coding through files: sizes, rates, means."""

from __future__ import annotations

import dataclasses
import math
import sys

import numpy as np
import pytest

from affectcodec.audio import load_audio
from affectcodec.bitstream import read_tokens
from affectcodec.demo.coding import (
    METRICS,
    measured,
    missing_metrics,
    rates_of,
    rows_of,
    shown,
)


def test_versions_come_from_the_files(coded, codec):
    assert [v.label for v in coded.versions] == ["0.75", "1.5", "3", "6"]
    for version in coded.versions:
        assert version.size == version.file.stat().st_size
        assert version.kbps == float(version.label)
        assert version.disk_kbps == pytest.approx(version.size * 8 / 1000)
        assert version.disk_kbps > version.kbps
        tokens, report = read_tokens(version.file, quantizer=codec.config.quantizer)
        assert report.ok and (tokens.codes == version.tokens.codes).all()
        expected = codec.decode(tokens)[0, 0].numpy()
        assert np.array_equal(version.wave, expected)
        written = load_audio(version.file.with_suffix(".wav"))[0]
        assert np.abs(written - np.clip(expected, -1, 1)).max() <= 1 / 32767
        assert version.encode_factor > 0 and version.decode_factor > 0


def test_lower_rates_are_the_first_stages_of_higher_ones(coded):
    best = coded.versions[-1].tokens.codes
    for version in coded.versions:
        codes = version.tokens.codes
        assert (codes == best[:, : codes.shape[1]]).all()


def test_an_untouched_wave_scores_full_marks(coded):
    scores = measured(coded.clip.wave, coded.clip.wave, 16000)
    assert set(scores) == {name for name, _, _ in METRICS}
    assert scores["stoi"] > 0.99


def test_without_the_packages_there_are_no_figures(coded, monkeypatch):
    monkeypatch.setitem(sys.modules, "pesq", None)
    assert missing_metrics() == ["pesq"]
    assert all(math.isnan(v) for v in measured(coded.clip.wave, coded.clip.wave, 16000).values())


def test_means_leave_out_what_is_undefined(coded):
    def with_score(value):
        versions = [
            dataclasses.replace(v, scores={name: value for name, _, _ in METRICS})
            for v in coded.versions
        ]
        return dataclasses.replace(coded, versions=tuple(versions))

    means, each = rows_of([with_score(1.0), with_score(math.nan), with_score(2.0)])
    assert len(means) == 4 and len(each) == 12
    assert all(row.scores["stoi"] == 1.5 for row in means)
    assert means[1].disk_kbps == pytest.approx(coded.versions[1].disk_kbps)
    nothing = rows_of([with_score(math.nan)])[0]
    assert math.isnan(nothing[0].scores["stoi"])


def test_rates_of_another_codec(codec, monkeypatch):
    assert rates_of(codec) == [0.75, 1.5, 3.0, 6.0]
    monkeypatch.setattr(type(codec.config), "kbps", lambda self, stages: 2.0 * (stages or 4))
    assert rates_of(codec) == [3.0, 6.0]


def test_shown():
    assert (shown(1.234, 2), shown(math.nan, 2)) == ("1.23", "-")
