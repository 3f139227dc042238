# SPDX-License-Identifier: Apache-2.0
"""The arrays of a codec in the order in which the native runtime reads them.

``csrc/runtime/assemble.cpp`` reads the same numbers and arrays in the same order and checks every
size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from affectcodec.codec import AffectCodec
from affectcodec.config import StreamNetworkConfig
from affectcodec.config_checks import GRANULARITIES
from affectcodec.nn.bdrfsq import BDRFSQ
from affectcodec.nn.causal import CausalConvNeXt, CausalConvNeXtBlock
from affectcodec.nn.decoder import StreamDecoder
from affectcodec.nn.encoder import POOLED_BINS, StreamEncoder
from affectcodec.nn.prosody import F0_BINS
from affectcodec.ops.bd_rfsq.folding import describe, fold

NamedArray = tuple[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Network:
    """One direction: its numbers, its real numbers and its arrays."""

    config: list[int]
    reals: list[float]
    arrays: list[NamedArray]


def folded_quantizer(codec: AffectCodec) -> tuple[list[int], npt.NDArray[np.float32]]:
    """Description and folded weights of the quantizer, as the CPU kernels take them.

    Raises:
        RuntimeError: if the CPU kernels, which fold the weights, are not there.
    """
    description = describe(codec.config.quantizer)
    assert isinstance(codec.quantizer, BDRFSQ)
    params = [p.detach().cpu() for p in codec.quantizer._all_parameters()]
    return list(description), fold(params, description, "cpu").numpy()


def why_unsupported(codec: AffectCodec) -> str:
    """Empty where the runtime has every layer of a codec, otherwise what it lacks."""
    if type(codec.encoder) is not StreamEncoder or type(codec.decoder) is not StreamDecoder:
        return f"it has the networks of the preset 'stream', not those of {codec.config.name!r}"
    if not isinstance(codec.quantizer, BDRFSQ):
        return f"it has the quantizer BDRFSQ, not {type(codec.quantizer).__name__}"
    views = codec.decoder.conditioning
    if views is None or views.granularities != GRANULARITIES:
        return f"its decoder is conditioned by {', '.join(GRANULARITIES)}, all of them"
    known = {name for make in (encoder_network, decoder_network) for name, _ in make(codec).arrays}
    needed = {name for name in codec.state_dict() if not name.startswith("quantizer.")}
    unknown = sorted(needed - known)
    return f"it does not know {unknown[0]!r} and {len(unknown) - 1} more" if unknown else ""


def _array(name: str, tensor: Tensor) -> NamedArray:
    dtype = torch.float64 if tensor.dtype == torch.float64 else torch.float32
    return name, tensor.detach().cpu().to(dtype).contiguous().numpy()


def _layer(name: str, layer: nn.Module) -> list[NamedArray]:
    return [_array(f"{name}.{part}", getattr(layer, part)) for part in ("weight", "bias")]


def _stack(name: str, stack: CausalConvNeXt) -> list[NamedArray]:
    arrays = [*_layer(f"{name}.embed", stack.embed), *_layer(f"{name}.norm", stack.norm)]
    for i, module in enumerate(stack.blocks):
        block, path = cast(CausalConvNeXtBlock, module), f"{name}.blocks.{i}"
        arrays += _layer(f"{path}.depthwise", block.depthwise)
        for part in ("norm", "expand", "project"):
            arrays += _layer(f"{path}.{part}", getattr(block, part))
        arrays.append(_array(f"{path}.layer_scale", block.layer_scale))
        if block.film is not None:
            arrays += _layer(f"{path}.film", block.film)
    return arrays + _layer(f"{name}.final_norm", stack.final_norm)


def _hann(size: int) -> Tensor:
    return torch.hann_window(size, dtype=torch.float64)


def encoder_network(codec: AffectCodec) -> Network:
    """Numbers and arrays of the encoder."""
    config, net, encoder = codec.config, codec.config.network, codec.encoder
    assert isinstance(encoder, StreamEncoder) and isinstance(net, StreamNetworkConfig)
    lags = encoder.pitch.lags
    numbers = [config.hop_length, net.analysis_window, net.analysis_hop, net.pitch_window]
    numbers += [encoder.pitch.LOW_BINS, POOLED_BINS, lags[0], len(lags) + 1]
    numbers += [net.kernel_size, net.expansion]
    numbers += [net.acoustic_width, net.acoustic_blocks, net.emotion_width, net.emotion_blocks]
    numbers.append(len(config.quantizer.blocks))
    for block in config.quantizer.blocks:
        numbers += [int(block.name == "emotion"), block.width]
    # Divided out of the transform that the runtime makes of the power spectrum.
    taper = torch.fft.irfft(
        torch.fft.rfft(_hann(net.pitch_window), 2 * net.pitch_window).abs() ** 2
    )
    taper = taper[0] / taper[torch.tensor([0, *lags])]
    arrays = [
        _array("window", _hann(net.analysis_window)),
        _array("pitch window", _hann(net.pitch_window)),
        _array("taper", taper),
        *_stack("encoder.acoustic", encoder.acoustic),
        *_stack("encoder.emotion", encoder.emotion),
    ]
    for name in config.quantizer.names:
        arrays += _layer(f"encoder.heads.{name}", encoder.heads[name])
    return Network(numbers, [], arrays)


def decoder_network(codec: AffectCodec) -> Network:
    """Numbers and arrays of the decoder."""
    config, net, decoder = codec.config, codec.config.network, codec.decoder
    assert isinstance(decoder, StreamDecoder) and isinstance(net, StreamNetworkConfig)
    assert decoder.conditioning is not None
    prosody = decoder.prosody.network
    emotion = config.quantizer.block_slices()["emotion"]
    numbers = [config.hop_length, net.analysis_window, net.analysis_hop, config.sample_rate]
    first = cast(CausalConvNeXtBlock, prosody.blocks[0])
    hidden = prosody.embed.out_features
    numbers += [net.kernel_size, net.expansion, hidden, len(prosody.blocks)]
    numbers += [first.expand.out_features // hidden, F0_BINS, decoder.prosody.NEIGHBOURS]
    numbers += [decoder.conditioning.mix.out_features, net.decoder_width, net.decoder_blocks]
    numbers += [config.quantizer.width, emotion.start, emotion.stop - emotion.start]
    numbers.append(len(decoder.source.noise_table))
    pools = [decoder.conditioning.segment, decoder.conditioning.utterance]
    reals = [decoder.source.top_hz, *(float(p.carry[0]) for p in pools)]
    gain = 3 / 8 * net.analysis_window / net.analysis_hop
    # The runtime's inverse transform is that of half the size without its factor.
    synthesis = _hann(net.analysis_window) / (gain * (net.analysis_window // 2))
    arrays = [
        _array("window", _hann(net.analysis_window)),
        _array("synthesis", synthesis),
        *_stack("decoder.prosody.network", prosody),
        *_layer("decoder.prosody.out", decoder.prosody.out),
        _array("decoder.prosody.centres", decoder.prosody.centres),
    ]
    for name, pool in zip(("segment", "utterance"), pools, strict=True):
        arrays += _layer(f"decoder.conditioning.{name}.score", pool.score)
    arrays += _layer("decoder.conditioning.mix", decoder.conditioning.mix)
    arrays += _stack("decoder.backbone", decoder.backbone)
    arrays += _layer("decoder.head", decoder.head)
    arrays.append(_array("noise", decoder.source.noise_table))
    if not math.isclose(decoder.synthesis.window, net.analysis_window):
        raise ValueError("the runtime needs one window for analysis and synthesis")
    return Network(numbers, reals, arrays)
