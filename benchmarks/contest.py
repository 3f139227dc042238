# SPDX-License-Identifier: Apache-2.0
"""Groups of contenders, and the contest that checks, tunes and times one of them.

A group is one operator at one size; every contender of it does that work, or as much of it as the
row says. A contender has variants (compile modes, thread counts): each is built, checked and
probed, and the fastest one races, so that nothing is compared in less than its best form.
"""

from __future__ import annotations

import gc
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from benchmarks import floors, pairing
from benchmarks.pairing import Call, Pairs, Timer


@dataclass(frozen=True)
class Work:
    """What one call of a group does.

    Attributes:
        units: frames (or tokens) a call.
        unit: name of one of them.
        bytes_per_unit: bytes that have to be read and written.
        flops_per_unit: floating point operations needed, a multiply-add counted as two.
    """

    units: int
    bytes_per_unit: float
    flops_per_unit: float
    unit: str = "frame"


@dataclass(frozen=True)
class Contender:
    """One implementation.

    Attributes:
        name: short name, also the id of the test.
        label: what it is, for tables.
        variants: how to build each form of it; the fastest one counts.
        check: raises AssertionError on a wrong result of a call, returns remarks for the row.
        units: how much of the work a call does, all of it if None.
        threads: thread counts to choose from; those of the contest if None.
        extra: measures something else of it (memory), after the timing.
    """

    name: str
    label: str
    variants: dict[str, Callable[[], Call]]
    check: Callable[[Any], dict[str, Any]]
    units: int | None = None
    threads: tuple[int, ...] | None = None
    extra: Callable[[], dict[str, Any]] | None = None


@dataclass(frozen=True)
class Group:
    """Contenders of one operator and size.

    Attributes:
        op: name of the operator.
        size: name of the size and layout.
        work: what one call does.
        reference: contender that all are paired with.
        inference: whether calls are made in inference mode.
    """

    op: str
    size: str
    work: Work
    reference: Contender
    inference: bool = False

    @property
    def name(self) -> str:
        return f"{self.op} {self.size}"


@dataclass
class Row:
    """Result of one contender, in JSON types."""

    group: str
    op: str
    size: str
    contender: str
    label: str
    variant: str
    threads: int
    rounds: int
    units: int
    unit: str
    seconds: float
    seconds_per_unit: float
    units_per_second: float
    ratio: float
    spread: float
    reference: str
    reference_seconds_per_unit: float
    bytes_per_unit: float
    flops_per_unit: float
    floor_share: float
    probes: dict[str, float]
    remarks: dict[str, Any] = field(default_factory=dict)
    costs: list[float] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Settings:
    """How long and how wide a contest is.

    Attributes:
        threads: thread counts from which contenders choose.
        budget: seconds of paired rounds a row.
        fewest_rounds: rounds of a row even if it takes longer.
        smoke: tiny sizes, to see that everything runs.
        compiled: whether contenders under ``torch.compile`` take part.
        thorough: whether they try every mode at every thread count, which takes long.
    """

    threads: tuple[int, ...]
    budget: float = 3.0
    fewest_rounds: int = 5
    smoke: bool = False
    compiled: bool = True
    thorough: bool = False


@dataclass(frozen=True)
class Tuned:
    """The fastest form of a contender."""

    call: Call
    variant: str
    threads: int
    seconds: float
    probes: dict[str, float]
    remarks: dict[str, Any]


