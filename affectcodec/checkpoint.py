# SPDX-License-Identifier: Apache-2.0
"""Weights on disk: a folder with ``config.json`` and ``model.safetensors``; no pickle."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from affectcodec.config import CodecConfig

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
DEFAULT_WEIGHTS = "stream"


class CheckpointError(ValueError):
    """Weights that are missing, damaged, or do not fit their configuration or each other."""


def shipped_folder() -> Path:
    """Folder of the weights that ship with the package."""
    return Path(__file__).parent / "pretrained"


def shipped_names() -> list[str]:
    """Names of the weights that ship with the package."""
    return sorted(p.parent.name for p in shipped_folder().glob(f"*/{CONFIG_NAME}"))


def resolve(name_or_path: str | Path | None) -> Path:
    """Folder of the named weights.

    Raises:
        CheckpointError: if there is neither a folder nor shipped weights of that name.
    """
    name = DEFAULT_WEIGHTS if name_or_path is None else name_or_path
    # A folder that happens to be called "stream" must not replace the default weights.
    places = [] if name_or_path is None else [Path(name)]
    for folder in (*places, shipped_folder() / str(name)):
        if (folder / CONFIG_NAME).is_file():
            return folder
    raise CheckpointError(
        f"name_or_path: no weights at {str(name)!r}; wanted a folder with {CONFIG_NAME} and "
        f"{WEIGHTS_NAME}, or one of the shipped names {shipped_names()}"
    )


def load(name_or_path: str | Path | None) -> tuple[CodecConfig, dict[str, Tensor], str]:
    """Configuration, tensors, and the fingerprint on record of a weights folder.

    Raises:
        CheckpointError: on a missing or damaged file.
    """
    folder = resolve(name_or_path)
    try:
        data = json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))
        for key in ("codec", "fingerprint"):
            if key not in data:
                raise ValueError(f"the key {key!r} is missing")
        config, fingerprint = CodecConfig.from_dict(data["codec"]), str(data["fingerprint"])
    except (OSError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{folder / CONFIG_NAME}: not a codec configuration: {error}"
        ) from error
    try:
        tensors = load_file(folder / WEIGHTS_NAME)
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(f"{folder / WEIGHTS_NAME}: cannot be read: {error}") from error
    return config, tensors, fingerprint


def load_into(module: nn.Module, tensors: dict[str, Tensor], source: Any) -> None:
    """Copy tensors into a module, naming everything that does not fit.

    Raises:
        CheckpointError: on missing, unexpected or misshapen tensors.
    """
    own = module.state_dict()
    missing = sorted(set(own) - set(tensors))
    unexpected = sorted(set(tensors) - set(own))
    misshapen = [
        f"{name} {tuple(tensors[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in tensors and tensors[name].shape != own[name].shape
    ]
    if missing or unexpected or misshapen:
        raise CheckpointError(
            f"weights {str(source)!r} do not fit the configuration: missing {missing[:5]}, "
            f"unexpected {unexpected[:5]}, wrong shape {misshapen[:5]}"
        )
    module.load_state_dict(tensors)


def save(
    folder: str | Path,
    config: CodecConfig,
    tensors: dict[str, Tensor],
    fingerprint: str,
    metadata: dict[str, Any] | None = None,
) -> None:
    """Write configuration and tensors; each file appears whole or not at all."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    record = {
        "format": "affectcodec-weights-1",
        "codec": config.to_dict(),
        "fingerprint": fingerprint,
        "metadata": metadata or {},
    }
    weights = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    save_file(weights, folder / (WEIGHTS_NAME + ".part"), metadata={"fingerprint": fingerprint})
    (folder / (WEIGHTS_NAME + ".part")).chmod(0o644)  # safetensors writes for the owner alone
    (folder / (CONFIG_NAME + ".part")).write_text(json.dumps(record, indent=2) + "\n", "utf-8")
    for name in (WEIGHTS_NAME, CONFIG_NAME):
        os.replace(folder / (name + ".part"), folder / name)
