# SPDX-License-Identifier: Apache-2.0
"""One run in several processes, as ``torchrun`` starts them."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from affectcodec.nn.causal import CausalConvNeXtBlock
from affectcodec.nn.snake import SnakeDown, SnakeUp


@dataclass(frozen=True)
class World:
    """This process among those of a run.

    Attributes:
        rank, size: number of this process, and how many there are.
        device: what it computes on.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes and reports."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait for the others."""
        if self.size > 1:
            dist.barrier()

    def agree(self, *values: float) -> list[float]:
        """The largest of each value over all processes; NaN if it is NaN anywhere."""
        if self.size == 1:
            return list(values)
        # As two numbers: what a reduction makes of NaN is up to the backend.
        broken = [float(value != value) for value in values]
        whole = [0.0 if value != value else value for value in values]
        told = torch.tensor([*whole, *broken], dtype=torch.float64, device=self._plain())
        dist.all_reduce(told, dist.ReduceOp.MAX)
        found = told.tolist()
        count = len(values)
        return [float("nan") if found[count + i] else found[i] for i in range(count)]

    def mean(self, *values: float) -> list[float]:
        """The mean of each value over all processes."""
        if self.size == 1:
            return list(values)
        told = torch.tensor(values, dtype=torch.float64, device=self._plain())
        dist.all_reduce(told)
        return (told / self.size).tolist()

    def _plain(self) -> torch.device:
        return self.device if dist.get_backend() == "nccl" else torch.device("cpu")


def started_by_torchrun() -> bool:
    """Whether the environment names a rank and a size."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def was_restarted() -> bool:
    """Whether ``torchrun`` started this process again after a failure."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") or 0) > 0


def join(device: str | None = None) -> World:
    """This process's place; joins the others if ``torchrun`` started it.

    Args:
        device: ``"cpu"``, ``"cuda"`` or a numbered GPU; by default the GPU of the local rank where
            there is one.

    Raises:
        ValueError: if a GPU is asked for that is not there.
    """
    wanted = device or ("cuda" if torch.cuda.is_available() else "cpu")
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if wanted == "cuda":
        wanted = f"cuda:{local}"
    try:
        place = torch.device(wanted)
    except RuntimeError as error:
        raise ValueError(f"device: {wanted!r} is none: {error}") from error
    if place.type == "cuda":
        if not torch.cuda.is_available() or (place.index or 0) >= torch.cuda.device_count():
            raise ValueError(
                f"device: {wanted!r} is not there ({torch.cuda.device_count()} GPUs are); start "
                "fewer processes, or use --device cpu"
            )
        torch.cuda.set_device(place)
    if not started_by_torchrun() or int(os.environ["WORLD_SIZE"]) == 1:
        return World(0, 1, place)
    if not dist.is_initialized():
        _init("nccl" if place.type == "cuda" else "gloo")
    return World(dist.get_rank(), dist.get_world_size(), place)


def _init(backend: str) -> None:
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        dist.init_process_group(backend)
        return
    # The store of the launcher outlives the processes. Without a name for each start, restarted
    # ones find the addresses of those that are gone (seen with torch 2.13).
    store = dist.TCPStore(  # type: ignore[attr-defined]
        os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False
    )
    dist.init_process_group(
        backend,
        store=dist.PrefixStore(  # type: ignore[attr-defined]
            f"start-{os.environ['TORCHELASTIC_RESTART_COUNT']}", store
        ),
        rank=int(os.environ["RANK"]),
        world_size=int(os.environ["WORLD_SIZE"]),
    )


def leave() -> None:
    """End what :func:`join` began."""
    if dist.is_initialized():
        dist.destroy_process_group()


def shared_count(count: Tensor) -> Tensor:
    """What a sum over this process's items is divided by to give, averaged over all processes, the
    mean over all their items; at least one item is counted.

    Without other processes it is ``count``, or 1.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return count.clamp(min=1)
    total = count.detach().to(torch.float64, copy=True)
    dist.all_reduce(total)
    return (total.clamp(min=1) / dist.get_world_size()).float()


def shared_norm(norm: Tensor) -> Tensor:
    """Norm that a gradient over all processes' items has, from that over this process's."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return norm
    total = norm.detach().square()
    dist.all_reduce(total)
    return total.sqrt() / dist.get_world_size()


def shared_mean(values: Tensor) -> Tensor:
    """Mean of each value over all processes, without a gradient."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return values
    total = values.detach().clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


def local_rows(rows: int) -> tuple[int, int]:
    """Of ``rows`` items a process: how many there are in all, and the first one of this process."""
    if not (dist.is_available() and dist.is_initialized()):
        return rows, 0
    return rows * dist.get_world_size(), rows * dist.get_rank()


class Pass(nn.Module):
    """A function of a module's parameters as a forward pass, which is what DDP and FSDP wrap.

    Args:
        parts: modules whose parameters take part.
        call: what the pass does; it reaches the modules by itself.
    """

    def __init__(self, parts: dict[str, nn.Module], call: Callable[..., Any]) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(parts)
        self._call = call

    def forward(self, *args: Any) -> Any:
        return self._call(*args)


def spread(module: Pass, world: World, *, shard: bool = False) -> nn.Module:
    """The pass with its gradients averaged over all processes (DDP), or its weights spread over
    them too (FSDP2, layer by layer)."""
    if world.size == 1 or not any(p.requires_grad for p in module.parameters()):
        return module
    if shard:
        mesh = init_device_mesh(world.device.type, (world.size,))
        for layer in list(module.modules()):
            if isinstance(layer, CausalConvNeXtBlock | SnakeDown | SnakeUp):
                fully_shard(layer, mesh=mesh)
        fully_shard(module, mesh=mesh)
        return module
    return DistributedDataParallel(
        module,
        device_ids=[world.device] if world.device.type == "cuda" else None,
        forward_sync_buffers=False,
        gradient_as_bucket_view=True,
    )


def unsynchronised(module: nn.Module, yes: bool) -> AbstractContextManager[Any]:
    """A context in which gradients stay in their process, for all but the last part of a batch."""
    if isinstance(module, FSDPModule):
        module.set_requires_gradient_sync(not yes)
    if yes and isinstance(module, DistributedDataParallel):
        return module.no_sync()
    return nullcontext()


def whole(tensor: Tensor) -> Tensor:
    """A tensor that is spread over the processes, put together; any other as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
