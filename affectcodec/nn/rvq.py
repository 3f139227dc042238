# SPDX-License-Identifier: Apache-2.0
"""Baseline: residual vector quantization with codebooks that follow moving averages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from affectcodec.config import BDRFSQConfig
from affectcodec.nn.bdrfsq import BDRFSQOutput, Stages
from affectcodec.nn.rfsq import shared_stages
from affectcodec.ops import fsq

_DECAY = 0.99  # of the moving averages
_SMOOTHING = 1e-5
_DEAD = 1.0  # moving count of uses in a batch below which an entry starts anew
_KMEANS_STEPS = 10


class Codebook(nn.Module):
    """One codebook ``[entries, D]`` as the moving mean of what it was nearest to.

    Made by k-means of the first training batch. An entry that is hardly used any more is replaced
    by a frame of the batch. All random choices are a function of the number of updates, so that a
    resumed run goes on as it would have.
    """

    entries: Tensor
    counts: Tensor
    sums: Tensor
    updates: Tensor

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.register_buffer("entries", torch.randn(size, width) / math.sqrt(width))
        self.register_buffer("counts", torch.zeros(size))
        self.register_buffer("sums", torch.zeros(size, width))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    def nearest(self, x: Tensor) -> Tensor:
        """Index of the nearest entry of every row, ``[N, D] -> int64 [N]``."""
        book = self.entries.to(x.dtype)
        # |x - e|^2 less |x|^2, which does not change the order.
        return torch.addmm(book.square().sum(1), x, book.t(), alpha=-2).argmin(1)

    def look_up(self, index: Tensor) -> Tensor:
        """Entries ``[..., D]``."""
        return nn.functional.embedding(index, self.entries)

    @torch.no_grad()
    def update(self, x: Tensor, index: Tensor) -> None:
        """Move the entries towards the rows ``x [N, D]`` that ``index [N]`` gave to them."""
        if not len(x):
            return
        x = x.to(self.entries.dtype)
        counts, sums = _totals(x, index, len(self.entries))
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(counts)
            dist.all_reduce(sums)
        self.counts.lerp_(counts, 1 - _DECAY)
        self.sums.lerp_(sums, 1 - _DECAY)
        total = self.counts.sum()
        smooth = (self.counts + _SMOOTHING) / (total + len(self.counts) * _SMOOTHING) * total
        self.entries.copy_(self.sums / smooth[:, None])
        self._revive(x)
        self.updates += 1

    def _revive(self, x: Tensor) -> None:
        dead = self.counts < _DEAD
        if not bool(dead.any()):
            return
        fresh = self._draw(x, len(self.entries))
        # A new entry counts as if it had been used just enough, lest it die at once.
        self.entries.copy_(torch.where(dead[:, None], fresh, self.entries))
        self.sums.copy_(torch.where(dead[:, None], fresh * _DEAD, self.sums))
        self.counts.masked_fill_(dead, _DEAD)

    @torch.no_grad()
    def initialize(self, x: Tensor) -> None:
        """k-means of rows ``[N, D]``."""
        x = x.to(self.entries.dtype)
        self.entries.copy_(self._draw(x, len(self.entries)))
        for _ in range(_KMEANS_STEPS):
            counts, sums = _totals(x, self.nearest(x), len(self.entries))
            means = sums / counts.clamp(min=1)[:, None]
            self.entries.copy_(torch.where(counts[:, None] > 0, means, self.entries))
        counts, sums = _totals(x, self.nearest(x), len(self.entries))
        self.counts.copy_(counts.clamp(min=_DEAD))
        self.sums.copy_(self.entries * self.counts[:, None])
        self.updates += 1

    def _draw(self, x: Tensor, count: int) -> Tensor:
        """Rows of ``x`` at random, the same on all processes."""
        generator = torch.Generator().manual_seed(int(self.updates))
        if count <= len(x):
            index = torch.randperm(len(x), generator=generator)[:count]
        else:
            index = torch.randint(len(x), (count,), generator=generator)
        drawn = x[index.to(x.device)]
        if dist.is_available() and dist.is_initialized():
            drawn = drawn.contiguous()
            dist.broadcast(drawn, 0)
        return drawn


def _totals(x: Tensor, index: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Number ``[size]`` and sum ``[size, D]`` of the rows of each entry."""
    counts = torch.zeros(size, dtype=x.dtype, device=x.device)
    counts.index_add_(0, index, torch.ones_like(index, dtype=x.dtype))
    sums = torch.zeros(size, x.shape[1], dtype=x.dtype, device=x.device)
    return counts, sums.index_add_(0, index, x)


