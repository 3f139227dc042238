# SPDX-License-Identifier: Apache-2.0
"""The causal codec as native CPU kernels: one result whatever the chunks, the batch or the threads.

from affectcodec.runtime import NativeCodec

native = NativeCodec(codec)
tokens = native.encode(wav)       # bitwise what StreamingEncoder(codec, engine="native") gives
wav = native.decode(tokens)
"""

from __future__ import annotations

from affectcodec.runtime.native import NativeCodec, RuntimeUnavailable, why_unavailable

__all__ = ["NativeCodec", "RuntimeUnavailable", "why_unavailable"]
