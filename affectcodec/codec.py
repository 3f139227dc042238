# SPDX-License-Identifier: Apache-2.0
"""``AffectCodec``: audio to tokens and back."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from affectcodec import checkpoint
from affectcodec.audio import MAX_SAMPLE, resample
from affectcodec.config import CodecConfig, StageSpec
from affectcodec.nn.bdrfsq import Stages
from affectcodec.nn.causal import StreamState, assign_state_keys
from affectcodec.nn.dac import SnakeDecoder, SnakeEncoder
from affectcodec.nn.decoder import DecoderOutput, StreamDecoder
from affectcodec.nn.encoder import StreamEncoder
from affectcodec.nn.quantizers import make_quantizer
from affectcodec.ops import fsq
from affectcodec.snake_config import SnakeNetworkConfig
from affectcodec.tokens import Tokens

CHUNK_FRAMES = 1024  # 20 s: bounds the memory of offline coding whatever the clip length


@dataclass(frozen=True)
class Latency:
    """Algorithmic latency in samples.

    Attributes:
        encoder: samples from the first sample of a frame to its token (one hop of buffering).
        decoder: samples from a token to the end of the audio it completes (one hop of overlap).
        sample_rate: in Hz.
    """

    encoder: int
    decoder: int
    sample_rate: int

    @property
    def samples(self) -> int:
        """Total in samples."""
        return self.encoder + self.decoder

    @property
    def milliseconds(self) -> float:
        """Total in milliseconds."""
        return 1000 * self.samples / self.sample_rate


class CodecOutput(NamedTuple):
    """Result of ``AffectCodec.forward``: ``wav [B, 1, N]``, ``tokens``, quantized ``latent
    [B, T, D]`` and the decoder's output with the prosody."""

    wav: Tensor
    tokens: Tokens
    latent: Tensor
    decoded: DecoderOutput


