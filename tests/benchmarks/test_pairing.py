# SPDX-License-Identifier: Apache-2.0
"""Pairing: medians of ratios within rounds, and how many rounds are made."""

from __future__ import annotations

import pytest

from benchmarks.pairing import Pairs, loops_for, plan, probe, spread, timed
from tests.benchmarks.clock import Clock


def test_ratio_is_the_median_within_rounds_and_ignores_drift():
    reference = (1.0, 2.0, 4.0, 8.0, 16.0)  # a machine that slows down
    pairs = Pairs(tuple(x / 10 for x in reference), reference)
    assert pairs.ratio() == pytest.approx(10)
    assert spread(pairs.costs()) == pytest.approx(0)
    assert pairs.seconds == pytest.approx(0.4)
    assert pairs.reference_seconds == 4.0


def test_one_disturbed_round_does_not_move_the_ratio():
    pairs = Pairs((1.0, 1.0, 50.0, 1.0, 1.0), (3.0,) * 5)
    assert pairs.ratio() == pytest.approx(3)


def test_ratio_counts_the_work_of_a_call():
    pairs = Pairs((1.0,), (8.0,))  # the contender did a quarter of the reference's frames
    assert pairs.ratio(work=4) == pytest.approx(2)


@pytest.mark.parametrize("sides", [((), ()), ((1.0,), ()), ((1.0,), (1.0, 2.0))])
def test_pairs_refuse_unequal_sides(sides):
    with pytest.raises(ValueError, match="as many timings"):
        Pairs(*sides)


def test_plan_fills_the_budget_within_bounds():
    assert plan(0.1, 0.3, budget=4).rounds == 10
    assert plan(5.0, 5.0, budget=4).rounds == 5
    assert plan(1e-3, 1e-3, budget=4).rounds == 60


def test_short_calls_are_looped_so_that_the_clock_resolves_them():
    steps = plan(10e-6, 400e-6, budget=1.0, round_seconds=5e-3)
    assert (steps.loops, steps.reference_loops) == (500, 13)
    assert loops_for(0.0, 1.0) == 100_000
    assert loops_for(2.0, 1.0) == 1


def test_timed_and_probe_on_a_fake_clock():
    clock = Clock()
    assert timed(clock.work(0.25), 4, clock) == 0.25
    assert probe(clock.work(0.25), clock) == 0.25
    before = clock.now
    assert probe(clock.work(3.0), clock) == 3.0
    assert clock.now - before == 3.0, "a slow call is probed once"


def test_spread_of_few_values():
    assert spread([2.0]) == 0.0
    assert spread([1.0, 2.0, 3.0]) == pytest.approx(0.5)
