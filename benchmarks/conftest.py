# SPDX-License-Identifier: Apache-2.0
"""Options of a benchmark run, the fixture ``race``, and what is printed at its end."""

from __future__ import annotations

import pkgutil
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from benchmarks import bars, machine, results
from benchmarks.contest import Contender, Contest, Group, Row, Settings

Race = Callable[[Group, Contender], Row]


def pytest_addoption(parser: pytest.Parser) -> None:
    options = parser.getgroup("affectcodec benchmarks")
    options.addoption("--results", metavar="PATH", help="write the rows to a JSON file")
    options.addoption(
        "--relative",
        action="store_true",
        help="statistics in multiples of the time of the group's reference instead of seconds, "
        "for comparison with benchmarks/baseline",
    )
    options.addoption(
        "--threads", type=int, default=0, help="most threads to use (default: all cores)"
    )
    options.addoption(
        "--row-seconds", type=float, default=3.0, help="paired rounds a row (default: %(default)s)"
    )
    options.addoption(
        "--thorough",
        action="store_true",
        help="try every mode of torch.compile at every thread count, not just the likely ones",
    )
    options.addoption("--no-compile", action="store_true", help="leave torch.compile out")
    options.addoption(
        "--smoke", action="store_true", help="tiny sizes, few rounds: figures mean nothing"
    )


def pytest_configure(config: pytest.Config) -> None:
    # Each compile mode of each size is one more graph of the same function.
    torch._dynamo.config.recompile_limit = 1024
    torch._dynamo.config.accumulated_recompile_limit = 4096
    config.stash[_KEY] = None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.timeout(900))  # a compile in max-autotune takes minutes


_KEY = pytest.StashKey[Any]()


def settings_of(config: pytest.Config) -> Settings:
    """Settings of a run from its options."""
    smoke = config.getoption("--smoke")
    most = config.getoption("--threads") or machine.cores()
    return Settings(
        threads=(1,) if smoke else tuple(sorted({1, most})),
        budget=0.01 if smoke else config.getoption("--row-seconds"),
        fewest_rounds=2 if smoke else 5,
        smoke=smoke,
        compiled=not (smoke or config.getoption("--no-compile")),
        thorough=config.getoption("--thorough"),
    )


@pytest.fixture(scope="session")
def settings(pytestconfig: pytest.Config) -> Settings:
    return settings_of(pytestconfig)


@pytest.fixture(scope="session")
def contest(pytestconfig: pytest.Config, settings: Settings) -> Iterator[Contest]:
    """One contest a run; its rows are written and printed at the end."""
    torch.set_num_threads(max(settings.threads))
    described, start = machine.describe(), time.perf_counter()
    # The clock of the contenders (--benchmark-timer) is that of their reference, too.
    timer = pkgutil.resolve_name(pytestconfig.getoption("benchmark_timer"))
    contest = Contest(settings, timer)
    yield contest
    found = results.Results.of(
        described,
        shlex.join(["pytest", *sys.argv[1:]]),
        round(time.perf_counter() - start, 1),
        contest.measured_floors,
        contest.rows,
        settings.smoke,
    )
    pytestconfig.stash[_KEY] = found
    if path := pytestconfig.getoption("--results"):
        found.write(path)


@pytest.fixture
def race(
    contest: Contest, benchmark: Any, request: pytest.FixtureRequest, pytestconfig: pytest.Config
) -> Race:
    """``race(group, contender)`` checks, tunes and times one contender; returns its row."""

    def run(group: Group, contender: Contender) -> Row:
        benchmark.group = group.name
        row = contest.race(benchmark, group, contender)
        row.remarks["test"] = request.node.nodeid
        benchmark.extra_info.update(
            {k: v for k, v in row.to_dict().items() if k not in ("costs", "group", "seconds")}
        )
        if pytestconfig.getoption("--relative"):
            benchmark.stats.stats.data[:] = row.costs
        return row

    return run


def pytest_benchmark_scale_unit(config: Any, unit: str) -> tuple[str, float] | None:
    """Relative costs are no seconds: show them as they are."""
    if config is not None and config.getoption("--relative") and unit == "seconds":
        return "x reference, not ", 1.0
    return None


def pytest_benchmark_update_machine_info(config: Any, machine_info: dict[str, Any]) -> None:
    machine_info["affectcodec"] = machine.describe()


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    found = config.stash.get(_KEY, None)
    if found is None or not found.rows:
        return
    write = terminalreporter.write_line
    for op, size in found.groups():
        write("")
        write(f"{op}, {size}")
        write(results.group_table(found, op, size))
    write("")
    for floor in found.floors:
        write(
            f"{floor['threads']} thread(s): copy {floor['copy_bytes_per_second'] / 1e9:.1f} GB/s, "
            f"torch.mm {floor['mm_flops_per_second'] / 1e9:.0f} GFLOP/s at {floor['mm_shape']}"
        )
    write("")
    write(bars.bars_table(found))
    write(f"took {found.seconds:.0f} s" + (", smoke sizes: no figures" if found.smoke else ""))
