# SPDX-License-Identifier: Apache-2.0
"""The loader: same batches with and without workers, from any step, shared by ranks."""

from __future__ import annotations

from collections.abc import Iterator
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest
import torch
import torch.multiprocessing
from torch.utils.data import DataLoader, IterableDataset

from affectcodec.training.batches import Batch
from affectcodec.training.cache import ClipCache
from affectcodec.training.config_data import LoaderConfig
from affectcodec.training.data_loader import Loader, TrainData, end_workers
from affectcodec.training.data_report import DataReport
from tests.training.sounds import tiny_run
from tests.training.test_data_shards import write_shard, write_shards


def take(loader: Loader, count: int) -> list[Batch]:
    return [loader.next() for _ in range(count)]


def close_well(loader: Loader) -> None:
    """Closes, and wants that no process was killed: one that aborts does so after it is closed."""
    workers = list(loader._made._workers)  # type: ignore[attr-defined]
    loader.close()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * len(workers)


def same(a: Batch, b: Batch) -> bool:
    pairs = zip(a, b, strict=True)
    return all(x is y is None or torch.equal(x, y) for x, y in pairs)


def test_a_loader_starts_at_any_step(cache: ClipCache) -> None:
    data, config = TrainData(cache), tiny_run()
    whole = take(Loader(data, config, DataReport()), 5)
    later = take(Loader(data, config, DataReport(), start=2), 3)
    assert all(same(a, b) for a, b in zip(whole[2:], later, strict=True))


def test_ranks_make_shares_of_one_batch(cache: ClipCache) -> None:
    config = tiny_run(batch_size=4)
    (whole,) = take(Loader(TrainData(cache), config, DataReport()), 1)
    parts = [
        take(Loader(TrainData(cache), config, DataReport(), rank=rank, world=2), 1)[0]
        for rank in range(2)
    ]
    joined = (None if a is None else torch.cat([a, b]) for a, b in zip(*parts, strict=True))
    assert same(Batch(*joined), whole)
    with pytest.raises(ValueError, match="4 crops cannot be shared by 3 processes"):
        Loader(TrainData(cache), config, DataReport(), rank=0, world=3).next()


@pytest.mark.slow
def test_workers_change_nothing_but_who_does_it(cache: ClipCache) -> None:
    config = tiny_run(loader=LoaderConfig(workers=2, prefetch=2))
    loader = Loader(TrainData(cache), config, DataReport(), start=1)
    got = take(loader, 4)
    close_well(loader)
    want = take(Loader(TrainData(cache), tiny_run(), DataReport(), start=1), 4)
    assert all(same(a, b) for a, b in zip(got, want, strict=True))


def shard_data(folder: Path, cache: ClipCache) -> tuple[TrainData, dict]:
    shards = write_shards(folder, shards=4, clips=3)
    shards.append(write_shard(folder / "z.tar", [("broken.wav", b"no sound")]))
    settings = {"dataset_weights": {"tars": 2.0, "a": 1.0}, "batch_size": 8}
    return TrainData(cache, {"tars": shards}), settings


def test_shards_and_clips_are_mixed_and_the_place_is_kept(tmp_path: Path, cache: ClipCache) -> None:
    data, settings = shard_data(tmp_path, cache)
    config = tiny_run(loader=LoaderConfig(shard_pool=4, shard_crops=4), **settings)
    report = DataReport()
    loader = Loader(data, config, report)
    take(loader, 5)
    state = loader.state()
    want = take(loader, 4)
    again = Loader(data, config, DataReport(), start=5, state=state)
    assert all(same(a, b) for a, b in zip(take(again, 4), want, strict=True))
    assert any("broken.wav" in item for item in report.skipped)
    assert report.used >= 12
    with pytest.raises(ValueError, match="name weights of \\['a', 'b', 'tars'\\]"):
        Loader(data, tiny_run(), DataReport()).next()


@pytest.mark.slow
def test_workers_with_shards_go_on_where_they_were(tmp_path: Path, cache: ClipCache) -> None:
    data, settings = shard_data(tmp_path, cache)
    config = tiny_run(loader=LoaderConfig(workers=2, shard_pool=4, shard_crops=4), **settings)
    loader = Loader(data, config, DataReport())
    take(loader, 3)
    state = loader.state()
    want = take(loader, 3)
    close_well(loader)
    again = Loader(data, config, DataReport(), start=3, state=state)
    got = take(again, 3)
    close_well(again)
    assert all(same(a, b) for a, b in zip(got, want, strict=True))
    with pytest.raises(ValueError, match="start it as before"):
        Loader(data, config, DataReport(), start=3, state=state, world=2)


class ManyTensors(IterableDataset[list[torch.Tensor]]):
    """Batches that take long to hand over."""

    def __init__(self, stop: Event) -> None:
        super().__init__()
        self.stop = stop

    def __iter__(self) -> Iterator[list[torch.Tensor]]:
        while not self.stop.is_set():
            yield [torch.zeros(8) for _ in range(100)]


@pytest.mark.slow
def test_workers_end_after_what_they_hand_over() -> None:
    """Three of 28 that were stopped in the midst of it aborted."""
    context = torch.multiprocessing.get_context("spawn")
    stop = context.Event()
    loader = DataLoader(
        ManyTensors(stop), batch_size=None, num_workers=2, multiprocessing_context=context
    )
    made = iter(loader)
    next(made)
    workers = list(made._workers)  # type: ignore[attr-defined]
    end_workers(made, stop)
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
