# SPDX-License-Identifier: Apache-2.0
"""Two checks of a quantizer: that its blocks do not leak into each other, and that its bits live.

check_isolation(codec.quantizer, torch.randn(2, width, 4))      # IsolationError if they leak
print(usage_report(codec.encode(wav), codec.config.quantizer).table())
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from affectcodec.config import BDRFSQConfig, Block
from affectcodec.ops import fsq
from affectcodec.tokens import Tokens

DEFAULT_SCALES = (1e-3, 1.0, 1e3, 1e30)
DEFAULT_THRESHOLD = 0.5


class IsolationError(AssertionError):
    """A block of the quantizer depends on another block's latent."""


@dataclass(frozen=True)
class BlockLeak:
    """Influence of the latent of block ``source`` on block ``target``.

    Attributes:
        jacobian: largest absolute derivative of any output channel of ``target`` with respect to
            any latent channel of ``source``; NaN counts as infinite.
        digits: digits of ``target`` that changed when ``source`` was perturbed, over all scales.
        outputs: outputs of ``target`` whose bits changed likewise.
    """

    source: str
    target: str
    jacobian: float
    digits: int
    outputs: int

    @property
    def leaks(self) -> bool:
        """Whether any of the three is not exactly zero."""
        return self.jacobian != 0.0 or self.digits > 0 or self.outputs > 0

    def __str__(self) -> str:
        return (
            f"{self.source} -> {self.target}: Jacobian up to {self.jacobian:.3g}, "
            f"{self.digits} digits and {self.outputs} outputs changed"
        )


