# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of a training run: safetensors and JSON, written whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


def _flatten(prefix: str, tensors: dict[str, Tensor], out: dict[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        out[f"{prefix}/{name}"] = tensor.detach().cpu().contiguous().clone()


def save_checkpoint(
    folder: Path,
    step: int,
    modules: dict[str, nn.Module],
    optimizers: dict[str, torch.optim.Optimizer],
    record: dict[str, Any],
    keep: int = 2,
) -> Path:
    """Write ``folder/step-XXXXXXXX`` and remove all but the newest ``keep``.

    ``modules`` and ``optimizers`` share one set of names.
    """
    target = folder / f"step-{step:08d}"
    part = folder / f".part-{step:08d}"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    tensors: dict[str, Tensor] = {}
    for name, module in modules.items():
        _flatten(name, module.state_dict(), tensors)
    for name, optimizer in optimizers.items():
        for index, values in optimizer.state_dict()["state"].items():
            _flatten(f"{name}/{index}", values, tensors)
    save_file(tensors, part / "state.safetensors")
    (part / "state.json").write_text(json.dumps({**record, "step": step}))
    shutil.rmtree(target, ignore_errors=True)
    os.replace(part, target)
    for old in sorted(folder.glob("step-*"))[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def latest_checkpoint(folder: Path) -> Path | None:
    """Newest complete checkpoint of a run, None if there is none."""
    found = sorted(p for p in folder.glob("step-*") if (p / "state.json").is_file())
    return found[-1] if found else None


def load_checkpoint(
    path: Path,
    modules: dict[str, nn.Module],
    optimizers: dict[str, torch.optim.Optimizer],
    optional: Collection[str] = (),
) -> dict[str, Any]:
    """Restore modules and optimizers in place; returns the record with its ``step``.

    Args:
        optional: names that stay as they are where the checkpoint has nothing of them; a run may
            add discriminators to one that had none.
    """
    tensors = load_file(path / "state.safetensors")
    for name, module in modules.items():
        own = _below(name, tensors)
        if own or name not in optional:
            module.load_state_dict(own)
    for name, optimizer in optimizers.items():
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in _below(name, tensors).items():
            index, entry = key.split("/")
            state.setdefault(int(index), {})[entry] = value
        if state or name not in optional:
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": state, "param_groups": groups})
    return json.loads((path / "state.json").read_text())


def _below(name: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    prefix = name + "/"
    return {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}
