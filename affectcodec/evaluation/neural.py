# SPDX-License-Identifier: Apache-2.0
"""Neural codecs: this package's own, and those that `transformers` loads from a user's disk.

    label:KBPS with --weights label=FOLDER

Which codec a folder holds is told by its config.json (`model_type`): this package's format,
encodec, dac, mimi, xcodec or xcodec2. Nothing is downloaded. Rates are reached by the number of
codebooks; what was really sent is counted in codes, log2 of the codebook size each.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from affectcodec.audio import resample
from affectcodec.entropy import load_coder
from affectcodec.evaluation import compact, lead
from affectcodec.evaluation.baselines import SAMPLE_RATE, BaselineError, Coded
from affectcodec.runtime import NativeCodec, RuntimeUnavailable
from affectcodec.streaming.engine import NATIVE, precision_of

# model_type -> class of transformers
TRANSFORMERS_MODELS = {
    "encodec": "EncodecModel",
    "dac": "DacModel",
    "mimi": "MimiModel",
    "xcodec": "XcodecModel",
    "xcodec2": "Xcodec2Model",
}


class NeuralCodec:
    """An `AffectCodec` (or anything with its `encode` and `decode`) at one bitrate.

    Args:
        engine: `""` for the codec itself; `"native"` or `"native-bfloat16"` for its native runtime.

    Raises:
        RuntimeUnavailable: the runtime was not built, or cannot run this codec.
    """

    def __init__(
        self, codec: Any, kbps: float, *, label: str = "affectcodec", engine: str = ""
    ) -> None:
        self.kbps, self.label, self.engine = kbps, label, engine
        self._fingerprint = f"{label}-{kbps:g}-{model_digest(codec)}{engine and '@' + engine}"
        if engine:
            codec = NativeCodec(codec, precision=precision_of(engine))
        self.codec = codec

    @property
    def name(self) -> str:
        return f"{self.label}:{self.kbps:g}{self.engine and '@' + self.engine}"

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    def roundtrip(self, wav: np.ndarray) -> Coded:
        with torch.inference_mode():
            tokens = self.codec.encode(
                torch.from_numpy(np.ascontiguousarray(wav)), sample_rate=SAMPLE_RATE, kbps=self.kbps
            )
            out = self.codec.decode(tokens)
        bits_a_frame = sum(tokens.quantizer.bits(tokens.stages).values())
        return Coded(out[0, 0].float().cpu().numpy(), float(bits_a_frame * int(tokens.lengths[0])))


def model_digest(codec: Any) -> str:
    """16 hex digits over the weights and the configuration of a codec."""
    digest = hashlib.blake2b(digest_size=8)
    config: Any = getattr(codec, "config", None)
    if hasattr(config, "to_dict"):
        digest.update(json.dumps(config.to_dict(), sort_keys=True, default=str).encode())
    if hasattr(codec, "state_dict"):
        for key, value in sorted(codec.state_dict().items()):
            if isinstance(value, torch.Tensor):
                digest.update(f"{key}{tuple(value.shape)}{value.dtype}".encode())
                flat = value.detach().cpu().contiguous().reshape(-1)
                digest.update(flat.view(torch.uint8).numpy().tobytes())
    else:
        digest.update(repr(codec).encode())
    return digest.hexdigest()


def model_type(folder: str | Path) -> str:
    """`model_type` of a folder's config.json; empty where there is none.

    Raises:
        ValueError: config.json is not JSON.
    """
    path = Path(folder) / "config.json"
    if not path.is_file():
        return ""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"weights: {path} is not JSON ({error})") from error
    return str(config.get("model_type", "")) if isinstance(config, dict) else ""


def load_model(folder: str | Path) -> Any:
    """A codec of `TRANSFORMERS_MODELS` from a folder, in evaluation mode.

    Raises:
        ValueError: another kind of model, or the folder does not load.
        ImportError: package transformers missing, or too old for this codec.
    """
    kind = model_type(folder)
    if kind not in TRANSFORMERS_MODELS:
        raise ValueError(
            f"weights: {folder} holds model_type {kind!r}, wanted one of {[*TRANSFORMERS_MODELS]}"
        )
    try:
        import transformers
    except ImportError as error:
        raise ImportError(
            f"a codec of kind {kind} needs the package transformers: "
            "pip install 'affectcodec[transformers]'"
        ) from error
    build = getattr(transformers, TRANSFORMERS_MODELS[kind], None)
    if build is None:
        raise ImportError(f"transformers {transformers.__version__} does not know {kind}: update")
    try:
        return build.from_pretrained(str(folder), local_files_only=True).eval()
    except OSError as error:
        raise ValueError(f"weights: {folder} does not load ({error})") from error


class TransformersCodec:
    """A codec of `transformers` at one bitrate.

    Args:
        model: from `load_model`.
        kbps: wanted rate; the nearest number of codebooks is taken. Codecs of one rate ignore it.
        label: what stands before the colon of its name.
    """

    def __init__(self, model: Any, kbps: float, *, label: str) -> None:
        self.model, self.kbps, self.label = model, kbps, label
        self.kind = str(model.config.model_type)
        self._code: Callable[[torch.Tensor], tuple[torch.Tensor, int]] = {
            "encodec": self._encodec,
            "dac": self._dac,
            "mimi": self._mimi,
            "xcodec": self._xcodec,
            "xcodec2": self._xcodec2,
        }[self.kind]
        self.rate = int(getattr(model.config, "sampling_rate", None) or model.config.sample_rate)
        self._extractor: Any = None
        if self.kind == "xcodec2":
            # The one it was trained with; X-Codec 2's own wants torchaudio for the same.
            from transformers import SeamlessM4TFeatureExtractor

            self._extractor = SeamlessM4TFeatureExtractor()
        self._fingerprint = f"{label}-{kbps:g}-{model_digest(model)}"

    @property
    def name(self) -> str:
        return f"{self.label}:{self.kbps:g}"

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    def roundtrip(self, wav: np.ndarray) -> Coded:
        x = resample(np.asarray(wav, np.float32), SAMPLE_RATE, self.rate)
        with torch.inference_mode():
            out, bits = self._code(torch.from_numpy(np.ascontiguousarray(x))[None, None])
        back = resample(out.reshape(-1).float().cpu().numpy(), self.rate, SAMPLE_RATE)
        return Coded(np.asarray(back, dtype=np.float32), float(bits))

    def _count(self, codes: torch.Tensor, size: int) -> int:
        return round(codes.numel() * math.log2(size))

    def _codebooks(self, size: int, frame_rate: float, most: int) -> int:
        """Number of codebooks whose rate is nearest to the wanted one."""
        each = frame_rate * math.log2(size) / 1000.0
        return min(max(round(self.kbps / each), 1), most)

    def _nearest_bandwidth(self) -> float:
        return min(self.model.config.target_bandwidths, key=lambda b: abs(b - self.kbps))

    def _encodec(self, x: torch.Tensor) -> tuple[torch.Tensor, int]:
        found = self.model.encode(x, bandwidth=self._nearest_bandwidth())
        out = self.model.decode(
            found.audio_codes,
            found.audio_scales,
            last_frame_pad_length=getattr(found, "last_frame_pad_length", 0) or 0,
        ).audio_values
        bits = self._count(found.audio_codes, self.model.config.codebook_size)
        # a scale a chunk is sent as a 32-bit float by models that normalise
        return out, bits + 32 * sum(scale is not None for scale in found.audio_scales)

    def _dac(self, x: torch.Tensor) -> tuple[torch.Tensor, int]:
        config = self.model.config
        count = self._codebooks(
            config.codebook_size, self.rate / config.hop_length, config.n_codebooks
        )
        # whole frames: DAC drops an unfinished one
        x = torch.nn.functional.pad(x, (0, -x.shape[-1] % config.hop_length))
        codes = self.model.encode(x, n_quantizers=count).audio_codes
        out = self.model.decode(audio_codes=codes).audio_values
        return out, self._count(codes, config.codebook_size)

    def _mimi(self, x: torch.Tensor) -> tuple[torch.Tensor, int]:
        config = self.model.config
        frame_rate = float(config.frame_rate)
        count = self._codebooks(config.codebook_size, frame_rate, config.num_quantizers)
        codes = self.model.encode(x, num_quantizers=count).audio_codes
        return self.model.decode(codes).audio_values, self._count(codes, config.codebook_size)

    def _xcodec(self, x: torch.Tensor) -> tuple[torch.Tensor, int]:
        codes = self.model.encode(x, bandwidth=self._nearest_bandwidth()).audio_codes
        out = self.model.decode(codes).audio_values
        return out, self._count(codes, self.model.config.codebook_size)

    def _xcodec2(self, x: torch.Tensor) -> tuple[torch.Tensor, int]:
        hop = math.prod(self.model.config.downsampling_ratios)
        # a whole number of frames, and one sample at least to spare, as the model expects
        wave = torch.nn.functional.pad(x, (0, 1 + -(x.shape[-1] + 1) % hop))
        around = torch.nn.functional.pad(wave.reshape(-1), (hop // 2, hop // 2)).numpy()
        features = self._extractor(around, sampling_rate=self.rate, return_tensors="pt")
        codes = self.model.encode(wave, features.input_features).audio_codes
        out = self.model.decode(codes).audio_values
        return out, self._count(codes, math.prod(self.model.config.quantization_levels))


def load_codec(
    label: str, kbps: float, folder: str | None, loaded: dict[str, Any], engine: str = ""
) -> Any:
    """The codec of a label: this package's own unless its folder says otherwise.

    Args:
        folder: weights (None: the shipped ones).
        loaded: label -> model, filled here, so that several rates share one.
        engine: one of `streaming.engine.NATIVE` for this package's native runtime, `compact` for
            entropy-coded tokens, `lead` for the first block ahead, else PyTorch.

    Raises:
        BaselineError: the model refused to be used as a codec, or its native runtime is not there.
        ValueError: an engine of another name, or for the model of another package.
    """
    engines = (*NATIVE, compact.ENGINE, lead.ENGINE)
    if engine and engine not in engines:
        raise ValueError(
            f"codecs: wanted @ and one of {list(engines)} after a rate, got {engine!r}"
        )
    kind = model_type(folder) if folder else ""
    if label not in loaded:
        if kind:
            loaded[label] = load_model(str(folder))
        else:
            from affectcodec.codec import AffectCodec

            loaded[label] = AffectCodec.from_pretrained(folder)
    if not kind:
        own = loaded[label]
        if engine == compact.ENGINE:
            coder = load_coder(folder)
            return compact.CompactCodec(own, kbps, coder, label=label, digest=model_digest(own))
        if engine == lead.ENGINE:
            return lead.LeadCodec(own, kbps, label=label, digest=model_digest(own))
        try:
            return NeuralCodec(loaded[label], kbps, label=label, engine=engine)
        except RuntimeUnavailable as error:
            raise BaselineError(f"{label}: {error}") from error
    if engine:
        raise ValueError(f"codecs: @{engine} is for weights of this package, {label} holds {kind}")
    try:
        return TransformersCodec(loaded[label], kbps, label=label)
    except (OSError, AttributeError) as error:
        raise BaselineError(f"{label}: {error}") from error
