# SPDX-License-Identifier: Apache-2.0
"""Batches in the order of the steps, made ahead by worker processes, with their data position."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.synchronize import Event
from typing import Any, NamedTuple

import torch
import torch.multiprocessing
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from affectcodec.training.batches import Batch, BatchSource
from affectcodec.training.cache import ClipCache
from affectcodec.training.config import TrainConfig
from affectcodec.training.data_report import NOTED, SKIPPED, DataReport
from affectcodec.training.data_shards import Place, ShardStream
from affectcodec.training.teachers.store import EmbeddingStore

# Position of one worker's streams by corpus: [epoch, shard, sample] of the oldest clip at hand.
Places = dict[str, list[int]]


@dataclass(frozen=True)
class TrainData:
    """All that a run trains on: prepared clips, with a teacher's targets if there are some, and
    corpora that are tar shards."""

    cache: ClipCache | None
    shards: Mapping[str, Sequence[str]] = field(default_factory=dict)
    embeddings: EmbeddingStore | None = None


class Made(NamedTuple):
    """A batch, who made it, where that worker's streams stand; and since its last batch what it
    found wrong, and how many clips of streams it used."""

    batch: Batch
    worker: int
    places: Places
    findings: list[tuple[str, str, str]]
    used: int


class _Batches(IterableDataset[Made]):
    """Steps from ``start`` on until ``stop``; of ``n`` workers one makes every ``n``-th."""

    def __init__(
        self,
        data: TrainData,
        config: TrainConfig,
        start: int,
        rank: int,
        world: int,
        places: Mapping[int, Places],
        stop: Event | None = None,
    ) -> None:
        super().__init__()
        self.data, self.config, self.start = data, config, start
        self.rank, self.world, self.places = rank, world, places
        self.stop = stop

    def __iter__(self) -> Iterator[Made]:
        info = get_worker_info()
        count, number = (info.num_workers, info.id) if info is not None else (1, 0)
        # The loader asks worker 0 first. A stream belongs to the steps of one remainder, whoever
        # serves it, so that a resumed run goes on with the same one.
        worker = (self.start + number) % count
        streams = self._streams(worker, count)
        source = BatchSource(
            self.data.cache,
            self.config,
            streams=streams,
            rank=self.rank,
            world=self.world,
            embeddings=self.data.embeddings,
        )
        known: set[tuple[str, str, str]] = set()
        used = 0
        for step in itertools.count(self.start + number, count):
            batch = source.batch(step)
            for stream in streams.values():
                stream.advance()
            places = {
                name: list(dataclasses.astuple(stream.place())) for name, stream in streams.items()
            }
            fresh = [f for stream in streams.values() for f in _findings(stream.report)]
            fresh = [f for f in dict.fromkeys(fresh) if f not in known]
            known.update(fresh)
            total = sum(stream.report.used for stream in streams.values())
            yield Made(batch, worker, places, fresh, total - used)
            used = total
            if self.stop is not None and self.stop.is_set():
                return

    def _streams(self, worker: int, count: int) -> dict[str, ShardStream]:
        loader = self.config.loader
        share = self.config.batch_size // self.world
        streams = {}
        for name, shards in self.data.shards.items():
            streams[name] = ShardStream(
                name,
                shards,
                self.config.codec,
                seed=self.config.seed,
                part=self.rank * count + worker,
                parts=self.world * count,
                pool=loader.shard_pool,
                rate=max(1, share // loader.shard_crops),
            )
            place = self.places.get(worker, {}).get(name)
            streams[name].seek(Place(*place) if place else Place())
        return streams


def _findings(report: DataReport) -> list[tuple[str, str, str]]:
    return [
        (kind, item, reason)
        for kind, found in ((SKIPPED, report.skipped), (NOTED, report.noted))
        for item, reasons in found.items()
        for reason in reasons
    ]


class Loader:
    """Batches of a run in order, without end.

    Args:
        data, config: what is trained on, and how.
        report: takes what streams find wrong on the way.
        start: first step.
        rank, world: which share of each batch to make.
        state: of :meth:`state` when the run was saved.
        device: batches are copied from pinned memory if it is a GPU.

    Raises:
        ValueError: if ``state`` was made with another number of processes or workers: streams
            cannot be put back then.
    """

    def __init__(
        self,
        data: TrainData,
        config: TrainConfig,
        report: DataReport,
        *,
        start: int = 0,
        rank: int = 0,
        world: int = 1,
        state: Mapping[str, Any] | None = None,
        device: torch.device | None = None,
    ) -> None:
        self.report, self.device = report, device
        workers = config.loader.workers
        self._readers = [world, max(1, workers)]
        self.places: dict[int, Places] = {}
        if data.shards and state and state.get("places"):
            if state["readers"] != self._readers:
                raise ValueError(
                    f"loader: this run read shards with {state['readers']} (processes, workers), "
                    f"now it has {self._readers}; start it as before"
                )
            self.places = {int(k): dict(v) for k, v in state["places"].items()}
        self._stop: Event | None = None
        if workers:
            self._stop = torch.multiprocessing.get_context("spawn").Event()
        dataset = _Batches(data, config, start, rank, world, dict(self.places), self._stop)
        pinned = device is not None and device.type == "cuda"
        if workers:
            self._loader: DataLoader[Made] | None = DataLoader(
                dataset,
                batch_size=None,
                num_workers=workers,
                prefetch_factor=config.loader.prefetch,
                multiprocessing_context="spawn",
                pin_memory=pinned,
            )
            self._made: Iterator[Made] = iter(self._loader)
        else:
            self._loader = None
            self._made = iter(dataset)

    def next(self) -> Batch:
        """The batch of the next step."""
        made = next(self._made)
        if made.places:
            self.places[made.worker] = made.places
        self.report.extend(made.findings)
        self.report.used += made.used
        return made.batch if self.device is None else made.batch.to(self.device)

    def state(self) -> dict[str, Any]:
        """What a resumed run needs to go on with the data after the last batch."""
        places = {str(worker): places for worker, places in self.places.items()}
        return {"readers": self._readers, "places": places}

    def close(self) -> None:
        """End the workers, after the batches that they are making."""
        iterator, self._made = self._made, iter(())
        if self._stop is not None:
            end_workers(iterator, self._stop)


def end_workers(iterator: Iterator[Any], stop: Event) -> None:
    """End the processes behind an iterator of a ``DataLoader`` whose dataset ends upon ``stop``.

    What they made is taken from them first. A process that exits while its other thread still
    hands over tensors aborts: the thread is ended inside of C++ that no exception may leave.
    """
    stop.set()
    with contextlib.suppress(Exception):  # of batches that nobody wants any more
        for _ in iterator:
            pass
    shutdown = getattr(iterator, "_shutdown_workers", None)
    if shutdown is not None:
        shutdown()
