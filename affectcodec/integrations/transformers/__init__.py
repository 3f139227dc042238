# SPDX-License-Identifier: Apache-2.0
"""AffectCodec as an audio tokenizer of ``transformers``; needs ``affectcodec[transformers]``.

Importing this module registers the classes with ``AutoConfig``, ``AutoModel`` and
``AutoFeatureExtractor``.

Example:
    >>> from affectcodec.integrations.transformers import AffectCodecModel
    >>> AffectCodecModel.from_affectcodec().save_pretrained("my-codec")
    >>> model = transformers.AutoModel.from_pretrained("my-codec")
"""

from transformers import AutoConfig, AutoFeatureExtractor, AutoModel

from affectcodec.integrations.transformers.configuration import AffectCodecConfig
from affectcodec.integrations.transformers.feature_extraction import AffectCodecFeatureExtractor
from affectcodec.integrations.transformers.modeling import (
    AffectCodecDecoderOutput,
    AffectCodecEncoderOutput,
    AffectCodecModel,
    AffectCodecOutput,
)

AutoConfig.register(AffectCodecConfig.model_type, AffectCodecConfig, exist_ok=True)
AutoModel.register(AffectCodecConfig, AffectCodecModel, exist_ok=True)
AutoFeatureExtractor.register(AffectCodecConfig, AffectCodecFeatureExtractor, exist_ok=True)

__all__ = [
    "AffectCodecConfig",
    "AffectCodecDecoderOutput",
    "AffectCodecEncoderOutput",
    "AffectCodecFeatureExtractor",
    "AffectCodecModel",
    "AffectCodecOutput",
]
