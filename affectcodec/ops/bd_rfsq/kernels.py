# SPDX-License-Identifier: Apache-2.0
"""The kernels as functions of latents, folded weights and parameters, with gradients.

An operator has no gradient of its own; it gets one from a ``torch.autograd.Function`` around it,
which costs a call about half of what a registered autograd formula does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from affectcodec.ops.fakes import new_outputs
from affectcodec.ops.registry import BACKENDS, OPS

# Looked up once: an attribute chain through torch.ops costs more than the call of one frame.
_KERNELS = {backend: {name: op.kernel(backend) for name, op in OPS.items()} for backend in BACKENDS}


def encode(
    backend: str,
    z: Tensor,
    weights: Tensor,
    config: tuple[int, ...],
    channels_last: bool,
    out: Tensor | None = None,
) -> Tensor:
    """Tokens ``[B, K, T]``; -1 in a frame of which a projection is NaN."""
    if z.requires_grad:
        z = z.detach()
    if out is None:
        tokens: Tensor = _KERNELS[backend]["encode"](z, weights, config, channels_last)
        return tokens
    _KERNELS[backend]["encode_out"](z, weights, config, channels_last, out)
    return out


class _Quantize(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        z: Tensor,
        counts: Tensor | None,
        weights: Tensor,
        backend: str,
        config: tuple[int, ...],
        rates: tuple[int, ...],
        channels_last: bool,
        before_step: Callable[[], None] | None,
        *params: Tensor,
    ) -> tuple[Tensor, ...]:
        latents, tokens, saved = _KERNELS[backend]["forward"](
            z, weights, config, counts, rates, channels_last
        )
        ctx.save_for_backward(z, counts, weights, saved, *params)
        ctx.backend, ctx.config, ctx.rates = backend, config, rates
        ctx.channels_last, ctx.before_step = channels_last, before_step
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(tokens)
        return (*latents, tokens)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        z, counts, weights, saved, *params = ctx.saved_tensors
        latent_grads = grads[:-1]
        present = [i for i, g in enumerate(latent_grads) if g is not None]
        if ctx.before_step is not None:
            ctx.before_step()
        nothing: tuple[Tensor | None, ...] = (None,) * (8 + len(params))
        if not present:
            return nothing
        dz, param_grads = _KERNELS[ctx.backend]["backward"](
            [latent_grads[i] for i in present],
            present,
            z,
            saved,
            weights,
            [p.contiguous() for p in params],
            ctx.config,
            counts,
            ctx.rates,
            ctx.channels_last,
            ctx.needs_input_grad[0],
        )
        return (dz if ctx.needs_input_grad[0] else None, *nothing[1:8], *param_grads)


def quantize(
    backend: str,
    z: Tensor,
    weights: Tensor,
    params: Sequence[Tensor],
    config: tuple[int, ...],
    counts: Tensor | None,
    rates: tuple[int, ...],
    channels_last: bool,
    before_step: Callable[[], None] | None = None,
) -> tuple[tuple[Tensor, ...], Tensor]:
    """Latents at ``rates`` (ascending, below ``K``) and at all stages, and the tokens.

    Args:
        counts: int64 ``[B, G]`` active stages of each sample and block, or None for all.
        params: the parameters of the blocks in float32; the gradient goes to them.
        before_step: called when gradients are made, after which parameters may change.
    """
    wanted = torch.is_grad_enabled() and (z.requires_grad or any(p.requires_grad for p in params))
    if not wanted and not torch.compiler.is_compiling():
        # Without what backward would need, which is a write of its own.
        made = new_outputs(z, config, len(rates) + 1, channels_last)
        quantize_into(backend, z, weights, config, counts, rates, channels_last, *made)
        return tuple(made[0]), made[1]
    *latents, tokens = _Quantize.apply(
        z, counts, weights, backend, config, rates, channels_last, before_step, *params
    )
    return tuple(latents), tokens


def quantize_into(
    backend: str,
    z: Tensor,
    weights: Tensor,
    config: tuple[int, ...],
    counts: Tensor | None,
    rates: tuple[int, ...],
    channels_last: bool,
    out: Sequence[Tensor],
    tokens: Tensor,
) -> None:
    """What ``quantize`` makes, written into ``out`` (as many as it returns) and ``tokens``."""
    _KERNELS[backend]["forward_out"](
        z.detach(), weights, config, counts, rates, channels_last, list(out), tokens
    )


class _Decode(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        tokens: Tensor,
        counts: Tensor | None,
        weights: Tensor,
        backend: str,
        config: tuple[int, ...],
        channels_last: bool,
        dtype: torch.dtype,
        plain: Callable[..., list[Tensor | None]],
        *params: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(tokens, counts, *params)
        ctx.channels_last, ctx.plain = channels_last, plain
        out: Tensor = _KERNELS[backend]["decode"](
            tokens, weights, config, counts, channels_last, dtype
        )
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        tokens, counts, *params = ctx.saved_tensors
        if ctx.channels_last:
            grad = grad.transpose(1, 2)
        # Rare (a decoder tuned on fixed tokens), so it takes the plain form.
        return (None,) * 8 + tuple(ctx.plain(grad, tokens, counts, params))


def decode(
    backend: str,
    tokens: Tensor,
    weights: Tensor,
    params: Sequence[Tensor],
    config: tuple[int, ...],
    counts: Tensor | None,
    channels_last: bool,
    dtype: torch.dtype,
    plain: Callable[..., list[Tensor | None]],
    out: Tensor | None = None,
) -> Tensor:
    """Latent of tokens ``[B, K', T]``; ``plain`` makes the gradient of the parameters."""
    if out is not None:
        _KERNELS[backend]["decode_out"](tokens, weights, config, counts, channels_last, out)
        return out
    if torch.is_grad_enabled() and any(p.requires_grad for p in params):
        result: Tensor = _Decode.apply(
            tokens, counts, weights, backend, config, channels_last, dtype, plain, *params
        )
        return result
    latent: Tensor = _KERNELS[backend]["decode"](
        tokens, weights, config, counts, channels_last, dtype
    )
    return latent
