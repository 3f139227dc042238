# SPDX-License-Identifier: Apache-2.0
"""Who works on the parts: processes of this machine, or the actors of a Ray cluster."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait as wait_for
from pathlib import Path
from typing import Any

from affectcodec.codec import AffectCodec
from affectcodec.corpus.memory import Trimmer
from affectcodec.corpus.parts import PartSummary, summarize
from affectcodec.corpus.plan import Plan, Settings
from affectcodec.corpus.sources import Part
from affectcodec.corpus.work import do_part


class EngineError(RuntimeError):
    """Workers that died or cannot be had, with the way out."""


def _pending(plan: Plan, missing: list[int]) -> Iterator[tuple[int, Part]]:
    wanted = set(missing)
    return ((number, part) for number, part in plan.parts() if number in wanted)


def _load(settings: Settings, device: str) -> AffectCodec:
    codec = AffectCodec.from_pretrained(settings.weights).to(device)
    if codec.fingerprint != settings.fingerprint:
        raise EngineError(
            f"weights: this worker has the codec {codec.fingerprint}, the run was planned with "
            f"{settings.fingerprint}; install the same weights everywhere"
        )
    return codec


# -- one machine --------------------------------------------------------------------------------

_worker: dict[str, Any] = {}  # what a worker process keeps between parts


def run_local(
    plan: Plan, missing: list[int], *, jobs: int, threads: int, device: str = "cpu"
) -> Iterator[PartSummary]:
    """Work on the missing parts in processes of this machine; yields each as it is done.

    Raises:
        EngineError: if a worker dies, for example for want of memory.
    """
    context = multiprocessing.get_context("spawn")
    arguments = (str(plan.folder), plan.settings, threads, device)
    with ProcessPoolExecutor(jobs, context, _start, arguments) as pool:
        queue = _pending(plan, missing)
        running: set[Future[PartSummary]] = set()
        try:
            while True:
                # Few parts wait at a time, so that a plan of millions stays on disk.
                while len(running) < 2 * jobs and (item := next(queue, None)) is not None:
                    running.add(pool.submit(_do, *item))
                if not running:
                    return
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        except BrokenProcessPool:
            raise EngineError(
                "a worker process died, often for want of memory: run again with fewer --jobs; "
                "the parts that are written stay"
            ) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _start(folder: str, settings: Settings, threads: int, device: str) -> None:
    import torch

    # Ctrl-C is for the parent, which lets every worker finish its part.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    _die_with_parent()
    codec = _load(settings, device)
    _worker.update(folder=Path(folder), settings=settings, codec=codec, trim=Trimmer())


def _die_with_parent() -> None:
    """A killed parent cannot stop its workers, and they would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait_for([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _do(number: int, part: Part) -> PartSummary:
    do_part(_worker["folder"], number, part, _worker["settings"], _worker["codec"])
    _worker["trim"]()
    return summarize(_worker["folder"], number, _worker["settings"].format)


# -- Ray ----------------------------------------------------------------------------------------

_MOST_BLOCKS = 10_000  # each is an object that the driver keeps account of
_HEAD = "node:__internal_head__"  # a resource that Ray gives to the head node alone


def _room(resources: dict[str, float], workers: int, threads: int, device: str) -> int:
    """Actors that the cluster can hold now."""
    fit = int(resources.get("CPU", 1) // threads)
    if device == "cuda":
        fit = min(fit, int(resources.get("GPU", 0)))
    return max(1, min(workers, fit))


class RayWorker:
    """An actor of ``ray.data`` that works on parts."""

    def __init__(self, folder: str, settings: Settings, threads: int, device: str) -> None:
        import torch

        torch.set_num_threads(threads)
        self.folder, self.settings = Path(folder), settings
        self.codec = _load(settings, device)
        self.trim = Trimmer()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        found = []
        for number, offset in zip(batch["number"], batch["offset"], strict=True):
            part = Plan.part_at(self.folder, int(offset))
            do_part(self.folder, int(number), part, self.settings, self.codec)
            self.trim()
            summary = summarize(self.folder, int(number), self.settings.format)
            found.append(json.dumps(dataclasses.asdict(summary)))
        return {"summary": found}


def _ray_summaries(
    folder: Path, missing: list[int], workers: int, threads: int, device: str
) -> Iterator[str]:
    """Work on the missing parts by Ray Data, in a process of the cluster; JSON of each summary."""
    import ray

    plan = Plan.load(folder)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    wanted = set(missing)
    # Parts stay in the plan, which every node can read: a million of them pass as numbers.
    items = [
        {"number": number, "offset": offset}
        for number, offset in plan.offsets()
        if number in wanted
    ]
    # A block is done again when its node is lost, less the parts that are written.
    blocks = min(len(items), _MOST_BLOCKS)
    data = ray.data.from_items(items, override_num_blocks=blocks).map_batches(
        RayWorker,
        fn_constructor_args=(str(folder), plan.settings, threads, device),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(
            min_size=1,
            max_size=workers,
            initial_size=_room(ray.cluster_resources(), workers, threads, device),
        ),
        num_cpus=threads,
        num_gpus=1 if device == "cuda" else 0,
    )
    for row in data.iter_rows():
        yield row["summary"]


class RayDriver:
    """An actor that drives Ray Data, which cannot be driven from the far end of ``ray://``."""

    def __init__(
        self, folder: str, missing: list[int], workers: int, threads: int, device: str
    ) -> None:
        self.summaries = _ray_summaries(Path(folder), missing, workers, threads, device)

    def next(self) -> str | None:
        """JSON of the next summary; None at the end."""
        return next(self.summaries, None)


def _client_summaries(
    folder: Path, missing: list[int], workers: int, threads: int, device: str
) -> Iterator[str]:
    """As :func:`_ray_summaries`, through Ray Client."""
    import ray

    # On the head node: the job then dies with the cluster, not with some other node.
    remote = ray.remote(RayDriver).options(num_cpus=0, resources={_HEAD: 0.001})
    try:
        driver: Any = remote.remote(str(folder), missing, workers, threads, device)
        while (summary := ray.get(driver.next.remote())) is not None:
            yield str(summary)
    except (ray.exceptions.RayActorError, ConnectionError) as error:
        raise EngineError(
            f"ray: the job's driver in the cluster died ({error}); run again, the parts that are "
            "written stay"
        ) from None


def run_ray(
    plan: Plan,
    missing: list[int],
    *,
    address: str | None,
    workers: int,
    threads: int,
    device: str = "cpu",
) -> Iterator[PartSummary]:
    """Work on the missing parts with a pool of Ray actors; yields each as it is done.

    Restarts, back-pressure and growth of the pool are Ray's. Source and target folder must be
    visible at the same path on every node.

    Args:
        address: of a cluster (``auto``, ``HOST:6379`` or ``ray://HOST:10001``); None starts one on
            this machine.
        workers: largest number of actors. As many as there is room for are started; Ray adds
            more when the cluster grows.
        device: ``"cuda"`` gives each actor a GPU.

    Raises:
        EngineError: without Ray, or if no cluster answers.
    """
    try:
        import ray
    except ImportError:
        raise EngineError(
            "engine: 'ray' needs the package ray: pip install 'affectcodec[ray]'"
        ) from None
    own = not ray.is_initialized()
    if own:
        try:
            # "local": without it Ray would take a cluster that the environment names.
            ray.init(
                address=address or "local",
                log_to_driver=False,
                logging_level=logging.WARNING,
                include_dashboard=None if address else False,
            )
        except ConnectionError as error:
            raise EngineError(f"ray: no cluster at {address!r}: {error}") from None
    try:
        far = ray.util.client.ray.is_connected()
        summaries = _client_summaries if far else _ray_summaries
        for summary in summaries(plan.folder.resolve(), missing, workers, threads, device):
            yield PartSummary(**json.loads(summary))
    finally:
        if own:
            with contextlib.suppress(Exception):
                ray.shutdown()
