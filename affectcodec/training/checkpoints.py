# SPDX-License-Identifier: Apache-2.0
"""Sharding with FSDP2, and checkpoints of it through ``torch.distributed.checkpoint``.

Each process writes its own shards, and any number of processes can read them. The metadata of that
format are pickled by torch; they are read from the folder of one's own run only. What is released
is always safetensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint import load as dcp_load  # type: ignore[attr-defined]
from torch.distributed.checkpoint import save as dcp_save  # type: ignore[attr-defined]
from torch.distributed.checkpoint.state_dict import (
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.tensor import DTensor


def sharded(modules: Mapping[str, nn.Module]) -> bool:
    """Whether some weights are spread over the processes."""
    return any(isinstance(p, DTensor) for m in modules.values() for p in m.parameters())


def _everything(
    modules: Mapping[str, nn.Module], optimizers: Mapping[str, torch.optim.Optimizer]
) -> dict[str, Any]:
    state: dict[str, Any] = {name: module.state_dict() for name, module in modules.items()}
    for name, optimizer in optimizers.items():
        state[name] = get_optimizer_state_dict(_owner(modules, optimizer), optimizer)
    return state


def _owner(modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer) -> nn.Module:
    """The modules whose parameters an optimizer holds, as one."""
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    found = {
        name: module
        for name, module in modules.items()
        if any(id(p) in held for p in module.parameters())
    }
    return nn.ModuleDict(found)


def save_sharded(
    folder: Path,
    modules: Mapping[str, nn.Module],
    optimizers: Mapping[str, torch.optim.Optimizer],
) -> None:
    """Write weights and optimizers; all processes call it."""
    dcp_save(_everything(modules, optimizers), checkpoint_id=str(folder))


def load_sharded(
    folder: Path,
    modules: Mapping[str, nn.Module],
    optimizers: Mapping[str, torch.optim.Optimizer],
) -> None:
    """Restore in place, whatever the number of processes that wrote it."""
    state = _everything(modules, optimizers)
    dcp_load(state, checkpoint_id=str(folder))
    for name, module in modules.items():
        module.load_state_dict(state[name])
    for name, optimizer in optimizers.items():
        set_optimizer_state_dict(_owner(modules, optimizer), optimizer, state[name])


def gather(module: nn.Module) -> dict[str, Tensor]:
    """Whole tensors of a sharded module on the CPU; all processes call it."""
    return {
        name: (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().cpu()
        for name, tensor in module.state_dict().items()
    }
