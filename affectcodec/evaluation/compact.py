# SPDX-License-Identifier: Apache-2.0
"""AffectCodec with entropy-coded tokens, at the bit rate that its payload really has."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch

from affectcodec.bitstream import coded_payload_bits, write_tokens
from affectcodec.entropy import PriorCoder, RateControl, to_rate
from affectcodec.evaluation.alignment import SAMPLE_RATE
from affectcodec.evaluation.baselines import Coded

ENGINE = "compact"


class CompactCodec:
    """An `AffectCodec` whose tokens are entropy coded and whose stages follow a rate.

    Bits are those of the payloads' bytes as a file has them, without the container.

    Args:
        codec: the codec.
        kbps: rate of each clip, at most.
        coder: entropy coder.
        label: what stands before the colon of its name.
        digest: names the codec's weights.
    """

    def __init__(
        self,
        codec: Any,
        kbps: float,
        coder: PriorCoder,
        *,
        label: str,
        digest: str,
        control: RateControl | None = None,
    ) -> None:
        self.codec, self.kbps, self.coder, self.label = codec, kbps, coder, label
        self.control, self._digest = control or RateControl(), digest

    @property
    def name(self) -> str:
        return f"{self.label}:{self.kbps:g}@{ENGINE}"

    @property
    def fingerprint(self) -> str:
        return f"{self.label}-{self.kbps:g}-{self._digest}@{ENGINE}-{self.coder.id}-{self.control}"

    def roundtrip(self, wav: np.ndarray) -> Coded:
        with torch.inference_mode():
            tokens = self.codec.encode(
                torch.from_numpy(np.ascontiguousarray(wav)), sample_rate=SAMPLE_RATE
            )
            tokens = to_rate(tokens, wav, self.kbps, self.coder, self.control)
            out = self.codec.decode(tokens)
        file = io.BytesIO()
        write_tokens(file, tokens, coder=self.coder)
        return Coded(out[0, 0].float().cpu().numpy(), float(coded_payload_bits(file.getvalue())))
