# SPDX-License-Identifier: Apache-2.0
"""Large batches moved piece by piece, so that what one pass leaves is in cache for the next."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

# Places of a row in a piece: a row of int32 then takes 64 KB, so that all rows of a piece and the
# int64 ids beside them fit into a second-level cache or little more.
_PIECE = 16384
_WORTH_THREADS = 1 << 20

Piece = tuple[slice, slice]


def fresh(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Unwritten memory for a large result, int32 or int64.

    NumPy asks the system for huge pages, torch does not: the first touch of 160 MB then takes a
    quarter of the time, which otherwise is more than all the work on them.
    """
    if device.type != "cpu":
        return torch.empty(shape, dtype=dtype, device=device)
    return torch.from_numpy(np.empty(shape, np.int64 if dtype == torch.int64 else np.int32))


def pieces(batch: int, frames: int, device: torch.device) -> Iterator[Piece]:
    """Slices of ``[B, .., T]`` over clips and frames; all at once where there is no such cache."""
    if device.type != "cpu":
        if batch and frames:
            yield slice(0, batch), slice(0, frames)
        return
    clips = max(1, _PIECE // max(1, frames))
    for b in range(0, batch, clips):
        for t in range(0, frames, _PIECE):
            yield slice(b, min(batch, b + clips)), slice(t, min(frames, t + _PIECE))


def each(work: Callable[[Piece], bool], batch: int, frames: int, device: torch.device) -> bool:
    """Call ``work`` on all pieces, in as many threads as torch has; False once it said so.

    Pieces must not depend on each other.
    """
    found = pieces(batch, frames, device)
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads < 2 or batch * frames < _WORTH_THREADS:
        return all(map(work, found))
    inference = torch.is_inference_mode_enabled()

    def apart(piece: Piece) -> bool:
        # The mode is a thread's own; a tensor made in it may not be written outside of it.
        with torch.inference_mode(inference):
            return work(piece)

    with ThreadPoolExecutor(threads) as pool:
        return all(pool.map(apart, list(found)))