@dataclass(frozen=True)
class IsolationReport:
    """Every ordered pair of blocks, and proof that the check had something to see.

    Attributes:
        pairs: one :class:`BlockLeak` for each ordered pair of different blocks.
        own: the same for each block on itself; zeros there mean that the latent told nothing.
        scales: sizes of the perturbations.
    """

    pairs: tuple[BlockLeak, ...]
    own: tuple[BlockLeak, ...]
    scales: tuple[float, ...]

    @property
    def leaks(self) -> tuple[BlockLeak, ...]:
        """The pairs that are not isolated."""
        return tuple(pair for pair in self.pairs if pair.leaks)

    @property
    def isolated(self) -> bool:
        """True if no block influences another one, to the last bit."""
        return not self.leaks

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary of JSON types."""
        return {"isolated": self.isolated, **dataclasses.asdict(self)}


def isolation_report(
    quantizer: nn.Module, latent: Tensor, *, scales: tuple[float, ...] = DEFAULT_SCALES
) -> IsolationReport:
    """Measure how much each block's codes and outputs depend on another block's latent.

    Backward: one vector-Jacobian product for every output channel, so every entry of the Jacobian
    is looked at (a random projection could hide one behind another). Forward: one block at a time
    is moved by each scale, and the codes and outputs of the others are compared bit by bit.

    Args:
        quantizer: a module with ``config`` (:class:`BDRFSQConfig`), ``encode(z) -> tokens`` and
            ``forward(z)`` with the field ``latent``, as :class:`BDRFSQ` has them.
        latent: ``[B, D, T]`` floating point; a few frames are enough, the cost is ``D`` backward
            passes.
        scales: standard deviations of the perturbations.

    Raises:
        ValueError: on a wrong shape, or an output that carries no gradient.
    """
    config: BDRFSQConfig = quantizer.config  # type: ignore[assignment]
    if latent.ndim != 3 or latent.shape[1] != config.width or not latent.numel():
        raise ValueError(
            f"latent: wanted [B, D, T] with D = {config.width} and at least one frame, "
            f"got {tuple(latent.shape)}"
        )
    latent = latent.detach()
    jacobian = _cross_jacobian(quantizer, latent, config)
    digits, outputs = _perturbed(quantizer, latent, config, scales)
    found = [
        BlockLeak(s, t, jacobian[s, t], digits[s, t], outputs[s, t])
        for s in config.names
        for t in config.names
    ]
    return IsolationReport(
        pairs=tuple(leak for leak in found if leak.source != leak.target),
        own=tuple(leak for leak in found if leak.source == leak.target),
        scales=tuple(scales),
    )


def check_isolation(
    quantizer: nn.Module, latent: Tensor, *, scales: tuple[float, ...] = DEFAULT_SCALES
) -> IsolationReport:
    """:func:`isolation_report`, and an error where a block is not isolated.

    Raises:
        IsolationError: naming each pair of blocks that leaks and by how much.
    """
    report = isolation_report(quantizer, latent, scales=scales)
    if not report.isolated:
        lines = "; ".join(str(leak) for leak in report.leaks)
        raise IsolationError(
            f"blocks of {type(quantizer).__name__} are not isolated: {lines}. Each block must be "
            "projected, quantized and projected back on its own."
        )
    return report


def _cross_jacobian(
    quantizer: nn.Module, latent: Tensor, config: BDRFSQConfig
) -> dict[tuple[str, str], float]:
    """Largest absolute Jacobian entry for (source, target)."""
    slices = config.block_slices()
    largest = {(s, t): 0.0 for s in config.names for t in config.names}
    with torch.enable_grad():
        z = latent.clone().requires_grad_(True)
        out = quantizer(z).latent
        if not out.requires_grad:
            raise ValueError("quantizer: its latent carries no gradient; nothing can be measured")
        for target, channels in slices.items():
            for channel in range(channels.start, channels.stop):
                cotangent = torch.zeros_like(out)
                cotangent[:, channel] = 1
                (grad,) = torch.autograd.grad(
                    out, z, cotangent, retain_graph=True, allow_unused=True
                )
                for source, part in slices.items():
                    if grad is not None:
                        entries = torch.nan_to_num(
                            grad[:, part].abs(), nan=math.inf, posinf=math.inf
                        )
                        largest[source, target] = max(largest[source, target], float(entries.max()))
    return largest


@torch.no_grad()
def _perturbed(
    quantizer: nn.Module, latent: Tensor, config: BDRFSQConfig, scales: tuple[float, ...]
) -> tuple[dict[tuple[str, str], int], dict[tuple[str, str], int]]:
    """Digits and outputs of (source, target) that change when the source is moved."""
    slices, bases = config.block_slices(), config.token_bases()

    def look(z: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        tokens, out = quantizer.encode(z), quantizer(z).latent  # type: ignore[operator]
        digits = {
            block.name: fsq.unpack_digits(
                tokens // bases[block.name] % block.codebook_size, block.levels
            )
            for block in config.blocks
        }
        # Compared through integers: two NaN are the same, 0.0 and -0.0 are not.
        view = {2: torch.int16, 4: torch.int32, 8: torch.int64}[out.element_size()]
        bits = {name: out[:, part].contiguous().view(view) for name, part in slices.items()}
        return digits, bits

    generator = torch.Generator().manual_seed(0)
    before_digits, before_bits = look(latent)
    digits = {(s, t): 0 for s in config.names for t in config.names}
    outputs = dict(digits)
    for source, part in slices.items():
        noise = torch.randn(latent[:, part].shape, generator=generator).to(latent)
        for scale in scales:
            moved = latent.clone()
            moved[:, part] += scale * noise
            after_digits, after_bits = look(moved)
            for target in config.names:
                changed = after_digits[target] != before_digits[target]
                digits[source, target] += int(changed.sum())
                outputs[source, target] += int((after_bits[target] != before_bits[target]).sum())
    return digits, outputs


@dataclass(frozen=True)
class DigitUse:
    """Use of one code dim of one stage; ``stage`` counts from 1, ``dim`` from 0.

    Attributes:
        level_shares: share of frames at each level, they sum to 1.
        bits: entropy of the digit.
        max_bits: log2 of its levels.
    """

    block: str
    stage: int
    dim: int
    level_shares: tuple[float, ...]
    bits: float
    max_bits: float

    @property
    def share(self) -> float:
        """Entropy over its maximum, 0..1."""
        return self.bits / self.max_bits

    def __str__(self) -> str:
        return (
            f"{self.block} stage {self.stage} dim {self.dim}: "
            f"{self.bits:.2f} of {self.max_bits:.2f} bits"
        )


@dataclass(frozen=True)
class CodeUse:
    """Use of the whole code of one block at one stage; ``stage`` counts from 1.

    Attributes:
        used: codes that occur, of ``codebook_size``.
        bits: entropy of the code; unlike the digits' sum it sees digits that repeat each other.
        max_bits: log2 of the codebook size.
        frames: frames counted.
    """

    block: str
    stage: int
    used: int
    codebook_size: int
    bits: float
    max_bits: float
    frames: int


@dataclass(frozen=True)
class UsageReport:
    """Use of every digit and every code; ``threshold`` is the share under which a digit is dead."""

    digits: tuple[DigitUse, ...]
    codes: tuple[CodeUse, ...]
    threshold: float

    @property
    def dead(self) -> list[str]:
        """The digits under the threshold, e.g. ``acoustic stage 7 dim 3: 0.12 of 2.00 bits``."""
        return [str(digit) for digit in self.digits if digit.share < self.threshold]

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary of JSON types."""
        return {**dataclasses.asdict(self), "dead": self.dead}

    def table(self) -> str:
        """Text, one line a stage: digit shares, entropy of the code, codes used; then the dead."""
        lines = [f"{'block':<12} stage  {'code bits':>14}  {'codes used':>16}  digit shares"]
        for code in self.codes:
            own = [d for d in self.digits if (d.block, d.stage) == (code.block, code.stage)]
            shares = " ".join(f"{digit.share:.2f}" for digit in own)
            bits = f"{code.bits:.2f} of {code.max_bits:.2f}"
            used = f"{code.used} of {code.codebook_size}"
            lines.append(f"{code.block:<12} {code.stage:>5}  {bits:>14}  {used:>16}  {shares}")
        dead = self.dead
        lines.append(f"under {self.threshold:g} of the maximum: " + ("; ".join(dead) or "none"))
        return "\n".join(lines)