class AffectCodec(nn.Module):
    """Causal neural speech codec with reserved emotion bits.

    Example:
        >>> codec = AffectCodec.from_pretrained()
        >>> tokens = codec.encode(wav, sample_rate=16000, kbps=1.5)
        >>> wav = codec.decode(tokens)
    """

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        if not isinstance(config, CodecConfig):
            raise TypeError(f"config must be a CodecConfig, got {type(config).__name__}")
        self.config = config
        snake = isinstance(config.network, SnakeNetworkConfig)
        self.encoder = SnakeEncoder(config) if snake else StreamEncoder(config)
        self.quantizer = make_quantizer(config.quantizer)
        self.decoder = SnakeDecoder(config) if snake else StreamDecoder(config)
        assign_state_keys(self)

    # -- identity -------------------------------------------------------------------------------

    @property
    def latency(self) -> Latency:
        """Algorithmic latency of streaming use."""
        hop = self.config.hop_length
        return Latency(hop, hop, self.config.sample_rate)

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits over configuration and quantizer weights.

        Tokens of two codecs mean the same only if both agree; files carry it and decoding checks
        it. Computed anew at every call (0.3 ms on a CPU): fused optimizers and writes through
        ``.data`` change weights without raising their version counters.
        """
        digest = hashlib.blake2b(self.config.hash.encode(), digest_size=8)
        for _, tensor in sorted(self.quantizer.state_dict().items()):
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.parameters()).device

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path | None = None) -> AffectCodec:
        """Load weights, ready for inference.

        Args:
            name_or_path: name of weights shipped with the package (default ``"stream"``), or a
                folder written by :meth:`save_pretrained`.

        Raises:
            CheckpointError: if nothing is there, or the files do not fit together.
        """
        config, tensors, recorded = checkpoint.load(name_or_path)
        # Parameters made in inference mode have no version, and whoever prepares something of them
        # would have to do it anew at every call.
        with torch.inference_mode(False):
            codec = cls(config)
            checkpoint.load_into(codec, tensors, name_or_path)
        if codec.fingerprint != recorded:
            raise checkpoint.CheckpointError(
                f"{checkpoint.resolve(name_or_path)}: {checkpoint.CONFIG_NAME} records the "
                f"fingerprint {recorded}, but with {checkpoint.WEIGHTS_NAME} the codec is "
                f"{codec.fingerprint}; the two files come from different codecs, copy both from one"
            )
        return codec.eval().requires_grad_(False)

    def save_pretrained(
        self, folder: str | Path, *, metadata: dict[str, Any] | None = None
    ) -> None:
        """Write ``config.json`` and ``model.safetensors`` into ``folder``."""
        checkpoint.save(folder, self.config, self.state_dict(), self.fingerprint, metadata)

    # -- audio to tokens ------------------------------------------------------------------------

    def _as_batch(self, wav: Any, sample_rate: int) -> Tensor:
        x = wav if isinstance(wav, Tensor) else torch.as_tensor(wav)
        if not x.dtype.is_floating_point:
            raise ValueError(
                f"wav: wanted floating point samples in [-1, 1], got {x.dtype}; "
                "divide 16-bit samples by 32768"
            )
        if x.ndim == 1:
            x = x[None, None]
        if x.ndim != 3 or x.shape[1] != 1:
            raise ValueError(
                f"wav: wanted [N] or [B, 1, N], got {list(x.shape)}; "
                "mix channels down first, for example with wav.mean(0)"
            )
        if not isinstance(sample_rate, int) or sample_rate <= 0:
            raise ValueError(f"sample_rate: wanted a positive integer in Hz, got {sample_rate!r}")
        x = x.to(self.device, torch.float32)[:, 0]
        largest = float(x.abs().amax()) if x.numel() else 0.0
        if not math.isfinite(largest):
            raise ValueError("wav: holds NaN or infinite samples; clean it before encoding")
        if largest > MAX_SAMPLE:
            raise ValueError(
                f"wav: its largest sample is {largest:.3g}, wanted about [-1, 1]; scale the samples"
            )
        return x

    def _resolve_rate(self, stages: StageSpec, kbps: float | None) -> dict[str, int]:
        if kbps is not None:
            if stages is not None:
                raise ValueError(f"give stages or kbps, not both (stages={stages}, kbps={kbps})")
            stages = self.config.stages_for_kbps(kbps)
        return self.config.quantizer.resolve_stages(stages)

    # Not inference_mode: its tensors cannot be changed in place or saved for a backward, and tokens
    # are what language models embed and train on.
    @torch.no_grad()
    def encode(
        self,
        wav: Any,
        sample_rate: int = 16000,
        *,
        lengths: Tensor | None = None,
        stages: StageSpec = None,
        kbps: float | None = None,
    ) -> Tokens:
        """Tokens of one clip or of a padded batch.

        Args:
            wav: float ``[N]`` or ``[B, 1, N]``, samples in [-1, 1] (numpy or torch).
            sample_rate: in Hz; anything but the codec's own rate is resampled.
            lengths: int ``[B]``, valid samples of each clip at ``sample_rate``; the rest is
                padding. A clip gives the same tokens alone and padded in a batch, but for digits
                within float rounding of a threshold (about one in 10,000).
            stages: None, an int, or a mapping block -> int.
            kbps: bit rate instead of ``stages``; the largest stage count that does not exceed it.

        Raises:
            ValueError: on a wrong shape, dtype, rate or length, on NaN, infinite or huge samples,
                and where the latent is NaN, as weights that are not finite make it.
        """
        return self.encode_with(
            self._encode_frames, wav, sample_rate, lengths=lengths, stages=stages, kbps=kbps
        )

    @torch.no_grad()
    def encode_with(
        self,
        encode_frames: Callable[[Tensor], Tensor],
        wav: Any,
        sample_rate: int = 16000,
        *,
        lengths: Tensor | None = None,
        stages: StageSpec = None,
        kbps: float | None = None,
    ) -> Tokens:
        """:meth:`encode` with another way from frames to tokens, such as the native runtime.

        Args:
            encode_frames: codes ``[B, K, T]`` of ``[B, T * hop]``; -1 marks a latent of NaN.
        """
        counts = self._resolve_rate(stages, kbps)
        x = self._as_batch(wav, sample_rate)
        batch, total = x.shape
        if lengths is None:
            samples = torch.full((batch,), total, dtype=torch.int64)
        else:
            samples = torch.as_tensor(lengths, dtype=torch.int64).cpu()
            if tuple(samples.shape) != (batch,):
                raise ValueError(f"lengths: wanted [{batch}], got {tuple(samples.shape)}")
            if bool((samples < 0).any()) or bool((samples > total).any()):
                raise ValueError(f"lengths: wanted 0..{total}, got {samples.tolist()}")
        if sample_rate != self.config.sample_rate:
            # Each clip is cut before it is resampled: the filter must not see the padding.
            clips = [
                resample(x[i, : int(n)], sample_rate, self.config.sample_rate)
                for i, n in enumerate(samples)
            ]
            samples = torch.tensor([clip.shape[0] for clip in clips], dtype=torch.int64)
            x = nn.utils.rnn.pad_sequence(clips, batch_first=True)
        frames = torch.tensor([self.config.num_frames(int(n)) for n in samples], dtype=torch.int64)
        longest = int(frames.max()) if batch else 0
        hop = self.config.hop_length
        x = x[:, : longest * hop]
        valid = torch.arange(x.shape[1])[None] < samples[:, None]
        padded = x.new_zeros(batch, longest * hop)
        padded[:, : x.shape[1]] = x * valid.to(x.device)
        codes = encode_frames(padded)[:, : max(counts.values())]
        if bool((codes < 0).any()):
            raise ValueError(
                "wav: the encoder's latent is NaN; check the weights, are all of them finite?"
            )
        tokens = Tokens(
            codes=codes,
            lengths=frames,
            num_samples=samples,
            stages={name: max(counts.values()) for name in counts},
            quantizer=self.config.quantizer,
            config_hash=self.fingerprint,
            sample_rate=self.config.sample_rate,
            hop_length=hop,
        ).truncate(counts)
        # Padding frames are not part of any clip: one value, whatever the batch.
        keep = torch.arange(longest)[None, None] < frames[:, None, None]
        tokens.codes.masked_fill_(~keep.to(tokens.codes.device), 0)
        return tokens

    def _encode_frames(self, wav: Tensor) -> Tensor:
        """``[B, T * hop] -> int [B, K, T]``, in chunks of bounded memory."""
        span = CHUNK_FRAMES * self.config.hop_length
        state: StreamState | None = {} if wav.shape[1] > span else None
        parts = [
            self.quantizer.encode(self.encoder(part, state), channels_last=True)
            for part in wav.split(span, 1)
            if part.shape[1]
        ]
        if not parts:
            quantizer = self.config.quantizer
            shape = (wav.shape[0], quantizer.num_stages, 0)
            return wav.new_zeros(shape, dtype=fsq.token_dtype(quantizer.codebook_size))
        return torch.cat(parts, 2)

    # -- tokens to audio ------------------------------------------------------------------------

    def check_tokens(self, tokens: Tokens) -> None:
        """Refuse tokens of another codec.

        Raises:
            TypeError: if it is no ``Tokens``.
            ValueError: if the fingerprints differ.
        """
        if not isinstance(tokens, Tokens):
            raise TypeError(
                f"tokens: wanted Tokens as encode() returns them, got {type(tokens).__name__}"
            )
        if tokens.config_hash != self.fingerprint:
            raise ValueError(
                f"tokens: made by codec {tokens.config_hash}, this codec is {self.fingerprint}; "
                "load the weights that made them"
            )

    @torch.no_grad()
    def decode(self, tokens: Tokens) -> Tensor:
        """Audio of a batch of tokens.

        Returns:
            float32 ``[B, 1, N]`` at ``config.sample_rate``; ``N`` is the longest clip, shorter
            ones end in zeros.

        Raises:
            ValueError: if the tokens come from another codec or lie out of range.
        """
        return self.decode_with(self._decode_frames, tokens)

    @torch.no_grad()
    def decode_with(
        self, decode_frames: Callable[[Tensor, Tensor], Tensor], tokens: Tokens
    ) -> Tensor:
        """:meth:`decode` with another way from tokens to frames, such as the native runtime.

        Args:
            decode_frames: audio ``[B, T * hop]``, one hop late, of codes ``[B, K, T]`` and stage
                counts ``[B, G, T]``.
        """
        self.check_tokens(tokens)
        hop, longest = self.config.hop_length, int(tokens.num_samples.max()) if len(tokens) else 0
        held = max(0, (tokens.num_frames - 1) * hop)
        if held < longest:
            raise ValueError(
                f"tokens: num_samples asks for {longest} samples but {tokens.num_frames} frames "
                f"hold {held}"
            )
        stages = tokens.frame_stages
        if stages is None:
            counts = torch.tensor([tokens.stages[name] for name in self.config.quantizer.names])
            stages = counts[None, :, None].expand(len(tokens), -1, tokens.num_frames)
        wav = decode_frames(tokens.codes.to(self.device), stages)
        wav = wav[:, hop : hop + longest]
        valid = torch.arange(longest)[None] < tokens.num_samples[:, None].cpu()
        return (wav * valid.to(wav.device))[:, None]

    def _decode_frames(self, codes: Tensor, stages: Tensor) -> Tensor:
        """``[B, K, T]`` to ``[B, T * hop]``, in chunks of bounded memory."""
        state: StreamState = {}
        parts = []
        for start in range(0, codes.shape[2], CHUNK_FRAMES):
            span = slice(start, start + CHUNK_FRAMES)
            latent = self.quantizer.decode(
                codes[..., span], stages[..., span].to(codes.device), channels_last=True
            )
            parts.append(self.decoder(latent, state).wav)
        if not parts:
            return codes.new_zeros(codes.shape[0], 0, dtype=torch.float32)
        return torch.cat(parts, 1)

    def forward(self, wav: Tensor, stages: Stages = None, **decoder_args: Tensor) -> CodecOutput:
        """Differentiable round trip of ``wav [B, 1, N]`` at the codec's own rate.

        ``stages`` may be a tensor ``[B, G]`` of counts for each sample and block.

        Raises:
            ValueError: on a wave of another shape, or without a sample.
        """
        if wav.ndim != 3 or wav.shape[1] != 1 or not wav.shape[2]:
            raise ValueError(
                f"wav: wanted [B, 1, N] with N of at least 1, got {tuple(wav.shape)}; "
                "encode() takes other shapes, and empty clips"
            )
        batch, _, total = wav.shape
        frames, hop = self.config.num_frames(total), self.config.hop_length
        padded = nn.functional.pad(wav[:, 0], (0, frames * hop - total))
        out = self.quantizer(self.encoder(padded), stages, channels_last=True)
        decoded = self.decoder(out.latent, **decoder_args)
        tokens = Tokens(
            codes=out.tokens,
            lengths=torch.full((batch,), frames),
            num_samples=torch.full((batch,), total),
            stages=self.config.quantizer.resolve_stages(None),
            quantizer=self.config.quantizer,
            config_hash=self.fingerprint,
            sample_rate=self.config.sample_rate,
            hop_length=hop,
        )
        return CodecOutput(decoded.wav[:, None, hop : hop + total], tokens, out.latent, decoded)
