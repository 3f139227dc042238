# SPDX-License-Identifier: Apache-2.0
"""AffectCodec with its first block one stage ahead of the others, at the bits of equal stages.

Blocks can be cut apart. At 1.5 kbit/s of the default quantizer, two stages of both blocks are 30
bits a frame; so are three emotion stages and, frame by frame in turn, two or one acoustic ones.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from affectcodec.entropy.rate import with_frame_stages
from affectcodec.evaluation.alignment import SAMPLE_RATE
from affectcodec.evaluation.baselines import Coded

ENGINE = "lead"


def lead_stages(bits: list[float], num_stages: int, stages: int, frames: int) -> npt.NDArray[Any]:
    """Stage counts uint8 ``[G, T]``: the first block has ``stages + 1``, the others what is left
    of the bits of ``stages`` everywhere, evenly over time.

    Args:
        bits: of one stage of each block.
        stages: of all blocks, whose bits are spent.

    Raises:
        ValueError: the other blocks have fewer bits than one more stage of the first takes.
    """
    ahead = min(num_stages, stages + 1)
    share = stages - (ahead - stages) * bits[0] / sum(bits[1:])
    if share < 0:
        raise ValueError(
            f"codecs: @{ENGINE}: one more stage of the first block takes {bits[0]:g} bits, the "
            f"others have {stages * sum(bits[1:]):g} at this rate; ask for a higher one"
        )
    # Sums of whole stages up to each frame follow the share, so the bits do at every time.
    upto = np.floor(np.arange(frames + 1) * share + 1e-9)
    counts = np.repeat(np.diff(upto)[None], len(bits), 0)
    counts[0] = ahead
    return counts.astype(np.uint8)


class LeadCodec:
    """An `AffectCodec` at a rate, the first block one stage ahead.

    Args:
        codec: the codec.
        kbps: rate, that of a number of stages.
        label: what stands before the colon of its name.
        digest: names the codec's weights.

    Raises:
        ValueError: a quantizer without blocks of its own, or a rate between stages.
    """

    def __init__(self, codec: Any, kbps: float, *, label: str, digest: str) -> None:
        quantizer = codec.config.quantizer
        if not quantizer.has_blocks or len(quantizer.blocks) < 2:
            raise ValueError(
                f"codecs: @{ENGINE} cuts blocks apart, {label} is of kind {quantizer.kind!r} with "
                f"{len(quantizer.blocks)} block(s); give it a plain rate"
            )
        stages = kbps / codec.config.kbps(1)
        if abs(stages - round(stages)) > 1e-6 or not 1 <= round(stages) <= quantizer.num_stages:
            raise ValueError(
                f"codecs: {label}:{kbps:g}@{ENGINE}: wanted the rate of a number of stages, a "
                f"multiple of {codec.config.kbps(1):g} kbit/s"
            )
        self.codec, self.kbps, self.label, self._digest = codec, kbps, label, digest
        self._stages = round(stages)

    @property
    def name(self) -> str:
        return f"{self.label}:{self.kbps:g}@{ENGINE}"

    @property
    def fingerprint(self) -> str:
        return f"{self.label}-{self.kbps:g}-{self._digest}@{ENGINE}"

    def roundtrip(self, wav: np.ndarray) -> Coded:
        quantizer = self.codec.config.quantizer
        bits = [block.bits for block in quantizer.blocks]
        with torch.inference_mode():
            tokens = self.codec.encode(
                torch.from_numpy(np.ascontiguousarray(wav)), sample_rate=SAMPLE_RATE
            )
            frames = int(tokens.lengths[0])
            counts = lead_stages(bits, quantizer.num_stages, self._stages, frames)
            out = self.codec.decode(with_frame_stages(tokens, counts))
        spent = float((counts * np.array(bits)[:, None]).sum())
        return Coded(out[0, 0].float().cpu().numpy(), spent)
