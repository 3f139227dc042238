# SPDX-License-Identifier: Apache-2.0
"""Concordance against its formula, and groups of features."""

from __future__ import annotations

import numpy as np
import pytest

from affectcodec.evaluation.concordance import concordance, egemaps_concordance, within_speaker

ONCE = np.ones((1, 200))


def test_known_values() -> None:
    x = np.random.default_rng(0).standard_normal((200, 1))
    x = (x - x.mean()) / x.std()
    assert concordance(x, x, ONCE)[0, 0] == pytest.approx(1.0)
    assert concordance(x, -x, ONCE)[0, 0] == pytest.approx(-1.0)
    # an offset of one deviation: 2 / (1 + 1 + 1)
    assert concordance(x, x + 1.0, ONCE)[0, 0] == pytest.approx(2 / 3)
    # half the range: 2 * 0.5 / (1 + 0.25)
    assert concordance(x, 0.5 * x, ONCE)[0, 0] == pytest.approx(0.8)
    assert concordance(x, np.zeros_like(x), ONCE)[0, 0] == 0.0
    assert np.isnan(concordance(x * 0, x * 0, ONCE)[0, 0])


def test_weights_repeat_clips() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((2, 40, 3))
    counts = rng.integers(0, 4, size=40)
    np.testing.assert_allclose(
        concordance(x, y, counts[None].astype(float)),
        concordance(np.repeat(x, counts, 0), np.repeat(y, counts, 0), np.ones((1, counts.sum()))),
    )


def test_agreement_between_speakers_does_not_help() -> None:
    rng = np.random.default_rng(2)
    offset = np.repeat([[-20.0], [20.0]], 100, axis=0)
    x, y = offset + rng.standard_normal((200, 1)), offset + rng.standard_normal((200, 1))
    speakers = ["low"] * 100 + ["high"] * 100
    assert concordance(x, y, ONCE)[0, 0] > 0.99
    assert abs(concordance(*within_speaker(x, y, speakers), ONCE)[0, 0]) < 0.2


def test_a_single_wild_clip_does_not_decide() -> None:
    rng = np.random.default_rng(3)
    x = rng.standard_normal((200, 1))
    y = x + 0.1 * rng.standard_normal((200, 1))
    y[7] = 1e6
    assert concordance(*within_speaker(x, y, ["s"] * 200), ONCE)[0, 0] > 0.9


def test_groups_tell_what_was_lost() -> None:
    pytest.importorskip("opensmile")
    from affectcodec.evaluation.egemaps import GROUPS, feature_names, group_of

    rng = np.random.default_rng(4)
    x = rng.standard_normal((60, 88))
    y = x.copy()
    flat = np.array([group_of(name) == "f0" for name in feature_names()])
    y[:, flat] = 0.0
    found = egemaps_concordance(x, y, ["s"] * 60, np.ones((5, 60)))
    assert set(found) == {*GROUPS, "all"}
    assert found["f0"].mean < 0.2 and found["loudness"].mean == pytest.approx(1.0)
    assert found["loudness"].mean > found["all"].mean > 0.8
