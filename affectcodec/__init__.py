# SPDX-License-Identifier: Apache-2.0
"""AffectCodec: a causal neural speech codec that reserves bits for emotion.

from affectcodec import AffectCodec

codec = AffectCodec.from_pretrained()
tokens = codec.encode(wav, sample_rate=16000, kbps=1.5)
wav = codec.decode(tokens)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from affectcodec.codec import AffectCodec
    from affectcodec.tokens import Tokens

__version__ = "0.1.0"
__all__ = ["AffectCodec", "Tokens", "__version__"]

# Imported on first use: `affectcodec --help` and `python -m affectcodec.info` must not wait for
# torch, and must answer where torch is broken.
_LAZY = {"AffectCodec": "affectcodec.codec", "Tokens": "affectcodec.tokens"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        import importlib

        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'affectcodec' has no attribute {name!r}")
