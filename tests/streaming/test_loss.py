# SPDX-License-Identifier: Apache-2.0
"""Loss models: their rates, their bursts, their limits."""

from __future__ import annotations

import numpy as np
import pytest

from affectcodec.streaming.loss import LossModel


@pytest.mark.parametrize("rate", [0.05, 0.2])
@pytest.mark.parametrize("burst", [1.0, 4.0])
def test_the_share_and_the_bursts_are_those_asked_for(rate: float, burst: float) -> None:
    lost = LossModel(rate, burst).draw(200_000, 1)
    assert lost.mean() == pytest.approx(rate, rel=0.06)
    starts = lost & ~np.concatenate([[False], lost[:-1]])
    mean_run = lost.sum() / starts.sum()
    want = burst if burst > 1 else 1 / (1 - rate)
    assert mean_run == pytest.approx(want, rel=0.05)


def test_a_seed_gives_one_pattern() -> None:
    model = LossModel(0.1, 3)
    assert np.array_equal(model.draw(500, 7), model.draw(500, 7))
    assert not np.array_equal(model.draw(500, 7), model.draw(500, 8))
    assert not LossModel(0.0).draw(100, 0).any() and len(LossModel(0.5).draw(0, 0)) == 0


@pytest.mark.parametrize(("rate", "burst"), [(-0.1, 1), (0.95, 1), (0.1, 0.5), (0.9, 2)])
def test_impossible_models_are_refused(rate: float, burst: float) -> None:
    with pytest.raises(ValueError, match="wanted|needs"):
        LossModel(rate, burst)
