# SPDX-License-Identifier: Apache-2.0
"""Whole clips through engines of streams, by the methods that ``AffectCodec`` has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from affectcodec.codec import CHUNK_FRAMES, AffectCodec
from affectcodec.config import StageSpec
from affectcodec.streaming.engine import DecoderEngine, EncoderEngine
from affectcodec.tokens import Tokens


class EngineCodec:
    """A codec whose frames are computed by a pair of engines; clips of a batch share their slots.

    Args:
        codec: the codec that the engines were made of.
        encoder, decoder: engines of the same number of slots; what their slots held is lost.
    """

    def __init__(self, codec: AffectCodec, encoder: EncoderEngine, decoder: DecoderEngine) -> None:
        if encoder.slots != decoder.slots:
            raise ValueError(
                f"decoder: wanted {encoder.slots} slots as the encoder has, got {decoder.slots}"
            )
        self.codec = codec
        self.config = codec.config
        self.encoder = encoder
        self.decoder = decoder

    def encode(
        self,
        wav: Any,
        sample_rate: int = 16000,
        *,
        lengths: Tensor | None = None,
        stages: StageSpec = None,
        kbps: float | None = None,
    ) -> Tokens:
        """As ``AffectCodec.encode``."""
        return self.codec.encode_with(
            self._encode_frames, wav, sample_rate, lengths=lengths, stages=stages, kbps=kbps
        )

    def decode(self, tokens: Tokens) -> Tensor:
        """As ``AffectCodec.decode``."""
        return self.codec.decode_with(self._decode_frames, tokens)

    def _encode_frames(self, wav: Tensor) -> Tensor:
        batch, hop = len(wav), self.config.hop_length
        quantizer = self.config.quantizer
        frames = wav.shape[1] // hop
        pcm = wav.cpu().reshape(batch, frames, hop).numpy()
        dtype = np.int32 if quantizer.codebook_size <= 2**31 else np.int64
        codes = np.zeros((batch, frames, quantizer.num_stages), dtype)
        for clips, span in self._pieces(batch, frames):
            part = pcm[clips, span]
            if span.start == 0:
                for slot in range(len(part)):
                    self.encoder.reset(slot)
            counts = [part.shape[1]] * len(part)
            found = self.encoder.encode(range(len(part)), counts, part.reshape(-1, hop))
            codes[clips, span] = found.reshape(*part.shape[:2], -1)
        return torch.from_numpy(codes).transpose(1, 2).contiguous()

    def _decode_frames(self, codes: Tensor, stages: Tensor) -> Tensor:
        batch, _, frames = codes.shape
        hop = self.config.hop_length
        rows, counts = (x.cpu().transpose(1, 2).contiguous().numpy() for x in (codes, stages))
        audio = np.zeros((batch, frames, hop), np.float32)
        for clips, span in self._pieces(batch, frames):
            part, kept = rows[clips, span], counts[clips, span]
            if span.start == 0:
                for slot in range(len(part)):
                    self.decoder.reset(slot)
            latent = self.decoder.dequantize(
                part.reshape(-1, part.shape[2]), kept.reshape(-1, kept.shape[2])
            )
            size = [part.shape[1]] * len(part)
            found = self.decoder.synthesize(range(len(part)), size, latent)
            audio[clips, span] = found.reshape(*part.shape[:2], hop)
        return torch.from_numpy(audio).reshape(batch, frames * hop)

    def _pieces(self, batch: int, frames: int) -> Iterator[tuple[slice, slice]]:
        """Clips and frames of one call each, so that long clips and large batches stay small."""
        slots = self.encoder.slots
        for clip in range(0, batch, slots):
            for frame in range(0, frames, CHUNK_FRAMES):
                yield slice(clip, clip + slots), slice(frame, min(frames, frame + CHUNK_FRAMES))
