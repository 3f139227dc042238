# SPDX-License-Identifier: Apache-2.0
"""Configuration of the codec as ``transformers`` keeps it."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedConfig

from affectcodec.config import CodecConfig


class AffectCodecConfig(PreTrainedConfig):
    """A ``CodecConfig`` with the attributes that audio codecs have in ``transformers``.

    Args:
        codec: what ``CodecConfig.to_dict`` gives; None for the preset ``stream``.
        fingerprint: of the codec that was saved, None for weights that are not trained.

    Raises:
        ValueError: if ``codec`` is no such dictionary.
    """

    model_type = "affectcodec"

    codec: dict[str, Any] | None = None
    fingerprint: str | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        config = CodecConfig() if self.codec is None else CodecConfig.from_dict(self.codec)
        self.codec = config.to_dict()
        super().__post_init__(**kwargs)

    @property
    def codec_config(self) -> CodecConfig:
        """The codec's own configuration."""
        return CodecConfig.from_dict(self.codec or {})

    @property
    def sampling_rate(self) -> int:
        """In Hz."""
        return self.codec_config.sample_rate

    @property
    def hop_length(self) -> int:
        """Samples a frame."""
        return self.codec_config.hop_length

    @property
    def frame_rate(self) -> float:
        """Frames a second."""
        return self.codec_config.frame_rate

    @property
    def num_quantizers(self) -> int:
        """Residual stages."""
        return self.codec_config.quantizer.num_stages

    @property
    def codebook_size(self) -> int:
        """Composite codes a stage."""
        return self.codec_config.quantizer.codebook_size

    @property
    def hidden_size(self) -> int:
        """Width of the latent."""
        return self.codec_config.quantizer.width