@contextmanager
def threads_of_torch(count: int) -> Iterator[None]:
    """Run with ``count`` threads, and put back what was set before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def settle(count: int) -> None:
    """Set the threads and use them once, so that no timing pays for waking them."""
    if torch.get_num_threads() != count:
        torch.set_num_threads(count)
        torch.ones(1 << 18).add_(1)


class Contest:
    """Measures rows; keeps what rows of one group share, and the rows themselves."""

    def __init__(self, settings: Settings, timer: Timer) -> None:
        self.settings, self.timer = settings, timer
        self.rows: list[Row] = []
        self._floors: dict[int, floors.Floor] = {}
        self._references: dict[str, Tuned] = {}

    @property
    def measured_floors(self) -> Sequence[floors.Floor]:
        return [self._floors[threads] for threads in sorted(self._floors)]

    def floor(self, threads: int) -> floors.Floor:
        """Rates of the machine, measured at the first use."""
        if threads not in self._floors:
            small: dict[str, Any] = {}
            if self.settings.smoke:
                small = {"copy_bytes": 1 << 16, "mm_shapes": ((32, 32, 32),), "repeats": 2}
            self._floors[threads] = floors.measure(threads, self.timer, **small)
        return self._floors[threads]

    def tune(self, contender: Contender, inference: bool = False) -> Tuned:
        """Build, check and probe the variants; the fastest one at its fastest thread count.

        Variants compete at the most threads; the winner is then built for the other counts, too.
        """
        most, *fewer = sorted(contender.threads or self.settings.threads, reverse=True)
        probes: dict[str, float] = {}
        tried = [self._try(contender, name, most, inference, probes) for name in contender.variants]
        if not tried:
            raise ValueError(f"contender {contender.name!r} has no variants")
        best = min(tried, key=lambda tuned: tuned.seconds)
        tried = [best]
        for count in fewer:
            tried.append(self._try(contender, best.variant, count, inference, probes))
        return min(tried, key=lambda tuned: tuned.seconds)

    def _try(
        self,
        contender: Contender,
        variant: str,
        threads: int,
        inference: bool,
        probes: dict[str, float],
    ) -> Tuned:
        # Built under its thread count: inductor generates code for the count it sees. And outside
        # of inference mode, where parameters have no version: a module that cannot see whether they
        # changed prepares them anew at every call.
        with threads_of_torch(threads):
            call = contender.variants[variant]()
            with torch.inference_mode(inference):
                remarks = contender.check(call())
                seconds = pairing.probe(call, self.timer)
        probes[f"{variant}, {threads} thread{'s' * (threads > 1)}"] = seconds
        return Tuned(call, variant, threads, seconds, probes, remarks)

    def reference(self, group: Group) -> Tuned:
        """The reference of a group, tuned once; that of another group is let go."""
        if group.name not in self._references:
            self._references.clear()
            self._references[group.name] = self.tune(group.reference, group.inference)
        return self._references[group.name]

    def race(self, benchmark: Any, group: Group, contender: Contender) -> Row:
        """Check, tune and time ``contender`` in pairs with the reference of its group.

        Args:
            benchmark: fixture of pytest-benchmark; its statistics are those of the contender.
        """
        reference = self.reference(group)
        tuned = (
            reference
            if contender.name == group.reference.name
            else self.tune(contender, group.inference)
        )
        steps = pairing.plan(
            tuned.seconds,
            reference.seconds,
            budget=self.settings.budget,
            fewest=self.settings.fewest_rounds,
            round_seconds=0.0 if self.settings.smoke else 0.005,
            most=2 if self.settings.smoke else 60,
        )
        other: list[float] = []

        def pair() -> None:
            settle(reference.threads)
            other.append(pairing.timed(reference.call, steps.reference_loops, self.timer))
            settle(tuned.threads)

        was_enabled = gc.isenabled()
        gc.collect()
        gc.disable()
        try:
            with threads_of_torch(tuned.threads), torch.inference_mode(group.inference):
                benchmark.pedantic(
                    tuned.call, teardown=pair, rounds=steps.rounds, iterations=steps.loops
                )
        finally:
            if was_enabled:
                gc.enable()
        own = list(benchmark.stats.stats.data)
        row = self._row(group, contender, tuned, Pairs(tuple(own), tuple(other[: len(own)])))
        if contender.extra is not None:
            row.remarks.update(contender.extra())
        self.rows.append(row)
        return row

    def _row(self, group: Group, contender: Contender, tuned: Tuned, pairs: Pairs) -> Row:
        work = group.work
        units = contender.units or work.units
        scale = work.units / units  # of a call of the reference to one of the contender
        floor = self.floor(tuned.threads)
        least = floor.seconds(work.bytes_per_unit * units, work.flops_per_unit * units)
        seconds = pairs.seconds
        return Row(
            group=group.name,
            op=group.op,
            size=group.size,
            contender=contender.name,
            label=contender.label,
            variant=tuned.variant,
            threads=tuned.threads,
            rounds=len(pairs.contender),
            units=units,
            unit=work.unit,
            seconds=seconds,
            seconds_per_unit=seconds / units,
            units_per_second=units / seconds if seconds else math.inf,
            ratio=pairs.ratio(scale),
            spread=pairing.spread(pairs.costs(scale)),
            reference=group.reference.name,
            reference_seconds_per_unit=statistics.median(pairs.reference) / work.units,
            bytes_per_unit=work.bytes_per_unit,
            flops_per_unit=work.flops_per_unit,
            floor_share=least / seconds if seconds else math.inf,
            probes=dict(tuned.probes),
            remarks=dict(tuned.remarks),
            costs=pairs.costs(scale),
        )
