# SPDX-License-Identifier: Apache-2.0
"""The block-diagonal residual finite scalar quantizer as a module."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from affectcodec.config import BDRFSQConfig, Block, StageSpec
from affectcodec.ops import fsq
from affectcodec.ops.bd_rfsq import (
    BlockParams,
    BlockResult,
    decode_block,
    decode_block_backward,
    kernels,
    quantize_codespace,
    quantize_naive,
)
from affectcodec.ops.bd_rfsq.folding import FoldCache, describe, fold
from affectcodec.ops.bd_rfsq.params import SCALE_EPSILON
from affectcodec.ops.registry import REFERENCE, choose

Stages = StageSpec | Tensor


@dataclass(frozen=True)
class BDRFSQOutput:
    """Result of ``BDRFSQ.forward``.

    Attributes:
        latent: quantized latent at the asked stage counts, in the layout and dtype of the input.
        tokens: composite tokens of all stages, ``[B, K, T]``.
        rates: latent at each asked rate ``m``, from the same pass.
        commitment: loss that draws the encoder to the codebooks of a vector quantizer; None of
            quantizers that learn by their gradient.
    """

    latent: Tensor
    tokens: Tensor
    rates: dict[int, Tensor]
    commitment: Tensor | None = None


class _BlockQuantizer(nn.Module):
    """Parameters of one block."""

    def __init__(self, block: Block, num_stages: int) -> None:
        super().__init__()
        dim, width = block.code_dim, block.width
        # Each stage starts in a subspace of its own with orthonormal directions: on a latent of
        # unit variance every digit then starts near its full entropy and no stage is dead.
        frames = [self._orthonormal(dim, width) for _ in range(num_stages)]
        self.W = nn.Parameter(torch.stack(frames))
        self.c = nn.Parameter(torch.zeros(num_stages, dim))
        self.O = nn.Parameter(torch.stack(frames).transpose(1, 2).contiguous())
        self.e = nn.Parameter(torch.zeros(num_stages, width))
        one = math.log(math.expm1(1 - SCALE_EPSILON))  # softplus(one) + epsilon == 1
        self.scale_logit = nn.Parameter(torch.full((num_stages, dim), one))
        self.shift = nn.Parameter(torch.zeros(num_stages, dim))

    @staticmethod
    def _orthonormal(dim: int, width: int) -> Tensor:
        if dim > width:
            return torch.randn(dim, width) / math.sqrt(width)
        return torch.linalg.qr(torch.randn(width, dim)).Q.t().contiguous()

    def tensors(self) -> tuple[Tensor, ...]:
        return (self.W, self.c, self.O, self.e, self.scale_logit, self.shift)

    def params(self, dtype: torch.dtype) -> BlockParams:
        return BlockParams(*(tensor.to(dtype) for tensor in self.tensors()))


class BDRFSQ(nn.Module):
    """Block-diagonal residual finite scalar quantizer (arXiv 2605.23373).

    A latent frame is cut into named blocks; each block runs ``K`` residual FSQ stages of its own,
    and one composite token a stage joins the digits of all blocks. No term mixes blocks.

    Arithmetic is float32 for float32, bfloat16 and float16 input and float64 for float64 input,
    whatever the dtype of the parameters; a module cast to bfloat16 has rounded parameters, and so
    other tokens.

    Computed by the kernels of the device where there are some for the dtype, otherwise in plain
    PyTorch; see ``affectcodec.ops.use_backend``. Kernels read weights folded once a version of the
    parameters. A write through ``parameter.data`` raises no version: call ``refold`` after it.

    Args:
        config: blocks, levels and stage count.
        form: how plain PyTorch computes: ``"codespace"`` (fast, exact backward) or ``"naive"``
            (stage by stage, the specification; never replaced by a kernel). Both give the same
            numbers up to float rounding.
        backend: ``"reference"``, ``"cpu"``, ``"triton"`` or ``"cuda"``, over all other choices;
            None to choose by context, environment and device.

    Example:
        >>> q = BDRFSQ(BDRFSQConfig())
        >>> tokens = q.encode(torch.randn(1, 1024, 50))      # int32 [1, 8, 50]
        >>> u = q.decode(tokens, stages={"emotion": 8, "acoustic": 2})
    """

    def __init__(
        self, config: BDRFSQConfig, *, form: str = "codespace", backend: str | None = None
    ) -> None:
        super().__init__()
        if not isinstance(config, BDRFSQConfig):
            raise TypeError(f"config must be a BDRFSQConfig, got {type(config).__name__}")
        if form not in ("codespace", "naive"):
            raise ValueError(f"form must be 'codespace' or 'naive', got {form!r}")
        self.config = config
        self.form = form
        self.backend = REFERENCE if form == "naive" else backend
        self._description = describe(config)
        self._width = config.width
        self._folded = FoldCache()
        self.blocks = nn.ModuleDict(
            {block.name: _BlockQuantizer(block, config.num_stages) for block in config.blocks}
        )

    def refold(self) -> None:
        """Fold the weights anew at the next call, after a write that autograd cannot see."""
        self._folded.forget()

    def train(self, mode: bool = True) -> BDRFSQ:
        # Weights are often swapped through `.data` between training and evaluation.
        self._folded.forget()
        return super().train(mode)

    def _all_parameters(self) -> list[Tensor]:
        """Parameters of all blocks in order, without the cost of `nn.Module` attributes."""
        found: list[Tensor] = []
        for block in self._modules["blocks"]._modules.values():  # type: ignore[union-attr]
            own = block._parameters  # type: ignore[union-attr]
            if len(own) == 6:
                found += own.values()  # type: ignore[arg-type]
            else:  # a parametrization took some of them over
                found += cast(_BlockQuantizer, block).tensors()
        return found

    def block_params(self, name: str, dtype: torch.dtype = torch.float32) -> BlockParams:
        """Parameters of one block, converted to ``dtype``."""
        return self._block(name).params(dtype)

    def _block(self, name: str) -> _BlockQuantizer:
        return cast(_BlockQuantizer, self.blocks[name])

    # -- checks ---------------------------------------------------------------------------------

    def _check_latent(self, z: Tensor, channels_last: bool) -> None:
        if not isinstance(z, Tensor) or z.ndim != 3:
            got = tuple(z.shape) if isinstance(z, Tensor) else type(z).__name__
            wanted = "[B, T, D]" if channels_last else "[B, D, T]"
            raise ValueError(f"z: wanted a tensor {wanted}, got {got}")
        if not z.dtype.is_floating_point:
            raise ValueError(f"z: wanted a floating point tensor, got {z.dtype}")
        channels = z.shape[2 if channels_last else 1]
        if channels != self._width:
            hint = "" if channels_last else "; pass channels_last=True for [B, T, D]"
            raise ValueError(
                f"z: wanted {self.config.width} channels "
                f"({' + '.join(f'{b.width} {b.name}' for b in self.config.blocks)}), "
                f"got {channels} in shape {tuple(z.shape)}{hint}"
            )

    def _check_tokens(self, tokens: Tensor) -> Tensor:
        if not isinstance(tokens, Tensor) or tokens.ndim != 3:
            got = tuple(tokens.shape) if isinstance(tokens, Tensor) else type(tokens).__name__
            raise ValueError(f"tokens: wanted an integer tensor [B, K, T], got {got}")
        if tokens.dtype not in (torch.int32, torch.int64):
            raise ValueError(f"tokens: wanted int32 or int64, got {tokens.dtype}")
        if not 1 <= tokens.shape[1] <= self.config.num_stages:
            raise ValueError(
                f"tokens: wanted 1 to {self.config.num_stages} stages in dim 1, "
                f"got {tokens.shape[1]} in shape {tuple(tokens.shape)}"
            )
        return tokens

    def stage_mask(
        self, stages: Stages, batch: int, num_stages: int, device: torch.device
    ) -> dict[str, Tensor | None]:
        """Mask ``[B, num_stages]`` of every block, None where nothing is cut; no host sync.

        Args:
            stages: None, an int, a mapping block -> int, or an integer tensor ``[B, G]`` of
                counts for each sample and block.
        """
        index = torch.arange(num_stages, device=device)
        if isinstance(stages, Tensor):
            shape = (batch, len(self.config.blocks))
            if tuple(stages.shape) != shape:
                raise ValueError(
                    f"stages: a tensor must be [B, G] = {list(shape)} "
                    f"(G blocks: {list(self.config.names)}), got {list(stages.shape)}"
                )
            counts = stages.to(device)
            return {
                name: (index[None, :] < counts[:, g, None]).to(torch.float32)
                for g, name in enumerate(self.config.names)
            }
        resolved = self.config.resolve_stages(stages)
        return {
            name: None
            if count >= num_stages
            else (index < count).to(torch.float32).expand(batch, num_stages)
            for name, count in resolved.items()
        }

    def _counts(
        self, stages: Stages, batch: int, num_stages: int, device: torch.device
    ) -> Tensor | None:
        """Active stages int64 ``[B, G]`` (or ``[B, G, T]``), None where nothing is cut."""
        if stages is None:
            return None
        if isinstance(stages, Tensor):
            shape = (batch, len(self.config.blocks))
            if stages.ndim != 3 and tuple(stages.shape) != shape:
                raise ValueError(
                    f"stages: a tensor must be [B, G] = {list(shape)} "
                    f"(G blocks: {list(self.config.names)}), got {list(stages.shape)}"
                )
            return stages.to(device=device, dtype=torch.int64)
        counts = list(self.config.resolve_stages(stages).values())
        if all(count >= num_stages for count in counts):
            return None
        # Filled on the device: a copy from the host would wait for a GPU.
        parts = [torch.full((batch,), count, dtype=torch.int64, device=device) for count in counts]
        return torch.stack(parts, dim=1)

    def _float32_parameters(self) -> list[Tensor]:
        """Parameters as the kernels' gradients are made for; a cast is differentiable."""
        return [
            p if p.dtype == torch.float32 else p.to(torch.float32) for p in self._all_parameters()
        ]

    # -- public ---------------------------------------------------------------------------------

    def _run(
        self, z: Tensor, masks: dict[str, Tensor | None], rates: tuple[int, ...]
    ) -> dict[str, BlockResult]:
        work = z if z.dtype == torch.float64 else z.float()
        quantize = quantize_codespace if self.form == "codespace" else quantize_naive
        results = {}
        with torch.autocast(device_type=z.device.type, enabled=False):
            for block, part in zip(
                self.config.blocks,
                work.split([block.width for block in self.config.blocks], 1),
                strict=True,
            ):
                params = self._block(block.name).params(work.dtype)
                results[block.name] = quantize(
                    part, params, block.levels, self.config.bound, masks[block.name], rates
                )
        return results

    def _pack(self, digits: dict[str, Tensor]) -> Tensor:
        dtype = fsq.token_dtype(self.config.codebook_size)
        token: Tensor | None = None
        for block in self.config.blocks:
            base = self.config.token_bases()[block.name]
            code = fsq.pack_digits(digits[block.name], block.levels, dtype) * base
            token = code if token is None else token + code
        assert token is not None
        return token

    def encode(
        self, z: Tensor, *, channels_last: bool = False, out: Tensor | None = None
    ) -> Tensor:
        """Tokens of a latent.

        Args:
            z: ``[B, D, T]``, or ``[B, T, D]`` with ``channels_last``; any strides.
            out: tensor of the result's shape and dtype to write into.

        Returns:
            int32 ``[B, K, T]`` (int64 when the codebook exceeds 2**31). A frame that holds a NaN
            is marked by -1 in every stage; it is no valid token and ``decode`` refuses it.

        Raises:
            ValueError: on a wrong shape or dtype.
            RuntimeError: if the backend asked for cannot serve.
        """
        self._check_latent(z, channels_last)
        backend = choose("encode", z.device.type, z.dtype, self.backend)
        if backend != REFERENCE:
            weights = self._folded.get(self._all_parameters(), self._description, backend)
            return kernels.encode(backend, z, weights, self._description, channels_last, out)
        z = z.transpose(1, 2) if channels_last else z
        with torch.no_grad():
            masks = self.stage_mask(None, z.shape[0], self.config.num_stages, z.device)
            results = self._run(z, masks, ())
            token = self._pack({name: r.digits for name, r in results.items()})
            token = token.masked_fill(torch.isnan(z).any(1, keepdim=True), -1)
            return token if out is None else _write(out, token)

    def decode(
        self,
        tokens: Tensor,
        stages: Stages = None,
        *,
        channels_last: bool = False,
        out: Tensor | None = None,
    ) -> Tensor:
        """Quantized latent from tokens alone.

        Args:
            tokens: int32 or int64 ``[B, K', T]``, the first ``K' <= K`` stages.
            stages: None (all given), an int, a mapping block -> int, an integer tensor ``[B, G]``
                of counts for each sample and block, or ``[B, G, T]`` for each frame as well.
            out: tensor of the result's shape to write into; takes no gradient.

        Returns:
            ``u [B, D, T]`` (or ``[B, T, D]``), float64 for float64 parameters, else float32.

        Raises:
            ValueError: on a wrong shape or dtype, or a token outside ``0..codebook_size-1``.
            RuntimeError: if the backend asked for cannot serve.
        """
        tokens = self._check_tokens(tokens)
        params = self._all_parameters()
        dtype = torch.float64 if params[0].dtype == torch.float64 else torch.float32
        backend = choose("decode", tokens.device.type, dtype, self.backend)
        if backend != REFERENCE:
            return self._decode_by_kernel(backend, tokens, stages, channels_last, dtype, out)
        size = self.config.codebook_size
        if not torch.compiler.is_compiling() and tokens.numel():
            low, high = (int(x) for x in torch.aminmax(tokens))
            if low < 0 or high >= size:
                raise ValueError(
                    f"tokens: values must lie in 0..{size - 1}, got {low}..{high}. "
                    "-1 marks a frame whose latent was NaN; other values come from another codec."
                )
        u = self._decode_unchecked(tokens, stages)
        u = u.transpose(1, 2) if channels_last else u
        return u if out is None else _write(out, u)

    def _decode_by_kernel(
        self,
        backend: str,
        tokens: Tensor,
        stages: Stages,
        channels_last: bool,
        dtype: torch.dtype,
        out: Tensor | None,
    ) -> Tensor:
        batch, kept, _ = tokens.shape
        counts = self._counts(stages, batch, kept, tokens.device)
        weights = self._folded.get(self._all_parameters(), self._description, backend)
        try:
            return kernels.decode(
                backend,
                tokens,
                weights,
                self._float32_parameters(),
                self._description,
                counts,
                channels_last,
                dtype,
                self._decode_gradients,
                out,
            )
        except RuntimeError as error:
            # What the kernel says of bad values is an error of the argument, like its shape.
            if str(error).startswith("tokens:"):
                raise ValueError(str(error)) from None
            raise

    def _decode_masks(
        self, tokens: Tensor, stages: Stages
    ) -> Iterator[tuple[Block, Tensor, Tensor | None]]:
        """Block, its digits ``[B, K', d, T]`` and its mask ``[B, K', 1 or T]``."""
        batch, kept, _ = tokens.shape
        if isinstance(stages, Tensor) and stages.ndim == 3:
            index = torch.arange(kept, device=tokens.device)[None, :, None]
            masks: dict[str, Tensor | None] = {
                name: (index < stages[:, g, None, :].to(tokens.device)).float()
                for g, name in enumerate(self.config.names)
            }
        else:
            masks = {
                name: None if mask is None else mask[..., None]
                for name, mask in self.stage_mask(stages, batch, kept, tokens.device).items()
            }
        code = tokens
        for block in self.config.blocks:
            digit = fsq.unpack_digits(code % block.codebook_size, block.levels)
            code = code // block.codebook_size
            yield block, digit, masks[block.name]

    def _decode_unchecked(self, tokens: Tensor, stages: Stages) -> Tensor:
        parts = []
        for block, digit, mask in self._decode_masks(tokens, stages):
            module = self._block(block.name)
            dtype = torch.float64 if module.W.dtype == torch.float64 else torch.float32
            parts.append(decode_block(digit, module.params(dtype), block.levels, mask))
        return torch.cat(parts, 1)

    def _decode_gradients(
        self, grad: Tensor, tokens: Tensor, counts: Tensor | None, params: list[Tensor]
    ) -> list[Tensor | None]:
        """Gradients of all parameters for ``grad [B, D, T]``."""
        found: list[Tensor | None] = []
        parts = grad.split([block.width for block in self.config.blocks], 1)
        rows = self._decode_masks(tokens, counts)
        for g, (part, (block, digit, mask)) in enumerate(zip(parts, rows, strict=True)):
            own = BlockParams(*params[6 * g : 6 * g + 6])
            out, e, logit, shift = decode_block_backward(part, digit, own, block.levels, mask)
            found += [None, None, out, e, logit, shift]
        return found

    def forward(
        self,
        z: Tensor,
        stages: Stages = None,
        rates: tuple[int, ...] = (),
        *,
        channels_last: bool = False,
    ) -> BDRFSQOutput:
        """Quantize with straight-through gradients.

        Args:
            z: ``[B, D, T]``, or ``[B, T, D]`` with ``channels_last``.
            stages: None, an int, a mapping block -> int, or an integer tensor ``[B, G]`` of the
                active stages of each sample and block (stage dropout; no host sync).
            rates: stage counts whose latents are returned as well, from the same pass.

        Raises:
            ValueError: on a wrong shape, dtype, stage count or rate.
            RuntimeError: if the backend asked for cannot serve.
        """
        self._check_latent(z, channels_last)
        num_stages = self.config.num_stages
        rates = tuple(rates)
        for rate in rates:
            if not isinstance(rate, int) or not 1 <= rate <= num_stages:
                raise ValueError(f"rates: wanted integers in 1..{num_stages}, got {rates}")
        backend = choose("forward", z.device.type, z.dtype, self.backend)
        if backend != REFERENCE:
            counts = self._counts(stages, z.shape[0], num_stages, z.device)
            if counts is not None and counts.ndim != 2:
                raise ValueError(f"stages: a tensor must be [B, G], got {list(counts.shape)}")
            params = self._all_parameters()
            if torch.is_grad_enabled() and any(p.requires_grad for p in params):
                weights = fold(params, self._description, backend)  # they change at every step
            else:
                weights = self._folded.get(params, self._description, backend)
            below = tuple(sorted({rate for rate in rates if rate < num_stages}))
            found, token = kernels.quantize(
                backend,
                z,
                weights,
                self._float32_parameters(),
                self._description,
                counts,
                below,
                channels_last,
                None if torch.compiler.is_compiling() else self._folded.forget,
            )
            at = dict(zip((*below, num_stages), found, strict=True))
            return BDRFSQOutput(found[-1], token, {rate: at[rate] for rate in rates})

        z = z.transpose(1, 2) if channels_last else z
        masks = self.stage_mask(stages, z.shape[0], num_stages, z.device)
        results = self._run(z, masks, rates)
        token = self._pack({name: r.digits for name, r in results.items()})
        token = token.masked_fill(torch.isnan(z.detach()).any(1, keepdim=True), -1)

        def join(i: int) -> Tensor:
            u = torch.cat([results[name].latents[i] for name in self.config.names], 1).to(z.dtype)
            return u.transpose(1, 2) if channels_last else u

        latents = [join(i) for i in range(len(rates) + 1)]
        return BDRFSQOutput(latents[-1], token, dict(zip(rates, latents[:-1], strict=True)))

    def extra_repr(self) -> str:
        blocks = ", ".join(f"{b.name}: {b.width} -> {b.levels}" for b in self.config.blocks)
        return f"{blocks}, num_stages={self.config.num_stages}, form={self.form!r}"


def _write(out: Tensor, value: Tensor) -> Tensor:
    if out.shape != value.shape or out.dtype != value.dtype:
        raise ValueError(
            f"out: wanted {value.dtype} {list(value.shape)}, got {out.dtype} {list(out.shape)}"
        )
    return out.copy_(value)
