# SPDX-License-Identifier: Apache-2.0
"""The codec as a model of ``transformers``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_utils import PreTrainedAudioTokenizerBase
from transformers.utils.generic import ModelOutput

from affectcodec.codec import AffectCodec
from affectcodec.integrations.transformers.configuration import AffectCodecConfig
from affectcodec.tokens import Tokens

_ALIGNMENT = 64  # bytes, of what torch allocates on a CPU


@dataclass
class AffectCodecEncoderOutput(ModelOutput):
    """Result of ``encode``.

    Attributes:
        audio_codes: int64 ``[B, num_quantizers, T]``, composite codes.
        audio_codes_mask: bool ``[B, T]``, False at padding.
    """

    audio_codes: Tensor | None = None
    audio_codes_mask: Tensor | None = None


@dataclass
class AffectCodecDecoderOutput(ModelOutput):
    """Result of ``decode``: ``audio_values [B, 1, N]``."""

    audio_values: Tensor | None = None


@dataclass
class AffectCodecOutput(ModelOutput):
    """Result of ``forward``: ``audio_codes`` and ``audio_values`` as above."""

    audio_codes: Tensor | None = None
    audio_values: Tensor | None = None


class AffectCodecModel(PreTrainedAudioTokenizerBase):
    """AffectCodec with ``encode`` and ``decode`` in the shape of the codecs of ``transformers``.

    ``model.codec`` is the ``AffectCodec`` itself.
    """

    config_class = AffectCodecConfig
    base_model_prefix = "affectcodec"
    main_input_name = "input_values"
    input_modalities = "audio"
    # Tokens are made in float32: rounded weights would be another codec with other tokens.
    _keep_in_fp32_modules_strict = ["codec"]  # noqa: RUF012

    def __init__(self, config: AffectCodecConfig) -> None:
        super().__init__(config)
        self.codec = AffectCodec(config.codec_config)
        self.post_init()

    @classmethod
    def from_affectcodec(cls, source: AffectCodec | str | Path | None = None) -> AffectCodecModel:
        """From a codec, its folder, or the name of weights that ship with the package.

        Raises:
            CheckpointError: if no such weights are there.
        """
        codec = source if isinstance(source, AffectCodec) else AffectCodec.from_pretrained(source)
        model = cls(AffectCodecConfig(codec=codec.config.to_dict(), fingerprint=codec.fingerprint))
        model.codec.load_state_dict(codec.state_dict())
        return model.eval()

    def _initialize_weights(self, module: nn.Module, is_custom_code: bool = False) -> None:
        # Code outside the library counts as done when a module's own parameters are; the codec has
        # none itself, and the tables below it would stay empty.
        super()._initialize_weights(module, False)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # The library builds models without memory and then asks for what no file holds. These are
        # the tables of the transforms: the codec's own constructor makes them.
        if not isinstance(module, AffectCodec):
            return
        with torch.device("cpu"):
            made = AffectCodec(module.config)
        held = dict(module.named_buffers())
        for name, value in made.named_buffers():
            held[name].copy_(value)
        loaded = dict(module.named_parameters())
        for name, parameter in made.named_parameters():
            if not getattr(loaded[name], "_is_hf_initialized", False):
                loaded[name].copy_(parameter)
        for parameter in loaded.values():
            # The library leaves weights where they lie in the file. Products of some shapes are
            # summed in another order where an address is not that of an allocation.
            if parameter.device.type == "cpu" and parameter.data_ptr() % _ALIGNMENT:
                parameter.data = parameter.data.clone()
        module.quantizer.refold()

    def save_pretrained(  # type: ignore[override]
        self, save_directory: str | os.PathLike, **kwargs: Any
    ) -> None:
        """As the library's own; the fingerprint of the present weights goes with them."""
        self.config.fingerprint = self.codec.fingerprint
        super().save_pretrained(save_directory, **kwargs)

    # -- audio to codes -------------------------------------------------------------------------

    def encode(
        self,
        input_values: Tensor,
        padding_mask: Tensor | None = None,
        num_quantizers: int | None = None,
        bandwidth: float | None = None,
        return_dict: bool | None = None,
    ) -> AffectCodecEncoderOutput | tuple[Tensor, Tensor]:
        """Codes of waves.

        Args:
            input_values: float ``[B, 1, N]`` at ``config.sampling_rate``.
            padding_mask: ``[B, N]`` or ``[B, 1, N]``, 1 at samples and 0 at padding at the end.
            num_quantizers: stages to keep; None for all.
            bandwidth: kbit/s instead of ``num_quantizers``.

        Raises:
            ValueError: on a wrong shape, a mask with padding before samples, or a rate the codec
                does not have.
        """
        tokens = self.encode_tokens(input_values, padding_mask, num_quantizers, bandwidth)
        frames = torch.arange(tokens.num_frames, device=tokens.codes.device)
        mask = frames < tokens.lengths.to(frames.device)[:, None]
        found = AffectCodecEncoderOutput(tokens.codes.long(), mask)
        return found if self._wants_dict(return_dict) else found.to_tuple()

    def encode_tokens(
        self,
        input_values: Tensor,
        padding_mask: Tensor | None = None,
        num_quantizers: int | None = None,
        bandwidth: float | None = None,
    ) -> Tokens:
        """As :meth:`encode`, as ``affectcodec.Tokens``."""
        lengths = None
        if padding_mask is not None:
            lengths = _lengths(padding_mask, input_values)
        return self.codec.encode(
            input_values,
            self.config.sampling_rate,
            lengths=lengths,
            stages=num_quantizers,
            kbps=bandwidth,
        )

    # -- codes to audio -------------------------------------------------------------------------

    def decode(
        self,
        audio_codes: Tensor,
        padding_mask: Tensor | None = None,
        return_dict: bool | None = None,
    ) -> AffectCodecDecoderOutput | tuple[Tensor]:
        """Audio of codes.

        Args:
            audio_codes: integers ``[B, num_quantizers, T]``, the first stages of the codec.
            padding_mask: that of ``encode``; the audio is then as long as its input and silent
                where that was padding.

        Raises:
            ValueError: on a wrong shape or codes out of range.
        """
        tokens = self._tokens(audio_codes, padding_mask)
        audio = self.codec.decode(tokens)
        if padding_mask is not None:
            missing = padding_mask.shape[-1] - audio.shape[-1]
            audio = nn.functional.pad(audio, (0, missing))
        found = AffectCodecDecoderOutput(audio)
        return found if self._wants_dict(return_dict) else found.to_tuple()

    def _tokens(self, codes: Tensor, padding_mask: Tensor | None) -> Tokens:
        quantizer = self.codec.config.quantizer
        if codes.ndim != 3 or not 1 <= codes.shape[1] <= quantizer.num_stages:
            raise ValueError(
                f"audio_codes: wanted [B, 1 to {quantizer.num_stages}, T], got {tuple(codes.shape)}"
            )
        config, batch, frames = self.codec.config, codes.shape[0], codes.shape[2]
        if padding_mask is None:
            samples = torch.full((batch,), max(0, frames - 1) * config.hop_length)
        else:
            samples = _lengths(padding_mask, None).cpu()
        lengths = torch.tensor([config.num_frames(int(n)) for n in samples], dtype=torch.int64)
        if batch and int(lengths.max()) > frames:
            raise ValueError(
                f"padding_mask: holds {int(samples.max())} samples, but {frames} frames of codes "
                f"hold {max(0, frames - 1) * config.hop_length}"
            )
        # The mask alone says what is padding; codes there are never decoded into audio.
        return Tokens(
            codes=codes.int() if quantizer.codebook_size <= 2**31 else codes.long(),
            lengths=lengths if padding_mask is not None else torch.full((batch,), frames),
            num_samples=samples,
            stages=dict.fromkeys(quantizer.names, codes.shape[1]),
            quantizer=quantizer,
            config_hash=self.codec.fingerprint,
            sample_rate=config.sample_rate,
            hop_length=config.hop_length,
        )

    def forward(
        self,
        input_values: Tensor,
        padding_mask: Tensor | None = None,
        num_quantizers: int | None = None,
        bandwidth: float | None = None,
        return_dict: bool | None = None,
    ) -> AffectCodecOutput | tuple[Tensor, Tensor]:
        """``decode(encode(input_values))``; arguments as there. For training use ``codec``."""
        tokens = self.encode_tokens(input_values, padding_mask, num_quantizers, bandwidth)
        audio = self.codec.decode(tokens)
        audio = nn.functional.pad(audio, (0, input_values.shape[-1] - audio.shape[-1]))
        found = AffectCodecOutput(tokens.codes.long(), audio)
        return found if self._wants_dict(return_dict) else found.to_tuple()

    def _wants_dict(self, return_dict: bool | None) -> bool:
        return bool(self.config.return_dict if return_dict is None else return_dict)


def _lengths(mask: Tensor, wave: Tensor | None) -> Tensor:
    """Samples of each clip, int64 ``[B]``."""
    flat = mask[:, 0] if mask.ndim == 3 and mask.shape[1] == 1 else mask
    if flat.ndim != 2 or (wave is not None and flat.shape != wave.shape[::2]):
        wanted = "[B, N]" if wave is None else f"{list(wave.shape[::2])}"
        raise ValueError(f"padding_mask: wanted {wanted}, got {tuple(mask.shape)}")
    flat = flat.bool()
    if bool((flat[:, 1:] & ~flat[:, :-1]).any()):
        raise ValueError("padding_mask: padding must stand at the end; set padding_side='right'")
    return flat.sum(1)