def usage_report(
    tokens: Tokens | Tensor, config: BDRFSQConfig, *, threshold: float = DEFAULT_THRESHOLD
) -> UsageReport:
    """Entropy and level histogram of every digit, and the codes used, of a batch of tokens.

    Args:
        tokens: ``Tokens`` (padding, and stages that a clip does not carry, are left out), or an
            int tensor ``[B, K', T]`` of composite tokens; frames marked -1 are left out.
        config: the quantizer's configuration.
        threshold: share of its maximal entropy under which a digit is called dead.

    Returns:
        :class:`UsageReport`; a stage without a single frame is left out.

    Raises:
        ValueError: on a wrong shape or dtype, another quantizer's tokens, values out of range, or
            no frame at all.
    """
    digits: list[DigitUse] = []
    codes: list[CodeUse] = []
    for block, stage, values in _stage_codes(tokens, config):
        if not values.numel():
            continue
        for dim, digit in enumerate(fsq.unpack_digits(values, block.levels)):
            counts = torch.bincount(digit, minlength=block.levels[dim])
            shares = tuple((counts.double() / counts.sum()).tolist())
            most = math.log2(block.levels[dim])
            digits.append(DigitUse(block.name, stage, dim, shares, _entropy_bits(counts), most))
        _, counts = torch.unique(values, return_counts=True)
        bits = _entropy_bits(counts)
        size, frames = block.codebook_size, values.numel()
        codes.append(CodeUse(block.name, stage, len(counts), size, bits, block.bits, frames))
    if not codes:
        raise ValueError("tokens: hold no frame, there is nothing to report")
    return UsageReport(tuple(digits), tuple(codes), threshold)


def _stage_codes(
    tokens: Tokens | Tensor, config: BDRFSQConfig
) -> Iterator[tuple[Block, int, Tensor]]:
    """Block, stage from 1, and the codes ``[frames]`` that the clips carry there."""
    if isinstance(tokens, Tokens):
        if tokens.quantizer != config:
            raise ValueError("tokens: made by another quantizer than config describes")
        codes, counts, limit = tokens.codes, tokens.stages, tokens.frame_stages
        frame = torch.arange(codes.shape[2], device=codes.device)
        valid = frame < tokens.lengths.to(codes.device)[:, None]
    else:
        if tokens.ndim != 3 or tokens.dtype not in (torch.int32, torch.int64):
            raise ValueError(
                "tokens: wanted Tokens or an int32 or int64 tensor [B, K, T], "
                f"got {tokens.dtype} {tuple(tokens.shape)}"
            )
        if not 1 <= tokens.shape[1] <= config.num_stages:
            raise ValueError(
                f"tokens: wanted 1 to {config.num_stages} stages in dim 1, got {tokens.shape[1]}"
            )
        codes, limit = tokens, None
        counts = dict.fromkeys(config.names, codes.shape[1])
        valid = (codes != -1).all(1)
    picked = codes.transpose(1, 2)[valid].long()  # [frames, K]
    if picked.numel() and not 0 <= int(picked.min()) <= int(picked.max()) < config.codebook_size:
        raise ValueError(
            f"tokens: values must lie in 0..{config.codebook_size - 1}, "
            f"got {int(picked.min())}..{int(picked.max())}"
        )
    bases = config.token_bases()
    for index, block in enumerate(config.blocks):
        own = picked // bases[block.name] % block.codebook_size
        for k in range(counts[block.name]):
            values = own[:, k]
            if limit is not None:
                values = values[limit[:, index].to(codes.device)[valid] > k]
            yield block, k + 1, values


def _entropy_bits(counts: Tensor) -> float:
    """Entropy of a histogram in bits."""
    shares = counts[counts > 0].double() / counts.sum()
    return max(0.0, -float((shares * shares.log2()).sum()))
