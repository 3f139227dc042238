# SPDX-License-Identifier: Apache-2.0
"""BD-RFSQ as a module in plain PyTorch: its parameters, and every operation without a kernel."""

from __future__ import annotations

import math
from collections.abc import Iterator
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
    quantize_codespace,
    quantize_naive,
)
from affectcodec.ops.bd_rfsq.params import SCALE_EPSILON

Stages = StageSpec | Tensor


class BlockQuantizer(nn.Module):
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
        self.scale_logit = nn.Parameter(torch.empty(num_stages, dim))
        self.shift = nn.Parameter(torch.empty(num_stages, dim))
        self.reset_affine()

    @torch.no_grad()
    def reset_affine(self) -> None:
        """``s = 1`` and ``b = 0``."""
        one = math.log(math.expm1(1 - SCALE_EPSILON))  # softplus(one) + epsilon == 1
        self.scale_logit.fill_(one)
        self.shift.zero_()

    @staticmethod
    def _orthonormal(dim: int, width: int) -> Tensor:
        if dim > width:
            return torch.randn(dim, width) / math.sqrt(width)
        return torch.linalg.qr(torch.randn(width, dim)).Q.t().contiguous()

    def tensors(self) -> tuple[Tensor, ...]:
        return (self.W, self.c, self.O, self.e, self.scale_logit, self.shift)

    def params(self, dtype: torch.dtype) -> BlockParams:
        return BlockParams(*(tensor.to(dtype) for tensor in self.tensors()))


class PlainBDRFSQ(nn.Module):
    """Parameters of all blocks and the plain form of the operations, on ``[B, D, T]``.

    Inputs are not checked here.
    """

    def __init__(self, config: BDRFSQConfig, form: str) -> None:
        super().__init__()
        self.config = config
        self.form = form
        self.blocks = nn.ModuleDict(
            {block.name: BlockQuantizer(block, config.num_stages) for block in config.blocks}
        )

    def _all_parameters(self) -> list[Tensor]:
        """Parameters of all blocks in order, without the cost of `nn.Module` attributes."""
        found: list[Tensor] = []
        for block in self._modules["blocks"]._modules.values():  # type: ignore[union-attr]
            own = block._parameters  # type: ignore[union-attr]
            if len(own) == 6:
                found.extend(own.values())  # type: ignore[arg-type]
            else:  # a parametrization took some of them over
                found += cast(BlockQuantizer, block).tensors()
        return found

    def block_params(self, name: str, dtype: torch.dtype = torch.float32) -> BlockParams:
        """Parameters of one block, converted to ``dtype``."""
        return self._block(name).params(dtype)

    def _block(self, name: str) -> BlockQuantizer:
        return cast(BlockQuantizer, self.blocks[name])

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

    def _encode_plain(self, z: Tensor) -> Tensor:
        masks = self.stage_mask(None, z.shape[0], self.config.num_stages, z.device)
        return self._marked(z, self._run(z, masks, ()))

    def _marked(self, z: Tensor, results: dict[str, BlockResult]) -> Tensor:
        """Tokens ``[B, K, T]``, -1 in the frames that hold a NaN."""
        token = self._pack({name: r.digits for name, r in results.items()})
        return token.masked_fill(torch.isnan(z.detach()).any(1, keepdim=True), -1)

    def _forward_plain(
        self, z: Tensor, stages: Stages, rates: tuple[int, ...]
    ) -> tuple[list[Tensor], Tensor]:
        """Latents at ``rates`` and at all stages, and the tokens."""
        masks = self.stage_mask(stages, z.shape[0], self.config.num_stages, z.device)
        results = self._run(z, masks, rates)
        names = self.config.names
        latents = [
            torch.cat([results[name].latents[i] for name in names], 1).to(z.dtype)
            for i in range(len(rates) + 1)
        ]
        return latents, self._marked(z, results)

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
