# SPDX-License-Identifier: Apache-2.0
"""The quantizer and the latents that all contenders get, the truth, and the work of each operator.

The truth is the stage-by-stage form in float64. A float32 digit may differ from it where its value
lies within rounding of a threshold, and then all later stages of that frame differ, too. So a frame
of other tokens is excused where the first digit that differs lies that close, and only there.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from affectcodec.config import BDRFSQConfig, Block
from affectcodec.nn import BDRFSQ
from affectcodec.ops import fsq
from affectcodec.ops.bd_rfsq.codespace import recurrence
from benchmarks.contest import Work

NEAR = 1e-4  # of a threshold, in units of the value before the bound; float32 errs by 1e-6 to 1e-5
SMOKE = BDRFSQConfig(
    blocks=(Block("emotion", 16, (2, 2, 2)), Block("acoustic", 48, (4,) * 6)), num_stages=3
)


@dataclass(frozen=True)
class Size:
    """Latents of one group: ``batch`` clips of ``frames`` frames."""

    batch: int
    frames: int
    channels_last: bool = False

    @property
    def total(self) -> int:
        return self.batch * self.frames

    @property
    def name(self) -> str:
        return f"N={self.total} {'[B, T, D]' if self.channels_last else '[B, D, T]'}"


def default_quantizer(smoke: bool = False, **kwargs: Any) -> BDRFSQ:
    """Default configuration with no parameter at its neutral start; equal for equal arguments."""
    state = torch.random.get_rng_state()
    try:
        torch.manual_seed(20)
        q = BDRFSQ(SMOKE if smoke else BDRFSQConfig(), **kwargs)
        with torch.no_grad():
            for name, parameter in q.named_parameters():
                spread = 0.02 if name.endswith((".W", ".O")) else 0.1
                parameter.add_(torch.randn_like(parameter), alpha=spread)
    finally:
        torch.random.set_rng_state(state)
    return q.eval()


class Workload:
    """Inputs and truths of one size; the truths are made when they are first asked for."""

    def __init__(self, size: Size, smoke: bool = False) -> None:
        self.size, self.smoke = size, smoke
        self.config = default_quantizer(smoke).config
        generator = torch.Generator().manual_seed(7)
        shape = (size.batch, self.config.width, size.frames)
        # A latent of unit variance with less in the higher channels, as encoders make them.
        slope: Tensor = torch.linspace(1.2, 0.8, self.config.width)[None, :, None]
        z = torch.randn(shape, generator=generator) * slope
        self.z = z.transpose(1, 2).contiguous() if size.channels_last else z
        grad = torch.randn(shape, generator=generator)
        self.grad = grad.transpose(1, 2).contiguous() if size.channels_last else grad

    def quantizer(self, **kwargs: Any) -> BDRFSQ:
        """The quantizer of all contenders, in the form asked for."""
        return default_quantizer(self.smoke, **kwargs)

    def first(self, latent: Tensor) -> Tensor:
        """``[B, D, T]`` of a latent in the layout of this size."""
        return latent.transpose(1, 2) if self.size.channels_last else latent

    @functools.cached_property
    def truth(self) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Latent ``[B, D, T]``, tokens and gradients (of z, then of the parameters), float64."""
        # Asked for inside of inference mode, too.
        with torch.inference_mode(False), torch.enable_grad():
            return self._truth()

    def _truth(self) -> tuple[Tensor, Tensor, list[Tensor]]:
        q = self.quantizer(form="naive").double()
        latents, tokens, dz = [], [], []
        sums = [torch.zeros_like(p) for p in q.parameters()]
        # Clip by clip: autograd of the stage-by-stage form holds many copies of the latent.
        for z, grad in zip(self.first(self.z), self.first(self.grad), strict=True):
            leaf = z[None].double().requires_grad_()
            out = q(leaf)
            found = torch.autograd.grad(out.latent, [leaf, *q.parameters()], grad[None].double())
            latents.append(out.latent.detach())
            tokens.append(out.tokens)
            dz.append(found[0])
            for total, part in zip(sums, found[1:], strict=True):
                total += part
        return torch.cat(latents), torch.cat(tokens), [torch.cat(dz), *sums]

    @functools.cached_property
    def margins(self) -> Tensor:
        """Distance of the nearest pre-bound value to a threshold, ``[B, K, T]``, float64."""
        q, found = self.quantizer(), []
        for block, part in zip(
            self.config.blocks, self.first(self.z).double().split(self._widths, 1), strict=True
        ):
            params = q.block_params(block.name, torch.float64)
            W = params.W.detach()
            projections = torch.matmul(W.reshape(-1, W.shape[2]), part)
            with torch.no_grad():
                projections += params.c.reshape(-1, 1)
                _, y, _ = recurrence(projections, params, block.levels, self.config.bound, None)
            table = fsq.threshold_table(block.levels, self.config.bound, dtype=torch.float64)
            distance = torch.full_like(y, torch.inf)
            for column in table.unbind(-1):
                distance = torch.fmin(distance, (y - column[:, None]).abs())
            found.append(distance.amin(2))
        return torch.stack(found).amin(0)

    @property
    def _widths(self) -> list[int]:
        return [block.width for block in self.config.blocks]

    # -- checks ---------------------------------------------------------------------------------

    def same_frames(self, tokens: Tensor) -> tuple[Tensor, dict[str, Any]]:
        """Frames ``[B, T]`` whose tokens are the true ones, after excusing near thresholds.

        Raises:
            AssertionError: on a wrong shape, or tokens that differ without a near threshold.
        """
        wanted = self.truth[1]
        assert tokens.shape == wanted.shape, f"tokens {tuple(tokens.shape)}, {tuple(wanted.shape)}"
        differs = tokens != wanted
        same = ~differs.any(1)
        where = (~same).nonzero()
        if len(where):
            first = differs.int().argmax(1)  # the first stage that differs
            batch, frame = where.unbind(1)
            margin = self.margins[batch, first[batch, frame], frame]
            assert bool((margin < NEAR).all()), (
                f"{int((margin >= NEAR).sum())} of {same.numel()} frames have other tokens than "
                f"the float64 stage-by-stage form without a threshold nearby "
                f"(largest distance {float(margin.max()):.2g})"
            )
        return same, {"frames_with_other_tokens": len(where)}

    def check_tokens(self, tokens: Tensor) -> dict[str, Any]:
        """Tokens equal the true ones, but for values within rounding of a threshold."""
        return self.same_frames(tokens)[1]

    def check_forward(self, result: tuple[Tensor, Tensor]) -> dict[str, Any]:
        """Latent and tokens of a forward."""
        latent, tokens = result
        same, remarks = self.same_frames(tokens)
        error = self._error(self.first(latent), self.truth[0], same)
        assert error < 1e-5, f"latent is off by {error:.2g} of its norm"
        return remarks

    def check_gradients(self, result: tuple[Tensor, Tensor, list[Tensor]]) -> dict[str, Any]:
        """Latent, tokens, and gradients of z and of every parameter."""
        latent, tokens, (dz, *grads) = result
        remarks = self.check_forward((latent, tokens))
        same, _ = self.same_frames(tokens)
        true_dz, *true_grads = self.truth[2]
        error = self._error(self.first(dz), true_dz, same)
        assert error < 1e-4, f"gradient of z is off by {error:.2g} of its norm"
        names = [name for name, _ in self.quantizer().named_parameters()]
        share = float((~same).float().mean())  # such frames have another gradient, rightly
        worst = 0.0
        for name, own, true in zip(names, grads, true_grads, strict=True):
            off = float((own.double() - true).norm() / true.norm())
            assert off < 1e-3 + 10 * share, f"gradient of {name} is off by {off:.2g} of its norm"
            worst = max(worst, off)
        return {**remarks, "worst_gradient_error": worst}

    def check_decode(self, latent: Tensor) -> dict[str, Any]:
        """Latent decoded from the true tokens."""
        error = self._error(self.first(latent), self.truth[0], None)
        assert error < 1e-5, f"latent is off by {error:.2g} of its norm"
        return {}

    @staticmethod
    def _error(own: Tensor, true: Tensor, frames: Tensor | None) -> float:
        """Norm of the difference over that of the truth, over the frames ``[B, T]`` given."""
        assert own.shape == true.shape, f"latent {tuple(own.shape)}, wanted {tuple(true.shape)}"
        off, norm = own.detach().double() - true, true
        if frames is not None:
            off, norm = off * frames[:, None], true * frames[:, None]
        return float(off.norm() / norm.norm())

    # -- work -----------------------------------------------------------------------------------

    def work(self, op: str) -> Work:
        """Bytes that have to move and operations needed in code space, weights not counted.

        A product is ``2 D_g K d_g`` operations a frame and block, the recurrence two for each pair
        of a row and an earlier one. ``forward+backward`` makes two products forward and four
        backward (for ``a``, ``dz``, ``dW`` and ``dO``), and the recurrence both ways.
        """
        stages, width = self.config.num_stages, self.config.width
        product = sum(2 * b.width * stages * b.code_dim for b in self.config.blocks)
        chain = sum(stages * (stages - 1) * b.code_dim**2 for b in self.config.blocks)
        latent, tokens = 4 * width, 4 * stages
        bytes_and_flops = {
            "encode": (latent + tokens, product + chain),
            "forward": (2 * latent + tokens, 2 * product + chain),
            "forward+backward": (5 * latent + tokens, 6 * product + 2 * chain),
            "decode": (tokens + latent, product),
        }
        num_bytes, flops = bytes_and_flops[op]
        return Work(self.size.total, float(num_bytes), float(flops))


@functools.lru_cache(maxsize=1)
def workload(size: Size, smoke: bool = False) -> Workload:
    """Inputs of a size; those of another size are let go."""
    return Workload(size, smoke)
