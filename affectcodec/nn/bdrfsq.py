# SPDX-License-Identifier: Apache-2.0
"""The block-diagonal residual finite scalar quantizer as a module."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from affectcodec.config import BDRFSQConfig
from affectcodec.nn.bdrfsq_plain import PlainBDRFSQ, Stages
from affectcodec.ops.bd_rfsq import kernels
from affectcodec.ops.bd_rfsq.folding import FoldCache, describe, fold
from affectcodec.ops.registry import REFERENCE, choose

__all__ = ["BDRFSQ", "BDRFSQOutput", "Stages"]


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


class BDRFSQ(PlainBDRFSQ):
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
        if not isinstance(config, BDRFSQConfig):
            raise TypeError(f"config must be a BDRFSQConfig, got {type(config).__name__}")
        if form not in ("codespace", "naive"):
            raise ValueError(f"form must be 'codespace' or 'naive', got {form!r}")
        super().__init__(config, form)
        self.backend = REFERENCE if form == "naive" else backend
        self._description = describe(config)
        self._width = config.width
        self._folded = FoldCache()

    def refold(self) -> None:
        """Fold the weights anew at the next call, after a write that autograd cannot see."""
        self._folded.forget()

    def train(self, mode: bool = True) -> BDRFSQ:
        # Weights are often swapped through `.data` between training and evaluation.
        self._folded.forget()
        return super().train(mode)

    def _weights(self, backend: str) -> Tensor:
        """Folded weights of the present parameters."""
        blocks = self._modules["blocks"]._modules  # type: ignore[union-attr]
        return self._folded.get(blocks, self._all_parameters, self._description, backend)

    # -- checks ---------------------------------------------------------------------------------

    def _check_latent(self, z: Tensor, channels_last: bool) -> None:
        if isinstance(z, Tensor) and z.is_floating_point():
            shape = z.shape
            if len(shape) == 3 and shape[2 if channels_last else 1] == self._width:
                return
        if not isinstance(z, Tensor) or z.ndim != 3:
            got = tuple(z.shape) if isinstance(z, Tensor) else type(z).__name__
            wanted = "[B, T, D]" if channels_last else "[B, D, T]"
            raise ValueError(f"z: wanted a tensor {wanted}, got {got}")
        if not z.is_floating_point():
            raise ValueError(f"z: wanted a floating point tensor, got {z.dtype}")
        hint = "" if channels_last else "; pass channels_last=True for [B, T, D]"
        raise ValueError(
            f"z: wanted {self.config.width} channels "
            f"({' + '.join(f'{b.width} {b.name}' for b in self.config.blocks)}), "
            f"got {z.shape[2 if channels_last else 1]} in shape {tuple(z.shape)}{hint}"
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
        device = "cpu" if z.is_cpu else z.device.type  # the name of a device takes longer
        backend = choose("encode", device, z.dtype, self.backend)
        if backend != REFERENCE:
            weights = self._weights(backend)
            return kernels.encode(backend, z, weights, self._description, channels_last, out)
        z = z.transpose(1, 2) if channels_last else z
        with torch.no_grad():
            token = self._encode_plain(z)
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
        weights = self._weights(backend)
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

    def forward(
        self,
        z: Tensor,
        stages: Stages = None,
        rates: tuple[int, ...] = (),
        *,
        channels_last: bool = False,
        out: BDRFSQOutput | None = None,
    ) -> BDRFSQOutput:
        """Quantize with straight-through gradients.

        Args:
            z: ``[B, D, T]``, or ``[B, T, D]`` with ``channels_last``.
            stages: None, an int, a mapping block -> int, or an integer tensor ``[B, G]`` of the
                active stages of each sample and block (stage dropout; no host sync).
            rates: stage counts whose latents are returned as well, from the same pass.
            out: an earlier result of the same shapes, written over and returned; takes no
                gradient.

        Raises:
            ValueError: on a wrong shape, dtype, stage count or rate.
            RuntimeError: if the backend asked for cannot serve, or ``out`` is given where a
                gradient is wanted.
        """
        self._check_latent(z, channels_last)
        num_stages = self.config.num_stages
        rates = tuple(rates)
        for rate in rates:
            if not isinstance(rate, int) or not 1 <= rate <= num_stages:
                raise ValueError(f"rates: wanted integers in 1..{num_stages}, got {rates}")
        below = tuple(sorted({rate for rate in rates if rate < num_stages}))
        if out is not None:
            self._check_out(out, z, below)
        backend = choose("forward", z.device.type, z.dtype, self.backend)
        if backend != REFERENCE:
            counts = self._counts(stages, z.shape[0], num_stages, z.device)
            if counts is not None and counts.ndim != 2:
                raise ValueError(f"stages: a tensor must be [B, G], got {list(counts.shape)}")
            if out is not None:
                weights = self._weights(backend)
                into = [*(out.rates[rate] for rate in below), out.latent]
                kernels.quantize_into(
                    backend, z, weights, self._description, counts, below, channels_last, into,
                    out.tokens,
                )  # fmt: skip
                return self._written(out, rates)
            params = self._all_parameters()
            if torch.is_grad_enabled() and any(p.requires_grad for p in params):
                weights = fold(params, self._description, backend)  # they change at every step
            else:
                weights = self._weights(backend)
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
        latents, token = self._forward_plain(z, stages, rates)
        latents = [u.transpose(1, 2) for u in latents] if channels_last else latents
        if out is not None:
            _write(out.tokens, token)
            _write(out.latent, latents[-1])
            for rate, u in zip(rates, latents[:-1], strict=True):
                if rate < num_stages:
                    _write(out.rates[rate], u)
            return self._written(out, rates)
        return BDRFSQOutput(latents[-1], token, dict(zip(rates, latents[:-1], strict=True)))

    def _check_out(self, out: BDRFSQOutput, z: Tensor, below: tuple[int, ...]) -> None:
        missing = [rate for rate in below if rate not in out.rates]
        if missing:
            raise ValueError(f"out: wanted the latents of rates {list(below)}, without {missing}")
        inputs = (z, *self._all_parameters())
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs):
            raise RuntimeError("out: takes no gradient; call under torch.no_grad()")

    def _written(self, out: BDRFSQOutput, rates: tuple[int, ...]) -> BDRFSQOutput:
        most = self.config.num_stages
        latents = {rate: out.latent if rate == most else out.rates[rate] for rate in rates}
        return BDRFSQOutput(out.latent, out.tokens, latents)

    def extra_repr(self) -> str:
        blocks = ", ".join(f"{b.name}: {b.width} -> {b.levels}" for b in self.config.blocks)
        return f"{blocks}, num_stages={self.config.num_stages}, form={self.form!r}"


def _write(out: Tensor, value: Tensor) -> Tensor:
    if out.shape != value.shape or out.dtype != value.dtype:
        raise ValueError(
            f"out: wanted {value.dtype} {list(value.shape)}, got {out.dtype} {list(out.shape)}"
        )
    return out.copy_(value)
