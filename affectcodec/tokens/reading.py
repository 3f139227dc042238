# SPDX-License-Identifier: Apache-2.0
"""From sequences of ids back to rows of codes, checked id by id."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from affectcodec.tokens.rows import read_composite

if TYPE_CHECKING:
    from affectcodec.tokens.patterns import Pattern


def read_rows(
    pattern: Pattern, ids: Tensor, lengths: Tensor | None, errors: str
) -> tuple[Tensor, Tensor]:
    """Codes by row ``[B, T, S]``, 0 beyond a clip's frames, and the frames ``[B]``."""
    content = _checked(pattern, ids, lengths, errors)
    if pattern.vocabulary.size < 2**31 and ids.dtype == torch.int64 and ids.numel():
        low, high = torch.aminmax(ids)
        if int(low) < 0 or int(high) >= pattern.vocabulary.size:
            ids = ids.clamp(-1, pattern.vocabulary.size)  # both name nothing, and fit into int32
    read = _read_flat if pattern.flat else _read_stacked
    values, frames = read(pattern, ids, content, errors)
    offsets = [row.offset for row in pattern.rows]
    if any(offsets):
        values -= torch.tensor(offsets, dtype=values.dtype, device=values.device)
    return _validated(pattern, values, frames, errors)


def read_whole(
    pattern: Pattern, ids: Tensor, lengths: Tensor | None, errors: str
) -> tuple[Tensor, Tensor] | None:
    """Composite codes ``[B, K, T]`` and frames ``[B]`` of what is whole, in one pass.

    None where :func:`read_rows` must look: another pattern than ``flatten``, blocks with different
    stages, frames that are not whole, ids that are not possible at their place.
    """
    if pattern.name != "flatten":
        return None
    content = _checked(pattern, ids, lengths, errors)
    rows = pattern.rows
    chosen = set(pattern.vocabulary.subset(pattern.stages).values())
    if len(chosen) != 1 or not ids.numel() or bool((content % len(rows)).any()):
        return None
    frames = content // len(rows)
    codes = read_composite(ids, int(pattern.bos), frames, rows, pattern.vocabulary.quantizer)
    return None if codes is None else (codes, frames)


def _checked(pattern: Pattern, ids: Tensor, lengths: Tensor | None, errors: str) -> Tensor:
    """Positions between bos and eos, ``[B]``, of ids whose shape and type are right."""
    if errors not in ("raise", "cut"):
        raise ValueError(f"errors: wanted 'raise' or 'cut', got {errors!r}")
    wanted = "[B, L]" if pattern.flat else f"[B, {len(pattern.rows)}, L]"
    shape_ok = ids.ndim == (2 if pattern.flat else 3)
    if not shape_ok or (not pattern.flat and ids.shape[1] != len(pattern.rows)):
        raise ValueError(f"ids: wanted {wanted} for {pattern.name!r}, got {tuple(ids.shape)}")
    if ids.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"ids: wanted int64 or int32, got {ids.dtype}")
    return _content(pattern, ids, lengths, errors)


def _content(pattern: Pattern, ids: Tensor, lengths: Tensor | None, errors: str) -> Tensor:
    """Positions between bos and eos, ``[B]``."""
    special = pattern.vocabulary.special
    batch, width = ids.shape[0], ids.shape[-1]
    if lengths is None:
        stop = (ids == special("eos")) | (ids == special("pad"))
        stop = stop if pattern.flat else stop.any(1)
        place = torch.arange(width, device=ids.device).expand(batch, -1)
        ends = torch.where(stop, place, width).amin(1) if width else place.sum(1)
    else:
        ends = lengths.to(device=ids.device, dtype=torch.int64)
        if ends.shape != (batch,) or bool(((ends < 0) | (ends > width)).any()):
            raise ValueError(
                f"lengths: wanted [{batch}] values in 0..{width}, got {lengths.tolist()[:8]}"
            )
        if pattern.eos:
            last = _at(ids, (ends - 1).clamp(min=0)) if width else None
            has = ends > 0
            if last is not None:
                has &= (last == special("eos")).view(batch, -1).all(1)
            if errors == "raise" and not bool(has.all()):
                clip = int((~has).nonzero()[0])
                raise ValueError(f"ids: clip {clip} does not end with eos at its length")
            ends = ends - has.to(ends.dtype)
    if pattern.bos:
        first = ids[..., :1]
        if batch and (not width or not bool((first == special("bos")).all())):
            raise ValueError(
                f"ids: every sequence must begin with bos ({special('bos')}), as bos=True says"
            )
        ends = ends - 1
    return ends.clamp(min=0)


