# SPDX-License-Identifier: Apache-2.0
"""Frozen configuration of the quantizer: its blocks, levels, stages, and the bits that follow.

Import these from :mod:`affectcodec.config`.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from affectcodec.config_checks import check_keys, later
from affectcodec.config_checks import check_positive as _check_positive

StageSpec = int | Mapping[str, int] | None

QUANTIZER_KINDS = ("bd-rfsq", "rfsq", "rvq")


@dataclass(frozen=True)
class Block:
    """One named subspace of the latent and its finite scalar levels.

    Args:
        name: identifier used in ``stages={name: count}`` and in files.
        width: number of latent channels the block owns.
        levels: quantization levels of each code dim, e.g. ``(2, 2, 2)``; each at least 2.
    """

    name: str
    width: int
    levels: tuple[int, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.isidentifier() or len(self.name) > 32:
            raise ValueError(
                f"Block: name must be an identifier of at most 32 characters, got {self.name!r}"
            )
        _check_positive(f"Block {self.name!r}", "width", self.width)
        object.__setattr__(self, "levels", tuple(self.levels))
        if not self.levels:
            raise ValueError(f"Block {self.name!r}: levels must name at least one code dim, got ()")
        for level in self.levels:
            if not isinstance(level, int) or isinstance(level, bool) or not 2 <= level <= 4096:
                raise ValueError(
                    f"Block {self.name!r}: every level must be an integer in 2..4096, "
                    f"got {level!r} in {self.levels}"
                )

    @property
    def code_dim(self) -> int:
        """Number of code dims, ``len(levels)``."""
        return len(self.levels)

    @property
    def codebook_size(self) -> int:
        """Number of codes a stage, the product of the levels."""
        return math.prod(self.levels)

    @property
    def bits(self) -> float:
        """Information of one stage of this block, in bits a frame."""
        return math.log2(self.codebook_size)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Block:
        """From a dictionary with the keys name, width and levels."""
        check_keys(cls, data, ("name", "width", "levels"))
        return cls(data["name"], data["width"], tuple(data["levels"]))


@dataclass(frozen=True)
class BDRFSQConfig:
    """Block-diagonal residual finite scalar quantizer, or a baseline of equal bits.

    Args:
        blocks: the blocks in latent order; the first one takes the low digits of the token.
        num_stages: residual stages ``K``.
        bound: ``"tanh"`` (smooth) or ``"clamp"`` (hard) bounding of the code dims to [-1, 1].
        kind: ``"bd-rfsq"``; as baselines ``"rfsq"``, the same digits with dense projections, and
            ``"rvq"``, residual vector quantization. Baselines have no blocks of their own: a stage
            is active in all blocks or in none.
        codebooks: of one stage of ``"rvq"``, one after the other; their sizes multiply to the
            codebook of a stage. ``()`` takes two of about equal bits.

    Raises:
        ValueError: on repeated block names, an unknown bound or kind, a codebook above 2**63, or
            codebooks of other bits.
    """

    blocks: tuple[Block, ...] = (
        Block("emotion", 256, (2, 2, 2)),
        Block("acoustic", 768, (4,) * 6),
    )
    num_stages: int = 8
    bound: str = "tanh"
    kind: str = later("bd-rfsq")
    codebooks: tuple[int, ...] = later(())

    def __post_init__(self) -> None:
        object.__setattr__(self, "blocks", tuple(self.blocks))
        object.__setattr__(self, "codebooks", tuple(self.codebooks))
        if not self.blocks:
            raise ValueError("BDRFSQConfig: blocks must hold at least one Block, got ()")
        for block in self.blocks:
            if not isinstance(block, Block):
                raise ValueError(f"BDRFSQConfig: blocks must hold Block objects, got {block!r}")
        names = [block.name for block in self.blocks]
        if len(set(names)) != len(names):
            raise ValueError(f"BDRFSQConfig: block names must differ, got {names}")
        _check_positive("BDRFSQConfig", "num_stages", self.num_stages)
        if self.num_stages > 64:
            raise ValueError(f"BDRFSQConfig: num_stages must be at most 64, got {self.num_stages}")
        if self.bound not in ("tanh", "clamp"):
            raise ValueError(f"BDRFSQConfig: bound must be 'tanh' or 'clamp', got {self.bound!r}")
        if self.codebook_size > 2**63:
            raise ValueError(
                f"BDRFSQConfig: the composite codebook has {self.codebook_size} entries, more "
                "than a 64-bit token can name (2**63). Use fewer code dims or levels a stage and "
                "more stages."
            )
        if self.kind not in QUANTIZER_KINDS:
            raise ValueError(
                f"BDRFSQConfig: kind must be one of {list(QUANTIZER_KINDS)}, got {self.kind!r}"
            )
        if self.codebooks and (
            self.kind != "rvq"
            or min(self.codebooks) < 2
            or math.prod(self.codebooks) != self.codebook_size
        ):
            raise ValueError(
                "BDRFSQConfig: codebooks belong to kind 'rvq' and multiply to the codebook of a "
                f"stage ({self.codebook_size}), so that bits are equal; got {self.codebooks} with "
                f"kind {self.kind!r}"
            )

    @property
    def has_blocks(self) -> bool:
        """Whether blocks are coded apart, and may have stage counts of their own."""
        return self.kind == "bd-rfsq"

    @property
    def width(self) -> int:
        """Latent width ``D``, the sum of the block widths."""
        return sum(block.width for block in self.blocks)

    @property
    def code_dim(self) -> int:
        """Code dims of one stage over all blocks."""
        return sum(block.code_dim for block in self.blocks)

    @property
    def codebook_size(self) -> int:
        """Number of composite tokens a stage, the product over all blocks."""
        return math.prod(block.codebook_size for block in self.blocks)

    @property
    def token_bits(self) -> float:
        """Information of one composite token, in bits."""
        return sum(block.bits for block in self.blocks)

    @property
    def names(self) -> tuple[str, ...]:
        """Block names in latent order."""
        return tuple(block.name for block in self.blocks)

    def block_slices(self) -> dict[str, slice]:
        """Channel range of each block inside the latent."""
        out, start = {}, 0
        for block in self.blocks:
            out[block.name] = slice(start, start + block.width)
            start += block.width
        return out

    def token_bases(self) -> dict[str, int]:
        """Place value of each block's code inside the composite token (mixed radix)."""
        out, base = {}, 1
        for block in self.blocks:
            out[block.name] = base
            base *= block.codebook_size
        return out

    def resolve_stages(self, stages: StageSpec = None) -> dict[str, int]:
        """Stage count of every block.

        Args:
            stages: ``None`` for all stages, one integer for every block, or a mapping from block
                name to count; blocks that a mapping leaves out keep all their stages.

        Raises:
            ValueError: on an unknown block name or a count outside ``0..num_stages``.
            TypeError: on any other type.
        """
        if stages is None:
            return dict.fromkeys(self.names, self.num_stages)
        if isinstance(stages, int) and not isinstance(stages, bool):
            counts = dict.fromkeys(self.names, stages)
        elif isinstance(stages, Mapping):
            unknown = sorted(set(stages) - set(self.names))
            if unknown:
                raise ValueError(
                    f"stages: unknown blocks {unknown}; this quantizer has {list(self.names)}"
                )
            counts = {name: stages.get(name, self.num_stages) for name in self.names}
        else:
            raise TypeError(
                "stages must be None, an int or a mapping block -> int, "
                f"got {type(stages).__name__}"
            )
        for name, count in counts.items():
            if not isinstance(count, int) or not 0 <= count <= self.num_stages:
                raise ValueError(
                    f"stages: block {name!r} asks for {count!r}, wanted 0..{self.num_stages}"
                )
        if not self.has_blocks and len(set(counts.values())) > 1:
            raise ValueError(
                f"stages: a quantizer of kind {self.kind!r} has no blocks of its own; wanted one "
                f"count for all, got {counts}"
            )
        if not any(counts.values()):
            raise ValueError("stages: every block is cut to 0 stages, at least one stage is needed")
        return counts

    def bits(self, stages: StageSpec = None) -> dict[str, float]:
        """Bits a frame of each block at the given stage counts."""
        counts = self.resolve_stages(stages)
        return {block.name: counts[block.name] * block.bits for block in self.blocks}

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary of JSON types."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> BDRFSQConfig:
        """Inverse of :meth:`to_dict`; unknown and missing keys are errors."""
        check_keys(cls, data, ("blocks", "num_stages", "bound"))
        blocks = tuple(Block.from_dict(block) for block in data["blocks"])
        return cls(**{**data, "blocks": blocks})
