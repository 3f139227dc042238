# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of a training run: safetensors and JSON, written whole or not at all.

A checkpoint ``step-XXXXXXXX`` holds ``state.safetensors`` (weights, averaged weights, optimizers),
``state.json`` and for each process ``rank-XXXX.json`` (its place in the data, its generator). Of a
sharded run the tensors lie in ``tensors/`` instead, see ``checkpoints``.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from affectcodec import checkpoint
from affectcodec.training import checkpoints
from affectcodec.training.distributed import World

WARM_NAME = "training.safetensors"


def _flatten(prefix: str, tensors: Mapping[str, Tensor], out: dict[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        out[f"{prefix}/{name}"] = tensor.detach().cpu().contiguous().clone()


def _state(
    modules: Mapping[str, nn.Module], optimizers: Mapping[str, torch.optim.Optimizer]
) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name, module in modules.items():
        _flatten(name, module.state_dict(), tensors)
    for name, optimizer in optimizers.items():
        for index, values in optimizer.state_dict()["state"].items():
            _flatten(f"{name}/{index}", values, tensors)
    return tensors


def save_checkpoint(
    folder: Path,
    step: int,
    modules: dict[str, nn.Module],
    optimizers: dict[str, torch.optim.Optimizer],
    record: dict[str, Any],
    own: dict[str, Any] | None = None,
    keep: int = 2,
    world: World | None = None,
) -> Path:
    """Write ``folder/step-XXXXXXXX`` and remove all but the newest ``keep``.

    ``modules`` and ``optimizers`` share one set of names. All processes call it; ``own`` is what
    each has for itself.
    """
    world = world or World()
    target = folder / f"step-{step:08d}"
    part = folder / f".part-{step:08d}"
    if world.leads:
        for left in folder.glob(".part-*"):
            shutil.rmtree(left, ignore_errors=True)
        part.mkdir(parents=True)
    world.barrier()
    if checkpoints.sharded(modules):
        checkpoints.save_sharded(part / "tensors", modules, optimizers)
    elif world.leads:
        save_file(_state(modules, optimizers), part / "state.safetensors")
    mine = {**(own or {}), "generator": _generators()}
    (part / f"rank-{world.rank:04d}.json").write_text(json.dumps(mine))
    world.barrier()
    if world.leads:
        text = json.dumps({**record, "step": step, "processes": world.size})
        (part / "state.json").write_text(text)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(part, target)
        for old in sorted(folder.glob("step-*"))[:-keep]:
            shutil.rmtree(old, ignore_errors=True)
    world.barrier()
    return target


def latest_checkpoint(folder: Path, at_most: int | None = None) -> Path | None:
    """Newest complete checkpoint of a run, None if there is none."""
    found = sorted(p for p in folder.glob("step-*") if (p / "state.json").is_file())
    if at_most is not None:
        found = [p for p in found if int(p.name.removeprefix("step-")) <= at_most]
    return found[-1] if found else None


def load_checkpoint(
    path: Path,
    modules: dict[str, nn.Module],
    optimizers: dict[str, torch.optim.Optimizer],
    optional: Collection[str] = (),
    world: World | None = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Restore modules, optimizers and generators in place.

    Args:
        optional: names that stay as they are where the checkpoint has nothing of them; a run may
            add discriminators to one that had none.

    Returns:
        The record with its ``step``, and what this process had for itself; that is empty where
        the checkpoint was made by another number of processes.
    """
    world = world or World()
    record = json.loads((path / "state.json").read_text())
    if (path / "tensors").is_dir():
        checkpoints.load_sharded(path / "tensors", modules, optimizers)
    else:
        tensors = load_file(path / "state.safetensors")
        _restore(tensors, modules, optimizers, optional)
    own: dict[str, Any] = {}
    mine = path / f"rank-{world.rank:04d}.json"
    if mine.is_file() and record.get("processes", 1) == world.size:
        own = json.loads(mine.read_text())
        _set_generators(own.pop("generator"))
    return record, own


def _restore(
    tensors: dict[str, Tensor],
    modules: Mapping[str, nn.Module],
    optimizers: Mapping[str, torch.optim.Optimizer],
    optional: Collection[str],
) -> None:
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


def _below(name: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    prefix = name + "/"
    return {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}


def _generators() -> dict[str, str]:
    """States of torch's generators, as text."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return {
        name: base64.b64encode(state.numpy().tobytes()).decode() for name, state in states.items()
    }


def _set_generators(states: Mapping[str, str]) -> None:
    def tensor(text: str) -> Tensor:
        return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)

    torch.set_rng_state(tensor(states["cpu"]))
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensor(states["cuda"]))


# -- beside released weights --------------------------------------------------------------------


def save_warm_state(
    folder: str | Path,
    modules: dict[str, nn.Module],
    optimizers: dict[str, torch.optim.Optimizer],
) -> None:
    """Heads, discriminators and optimizers beside weights, so that finetuning starts warm."""
    others = {name: module for name, module in modules.items() if name not in ("codec", "ema")}
    target = Path(folder) / WARM_NAME
    part = target.with_name(WARM_NAME + ".part")
    save_file(_state(others, optimizers), part)
    part.chmod(0o644)
    os.replace(part, target)


def load_warm_state(
    weights: str | Path,
    modules: dict[str, nn.Module],
    optimizers: dict[str, torch.optim.Optimizer],
) -> list[str]:
    """Take what lies beside weights, each part only if all of its shapes fit; returns names."""
    path = checkpoint.resolve(weights) / WARM_NAME
    if not path.is_file():
        return []
    tensors, taken = load_file(path), []
    for name, module in modules.items():
        own, mine = _below(name, tensors), module.state_dict()
        if own and {k: v.shape for k, v in own.items()} == {k: v.shape for k, v in mine.items()}:
            module.load_state_dict(own)
            taken.append(name)
    for name, optimizer in optimizers.items():
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        own = _below(name, tensors)
        shapes = {int(k.split("/")[0]): v.shape for k, v in own.items() if k.endswith("/exp_avg")}
        if shapes and shapes == {i: p.shape for i, p in enumerate(parameters)}:
            _restore(tensors, {}, {name: optimizer}, ())
            taken.append(name)
    return taken
