# SPDX-License-Identifier: Apache-2.0
"""Bundles in the manner of ``torchaudio.pipelines``: weights with all that belongs to them.

Example:
    >>> from affectcodec.integrations.bundles import AFFECTCODEC_STREAM as bundle
    >>> codec, rate = bundle.get_model(), bundle.sample_rate
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from affectcodec import checkpoint
from affectcodec.codec import AffectCodec
from affectcodec.config import CodecConfig
from affectcodec.tokens import Vocabulary


@dataclass(frozen=True)
class CodecBundle:
    """Weights by name.

    Args:
        name: of weights that ship with the package, or a folder.
    """

    name: str

    @cached_property
    def config(self) -> CodecConfig:
        """Configuration of the codec.

        Raises:
            CheckpointError: if the weights are not there.
        """
        return checkpoint.load(self.name)[0]

    @property
    def sample_rate(self) -> int:
        """In Hz."""
        return self.config.sample_rate

    @property
    def frame_rate(self) -> float:
        """Frames a second."""
        return self.config.frame_rate

    def get_model(self) -> AffectCodec:
        """The codec, ready for inference."""
        return AffectCodec.from_pretrained(self.name)

    def get_vocabulary(self, layout: str = "split", **options: Any) -> Vocabulary:
        """Flat ids of its tokens; see ``affectcodec.tokens.Vocabulary.of``."""
        return Vocabulary.of(self.get_model(), layout, **options)


AFFECTCODEC_STREAM = CodecBundle("stream")