def _read_flat(
    pattern: Pattern, ids: Tensor, content: Tensor, errors: str
) -> tuple[Tensor, Tensor]:
    parts, first = pattern.parts(), int(pattern.bos)
    batch = ids.shape[0]
    bounds = _expected_bounds(pattern, ids, content) or _found_bounds(pattern, ids, content)
    counts = [(b - a) // len(p) for (a, b), p in zip(bounds, parts, strict=True)]
    frames = torch.stack(counts).amin(0)
    if errors == "raise":
        for (a, b), part in zip(bounds, parts, strict=True):
            wrong = (b - a) != frames * len(part)
            if bool(wrong.any()):
                clip = int(wrong.nonzero()[0])
                raise ValueError(
                    f"ids: clip {clip} holds {int((b - a)[clip])} ids in a part where a frame "
                    f"takes {len(part)} and the clip has {int(frames[clip])} frames; "
                    "errors='cut' drops what is incomplete"
                )
    top = int(frames.max()) if batch else 0
    values = _new_values(pattern, ids, top)
    for (a, _), part in zip(bounds, parts, strict=True):
        columns = slice(part[0], part[-1] + 1)  # the rows of a part are neighbours
        begin = int(a[0]) if batch else first
        if bool((a == begin).all()) and begin + top * len(part) <= ids.shape[1]:
            # What is read beyond the end of a shorter clip is cleared by the check.
            body = ids[:, begin : begin + top * len(part)]
            values[..., columns] = body.unflatten(1, (top, len(part)))
            continue
        for clip, (at, n) in enumerate(zip(a.tolist(), frames.tolist(), strict=True)):
            body = ids[clip, at : at + n * len(part)]
            values[clip, :n, columns] = body.unflatten(0, (n, len(part)))
    return values, frames


def _new_values(pattern: Pattern, ids: Tensor, frames: int) -> Tensor:
    """Room for ids by row ``[B, T, S]``; int32 takes half the time of int64."""
    dtype = torch.int32 if pattern.vocabulary.size < 2**31 else torch.int64
    shape = (ids.shape[0], frames, len(pattern.rows))
    return torch.zeros(shape, dtype=dtype, device=ids.device)


def _expected_bounds(
    pattern: Pattern, ids: Tensor, content: Tensor
) -> list[tuple[Tensor, Tensor]] | None:
    """Start and end of each part if all are whole and separators stand between them."""
    parts, start = pattern.parts(), torch.full_like(content, int(pattern.bos))
    frames = (content - (len(parts) - 1)) // len(pattern.rows)
    bounds = []
    for number, part in enumerate(parts):
        stop = start + frames * len(part)
        bounds.append((start, stop))
        if number < len(parts) - 1:
            at = stop.clamp(0, max(0, ids.shape[1] - 1))
            if not ids.shape[1] or bool((_at(ids, at) != pattern.vocabulary.special("sep")).any()):
                return None
        start = stop + 1
    whole = bounds[-1][1] == int(pattern.bos) + content
    return bounds if bool((whole & (frames >= 0)).all()) else None


def _found_bounds(pattern: Pattern, ids: Tensor, content: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Start and end of each part by its separators, wherever they stand."""
    parts, first = pattern.parts(), int(pattern.bos)
    start, end = torch.full_like(content, first), first + content
    place = torch.arange(ids.shape[1], device=ids.device)
    inside = (place >= first) & (place < end[:, None])
    order = ((ids == pattern.vocabulary.special("sep")) & inside).cumsum(1)
    bounds = []
    for number in range(1, len(parts)):
        stop = first + ((order < number) & inside).sum(1)
        bounds.append((start, stop))
        start = torch.minimum(stop + 1, end)
    return [*bounds, (start, end)]


def _read_stacked(
    pattern: Pattern, ids: Tensor, content: Tensor, errors: str
) -> tuple[Tensor, Tensor]:
    delays, first = pattern.delays(), int(pattern.bos)
    short = (content > 0) & (content <= max(delays))
    if errors == "raise" and bool(short.any()):
        clip = int(short.nonzero()[0])
        raise ValueError(
            f"ids: clip {clip} holds {int(content[clip])} steps, too few for the delay of "
            f"{max(delays)} steps of its last row; errors='cut' drops such a clip"
        )
    frames = (content - max(delays)).clamp(min=0)
    top = int(frames.max()) if ids.shape[0] else 0
    values = _new_values(pattern, ids, top)
    for i, late in enumerate(delays):
        begin = first + late
        values[..., i] = ids[:, i, begin : begin + top]
    return values, frames


def _by_size(pattern: Pattern, values: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Neighbouring rows of equal size, ``[B, T, n]`` each."""
    start = 0
    for size, group in itertools.groupby(row.size for row in pattern.rows):
        count = len(list(group))
        yield size, values[..., start : start + count]
        start += count


def _validated(
    pattern: Pattern, values: Tensor, frames: Tensor, errors: str
) -> tuple[Tensor, Tensor]:
    top = values.shape[1]
    even = bool((frames == top).all())
    valid = torch.arange(top, device=values.device) < frames[:, None]
    if not even:
        values.masked_fill_(~valid[..., None], 0)
    if values.numel() and all(
        int(low) >= 0 and int(high) < size
        for size, part in _by_size(pattern, values)
        for low, high in (torch.aminmax(part),)
    ):
        return values, frames
    limit = torch.tensor([row.size for row in pattern.rows], device=values.device)
    wrong = (values < 0) | (values >= limit)
    if not bool(wrong.any()):
        return values, frames
    if errors == "raise":
        clip, frame, i = (int(x) for x in wrong.nonzero()[0])
        row = pattern.rows[i]
        owner = f"stage {row.stage}" + (f" of {row.block!r}" if row.block else "")
        raise ValueError(
            f"ids: clip {clip}, frame {frame}: {int(values[clip, frame, i]) + row.offset} is "
            f"no id of {owner}, which has {row.offset}..{row.offset + row.size - 1}; "
            "errors='cut' ends the clip before such a frame"
        )
    bad = wrong.any(2)
    place = torch.arange(top, device=values.device).expand_as(bad)
    frames = torch.minimum(frames, torch.where(bad, place, top).amin(1))
    top = int(frames.max())
    valid = torch.arange(top, device=values.device) < frames[:, None]
    return values[:, :top].masked_fill(~valid[..., None], 0), frames


def _at(ids: Tensor, place: Tensor) -> Tensor:
    """Ids at one position a clip, ``[B]`` or ``[B, S]``."""
    if ids.ndim == 2:
        return ids.gather(1, place[:, None])[:, 0]
    return ids.gather(2, place[:, None, None].expand(-1, ids.shape[1], 1))[..., 0]