def split_codebook(size: int) -> tuple[int, ...]:
    """Two factors of about equal size, the larger first; one if ``size`` is prime or small."""
    if size <= 1024:
        return (size,)
    for factor in range(math.isqrt(size), 1, -1):
        if size % factor == 0:
            return (size // factor, factor)
    return (size,)


class ResidualVQ(nn.Module):
    """Residual vector quantizer of the bits of a BD-RFSQ configuration (after SoundStream).

    A stage holds one or more codebooks, one after the other, whose indices make one token of the
    configuration's codebook: 15 bits of the default levels are codebooks of 256 and 128 entries.
    Gradients pass straight through; ``BDRFSQOutput.commitment`` draws the encoder to the entries.
    Codebooks learn in training mode only.
    """

    def __init__(self, config: BDRFSQConfig) -> None:
        super().__init__()
        self.config = config
        self.sizes = config.codebooks or split_codebook(config.codebook_size)
        self.stages = nn.ModuleList(
            nn.ModuleList(Codebook(size, config.width) for size in self.sizes)
            for _ in range(config.num_stages)
        )

    def refold(self) -> None:
        """Nothing is folded here; all quantizers have it."""

    # -- parts ----------------------------------------------------------------------------------

    def _books(self, stage: int) -> list[Codebook]:
        return list(cast(Sequence[Codebook], self.stages[stage]))

    def _rows(self, z: Tensor, channels_last: bool) -> Tensor:
        channels = 2 if channels_last else 1
        if not isinstance(z, Tensor) or z.ndim != 3 or z.shape[channels] != self.config.width:
            got = tuple(z.shape) if isinstance(z, Tensor) else type(z).__name__
            wanted = "[B, T, D]" if channels_last else "[B, D, T]"
            raise ValueError(f"z: wanted {wanted} with D = {self.config.width}, got {got}")
        if not z.dtype.is_floating_point:
            raise ValueError(f"z: wanted a floating point tensor, got {z.dtype}")
        x = z if channels_last else z.transpose(1, 2)
        x = x if x.dtype == torch.float64 else x.float()
        return x.to(self._books(0)[0].entries.dtype)

    def _mask(self, stages: Stages, batch: int, kept: int, device: torch.device) -> Tensor | None:
        """1 where a stage is active, ``[kept, B or 1, T or 1, 1]``; None where all are."""
        count = shared_stages(self.config, stages)
        if isinstance(count, int):
            if count >= kept:
                return None
            count = torch.full((batch, 1), count, device=device)
        counts = count[:, 0].to(device).reshape(batch, -1)
        index = torch.arange(kept, device=device)[:, None, None]
        return (index < counts).float()[..., None]

    def _quantize(self, residual: Tensor, stage: int, learn: bool) -> tuple[Tensor, Tensor]:
        """What a stage says of the rows ``[B, T, D]``, and its token ``[B, T]``."""
        rows = residual.reshape(-1, residual.shape[-1])
        total = torch.zeros_like(rows)
        token = torch.zeros(len(rows), dtype=torch.int64, device=rows.device)
        base = 1
        for book in self._books(stage):
            left = rows - total
            if learn and int(book.updates) == 0 and len(left):
                book.initialize(left)
            index = book.nearest(left)
            found = book.look_up(index).to(rows.dtype)
            if learn:
                book.update(left, index)
            total = total + found
            token = token + base * index
            base *= len(book.entries)
        return total.reshape(residual.shape), token.reshape(residual.shape[:2])

    # -- public ---------------------------------------------------------------------------------

    @torch.no_grad()
    def encode(
        self, z: Tensor, *, channels_last: bool = False, out: Tensor | None = None
    ) -> Tensor:
        """As of :class:`BDRFSQ`: int32 ``[B, K, T]``, -1 in frames that hold a NaN."""
        x = self._rows(z, channels_last)
        bad = torch.isnan(x).any(-1)
        residual = torch.nan_to_num(x)
        tokens = []
        for stage in range(self.config.num_stages):
            found, token = self._quantize(residual, stage, False)
            residual = residual - found
            tokens.append(token.masked_fill(bad, -1))
        result = torch.stack(tokens, 1).to(fsq.token_dtype(self.config.codebook_size))
        return result if out is None else out.copy_(result)

    def decode(
        self,
        tokens: Tensor,
        stages: Stages = None,
        *,
        channels_last: bool = False,
        out: Tensor | None = None,
    ) -> Tensor:
        """As of :class:`BDRFSQ`; all blocks must have one stage count."""
        size = self.config.codebook_size
        if not isinstance(tokens, Tensor) or tokens.ndim != 3 or tokens.dtype.is_floating_point:
            got = tuple(tokens.shape) if isinstance(tokens, Tensor) else type(tokens).__name__
            raise ValueError(f"tokens: wanted an integer tensor [B, K, T], got {got}")
        batch, kept, frames = tokens.shape
        if not 1 <= kept <= self.config.num_stages:
            raise ValueError(
                f"tokens: wanted 1 to {self.config.num_stages} stages in dim 1, got {kept}"
            )
        if tokens.numel():
            low, high = (int(x) for x in torch.aminmax(tokens))
            if low < 0 or high >= size:
                raise ValueError(f"tokens: values must lie in 0..{size - 1}, got {low}..{high}")
        mask = self._mask(stages, batch, kept, tokens.device)
        dtype = self._books(0)[0].entries.dtype
        u = torch.zeros(batch, frames, self.config.width, dtype=dtype, device=tokens.device)
        for stage in range(kept):
            code = tokens[:, stage].long()
            found = torch.zeros_like(u)
            for book in self._books(stage):
                found = found + book.look_up(code % len(book.entries))
                code = code // len(book.entries)
            u = u + (found if mask is None else found * mask[stage])
        u = u if channels_last else u.transpose(1, 2)
        return u if out is None else out.copy_(u)

    def forward(
        self,
        z: Tensor,
        stages: Stages = None,
        rates: tuple[int, ...] = (),
        *,
        channels_last: bool = False,
    ) -> BDRFSQOutput:
        """As of :class:`BDRFSQ`; all blocks must have one stage count."""
        x = self._rows(z, channels_last)
        batch, count = len(x), self.config.num_stages
        for rate in rates:
            if not 1 <= rate <= count:
                raise ValueError(f"rates: wanted 1..{count}, got {rate}")
        mask = self._mask(stages, batch, count, x.device)
        learn = self.training and torch.is_grad_enabled()
        bad = torch.isnan(x.detach()).any(-1, keepdim=True)
        residual = torch.nan_to_num(x.detach())
        total, kept = torch.zeros_like(residual), torch.zeros_like(residual)
        commitment = x.new_zeros(())
        tokens, levels = [], {}
        for stage in range(count):
            found, token = self._quantize(residual, stage, learn)
            # The encoder is drawn to what the stages up to this one make together.
            distance = (x - (total + found)).square()
            active = torch.ones_like(distance[..., :1]) if mask is None else mask[stage]
            commitment = commitment + (distance * active).mean()
            residual, total = residual - found, total + found
            kept = kept + found * active
            tokens.append(token.masked_fill(bad[..., 0], -1))
            if stage + 1 in rates:
                levels[stage + 1] = total

        def straight_through(value: Tensor) -> Tensor:
            value = value.masked_fill(bad, math.nan)
            u = (x + (value - x).detach()).to(z.dtype)
            return u if channels_last else u.transpose(1, 2)

        return BDRFSQOutput(
            latent=straight_through(kept),
            tokens=torch.stack(tokens, 1).to(fsq.token_dtype(self.config.codebook_size)),
            rates={rate: straight_through(levels[rate]) for rate in rates},
            commitment=commitment / count,
        )
