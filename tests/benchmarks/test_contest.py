# SPDX-License-Identifier: Apache-2.0
"""The contest: checks come first, the fastest form races, rows say what was measured."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from benchmarks.contest import Contender, Contest, Group, Settings, Work
from tests.benchmarks.clock import Clock, FakeBenchmark

WORK = Work(units=100, bytes_per_unit=8, flops_per_unit=16)


def right(result):
    assert result == 42, f"got {result}, wanted 42"
    return {"checked": True}


def contender(clock, name, seconds, result=42, **kwargs):
    variants = {"only": lambda: clock.work(seconds, result)}
    return Contender(name, name, variants, right, **kwargs)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def contest(clock, monkeypatch):
    contest = Contest(Settings(threads=(1, 2), budget=4.0), clock)
    floor = dataclasses.make_dataclass("Fixed", ["x"])(0)
    floor.seconds = lambda num_bytes, flops: num_bytes / 800
    monkeypatch.setattr(contest, "floor", lambda threads: floor)
    return contest


def test_row_of_a_contender(contest, clock):
    group = Group("op", "small", WORK, contender(clock, "slow", 0.2))
    row = contest.race(FakeBenchmark(clock), group, contender(clock, "fast", 0.05))
    assert row.ratio == pytest.approx(4)
    assert row.spread == pytest.approx(0)
    assert row.seconds == pytest.approx(0.05)
    assert row.units_per_second == pytest.approx(2000)
    assert row.reference_seconds_per_unit == pytest.approx(0.002)
    assert row.floor_share == pytest.approx(1 / 0.05)  # the fake floor of 800 bytes is a second
    assert row.remarks == {"checked": True}
    assert row.rounds == 16 and len(row.costs) == 16
    assert contest.rows == [row]


def test_looped_rounds_pair_up(contest, clock):
    group = Group("op", "tiny", WORK, contender(clock, "slow", 4e-4))
    row = contest.race(FakeBenchmark(clock), group, contender(clock, "fast", 1e-5))
    assert row.ratio == pytest.approx(40)
    assert len(row.costs) == row.rounds == 60


def test_a_wrong_result_is_never_timed(contest, clock):
    group = Group("op", "small", WORK, contender(clock, "slow", 0.2))
    bench = FakeBenchmark(clock)
    with pytest.raises(AssertionError, match="got 41, wanted 42"):
        contest.race(bench, group, contender(clock, "wrong", 0.001, result=41))
    assert bench.stats.data == [] and contest.rows == []


def test_the_fastest_variant_at_its_fastest_threads_races(contest, clock):
    def build(at_one, at_two):
        return lambda: clock.work(at_one if torch.get_num_threads() == 1 else at_two, 42)

    variants = {"a": build(0.9, 0.5), "b": build(0.1, 0.4)}
    fast = Contender("fast", "fast", variants, right)
    group = Group("op", "small", WORK, contender(clock, "slow", 0.2))
    row = contest.race(FakeBenchmark(clock), group, fast)
    assert (row.variant, row.threads) == ("b", 1)
    assert row.probes == {
        "a, 2 threads": pytest.approx(0.5),
        "b, 2 threads": pytest.approx(0.4),
        "b, 1 thread": pytest.approx(0.1),
    }
    assert row.ratio == pytest.approx(2)


def test_a_contender_with_part_of_the_work_is_compared_by_frame(contest, clock):
    group = Group("op", "small", WORK, contender(clock, "slow", 0.2))
    row = contest.race(FakeBenchmark(clock), group, contender(clock, "part", 0.05, units=25))
    assert row.ratio == pytest.approx(1)
    assert row.seconds_per_unit == pytest.approx(0.002)


def test_the_reference_is_tuned_once_a_group(contest, clock):
    built = []
    slow = Contender(
        "slow", "slow", {"only": lambda: built.append(1) or clock.work(0.2, 42)}, right
    )
    group = Group("op", "small", WORK, slow)
    rows = [
        contest.race(FakeBenchmark(clock), group, entry)
        for entry in (slow, contender(clock, "fast", 0.1))
    ]
    assert len(built) == 2  # one a thread count
    assert [row.ratio for row in rows] == [pytest.approx(1), pytest.approx(2)]


def test_threads_and_inference_mode_are_put_back(contest, clock):
    seen = []

    def call():
        clock.now += 0.1
        seen.append((torch.get_num_threads(), torch.is_inference_mode_enabled()))
        return 42

    one = Contender("one", "one", {"only": lambda: call}, right, threads=(2,))
    group = Group("op", "small", WORK, contender(clock, "slow", 0.2, threads=(1,)), inference=True)
    contest.race(FakeBenchmark(clock), group, one)
    assert set(seen) == {(2, True)}
    assert torch.get_num_threads() == 1
    assert not torch.is_inference_mode_enabled()


def test_a_contender_without_variants_is_an_error(contest):
    with pytest.raises(ValueError, match="has no variants"):
        contest.tune(Contender("none", "none", {}, right))
