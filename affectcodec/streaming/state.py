# SPDX-License-Identifier: Apache-2.0
"""Saved streams: arrays in safetensors, the rest as JSON in their metadata.

Nothing in a saved state is executed, and every array is checked against what the engine expects
before any of it is used.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from affectcodec.streaming.engine import Arrays

FORMAT = "affectcodec-stream-1"
_LENGTH_BYTES = 8


class StateError(ValueError):
    """A saved stream that is damaged or belongs to something else."""


def pack_state(header: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """Bytes of a saved stream."""
    record = json.dumps({"format": FORMAT, **header}, sort_keys=True)
    ready = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    return bytes(save_arrays(ready, metadata={"stream": record}))


def unpack_state(data: bytes, expected: Mapping[str, Any]) -> tuple[dict[str, Any], Arrays]:
    """Header and arrays of a saved stream.

    Args:
        data: what :func:`pack_state` made.
        expected: entries the header must have.

    Raises:
        StateError: if the bytes are damaged, of another version, or of another kind of stream.
    """
    try:
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"wanted bytes, got {type(data).__name__}")
        data = bytes(data)
        arrays = load_arrays(data)
        length = int.from_bytes(data[:_LENGTH_BYTES], "little")
        text = data[_LENGTH_BYTES : _LENGTH_BYTES + length]
        header = json.loads(json.loads(text)["__metadata__"]["stream"])
        if not isinstance(header, dict):
            raise TypeError("its header is no object")
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise StateError(f"state: not a saved stream: {error}") from error
    for key, want in {"format": FORMAT, **expected}.items():
        if header.get(key) != want:
            raise StateError(
                f"state: {key} is {header.get(key)!r}, this stream has {want!r}; load it where it "
                "was saved, or start anew with reset()"
            )
    return header, arrays


def checked_arrays(
    arrays: Mapping[str, npt.NDArray[Any]], own: Mapping[str, npt.NDArray[Any]]
) -> Arrays:
    """``arrays`` if they are those of ``own`` by name, shape and dtype, and finite.

    Raises:
        StateError: naming the first difference.
    """
    if set(arrays) != set(own):
        raise StateError(
            f"state: missing {sorted(set(own) - set(arrays))[:3]}, "
            f"unexpected {sorted(set(arrays) - set(own))[:3]}"
        )
    for name, array in own.items():
        got = arrays[name]
        if got.shape != array.shape or got.dtype != array.dtype:
            raise StateError(
                f"state: {name} is {got.dtype} {list(got.shape)}, wanted {array.dtype} "
                f"{list(array.shape)}"
            )
        if got.dtype.kind == "f" and not bool(np.isfinite(got).all()):
            raise StateError(f"state: {name} holds NaN or infinity")
    return dict(arrays)
