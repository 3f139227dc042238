# SPDX-License-Identifier: Apache-2.0
"""What all configurations share: checks of their fields, and the form that is hashed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


def check_positive(owner: str, name: str, value: Any) -> None:
    """Refuse everything but a positive ``int``.

    Raises:
        ValueError: naming ``owner``, ``name`` and the value.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{owner}: {name} must be a positive integer, got {value!r}")


def check_keys(cls: type, data: Any, needed: tuple[str, ...] = ()) -> None:
    """Refuse a dictionary with keys that ``cls`` does not have, or without one of ``needed``.

    Raises:
        ValueError: naming the keys, or what came instead of a mapping.
    """
    if not isinstance(data, Mapping):
        raise ValueError(f"{cls.__name__}: wanted a mapping, got {type(data).__name__}")
    missing = [name for name in needed if name not in data]
    if missing:
        raise ValueError(f"{cls.__name__}: missing keys {missing}; there are {sorted(data)}")
    known = {f.name for f in dataclasses.fields(cls)}
    unknown = sorted(set(data) - known)
    if unknown:
        raise ValueError(
            f"{cls.__name__}: unknown keys {unknown}; known keys are {sorted(known)}. "
            "The file may come from a newer release of affectcodec."
        )


GRANULARITIES = ("frame", "segment", "utterance")


def check_granularities(owner: str, name: str, value: Any) -> tuple[str, ...]:
    """Conditioning time scales in their own order, each once.

    Raises:
        ValueError: naming ``owner``, ``name`` and what is no time scale.
    """
    given = tuple(value) if not isinstance(value, str) else (value,)
    unknown = [item for item in given if item not in GRANULARITIES]
    if unknown:
        raise ValueError(f"{owner}: {name} may hold {list(GRANULARITIES)}, got {unknown}")
    return tuple(item for item in GRANULARITIES if item in given)


def later(default: Any) -> Any:
    """A dataclass field that was added after configurations had been hashed.

    It counts in the hash only where it differs from ``default``; weights and tokens that were made
    before it existed keep their names.
    """
    return dataclasses.field(default=default, metadata={"later": True})


def canonical(value: Any) -> Any:
    """The part of a configuration that its hash covers, as plain JSON types."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            f.name: canonical(getattr(value, f.name))
            for f in dataclasses.fields(value)
            if not (f.metadata.get("later") and getattr(value, f.name) == f.default)
        }
    if isinstance(value, Mapping):
        return {str(key): canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [canonical(item) for item in value]
    return value
