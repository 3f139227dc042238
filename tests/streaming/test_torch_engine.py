# SPDX-License-Identifier: Apache-2.0
"""The PyTorch engines: compiled against eager, and neighbours of a slot."""

from __future__ import annotations

from importlib import import_module

import numpy as np
import pytest
import torch

from affectcodec.streaming import StateError, StreamingDecoder, StreamingEncoder, engine
from affectcodec.streaming.torch_engine import (
    TorchDecoder,
    TorchEncoder,
    _product,
    _product_and_bias,
    packed,
)
from tests.codec_fixtures import HOP, speech_like, tiny_codec

SLOTS = 2


@pytest.fixture(scope="module")
def codec():
    return tiny_codec()


@pytest.fixture(scope="module")
def pair(codec) -> tuple[StreamingEncoder, StreamingDecoder]:
    return (
        StreamingEncoder(codec, slots=SLOTS, engine="torch-compiled"),
        StreamingDecoder(codec, slots=SLOTS, engine="torch-compiled"),
    )


def coded(encoder: StreamingEncoder, decoder: StreamingDecoder, clips: dict) -> tuple:
    """Codes and audio of slot 0 while the other slots get ``clips`` of their own."""
    for slot in range(encoder.slots):
        encoder.reset(slot)
        decoder.reset(slot)
    codes, audio = [], []
    for t in range(len(clips[0]) // HOP):
        frames = {
            slot: wav[t * HOP : (t + 1) * HOP]
            for slot, wav in clips.items()
            if len(wav) >= (t + 1) * HOP
        }
        made = encoder.push_frames(frames)
        codes.append(made[0].codes)
        audio.append(decoder.push_frames(made)[0])
    return np.concatenate(codes), np.concatenate(audio)


def loss_db(audio: np.ndarray, wanted: np.ndarray) -> float:
    return float(10 * np.log10(np.square(audio - wanted).sum() / np.square(wanted).sum()))


def test_the_command_offers_every_engine() -> None:
    assert import_module("affectcodec.cli.stream").ENGINES == engine.ENGINES


def test_packing_leaves_the_codec_alone(codec) -> None:
    before = {name: value.clone() for name, value in codec.encoder.state_dict().items()}
    network = packed(codec.encoder, 8)
    strides = [m.weight.stride() for m in codec.encoder.modules() if hasattr(m, "in_features")]
    assert all(stride[1] == 1 for stride in strides)
    assert any(m.weight.stride(0) == 1 for m in network.modules() if hasattr(m, "in_features"))
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])
        assert value.data_ptr() != codec.encoder.state_dict()[name].data_ptr()


def test_packing_for_few_rows_sums_along_the_inputs(codec) -> None:
    encoder, decoder = packed(codec.encoder, 1), packed(codec.decoder, 1)
    weights = [m.weight.t() for m in encoder.modules() if hasattr(m, "in_features")]
    for weight in (*weights, encoder.pitch.correlation, decoder.synthesis.basis):
        assert weight.stride(0) == 1
    assert torch.equal(encoder.pitch.correlation, codec.encoder.pitch.correlation)
    assert codec.encoder.pitch.correlation.stride(1) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 37, 5), (2, 480, 13), (4, 3, 96), (3, 0, 7)])
def test_products_of_few_rows(shape, dtype) -> None:
    rows, inputs, outputs = shape
    torch.manual_seed(0)
    x, bias = torch.randn(inputs, rows, dtype=dtype).t(), torch.randn(outputs, dtype=dtype)
    weight = torch.randn(outputs, inputs, dtype=dtype).t()
    wanted = x.double() @ weight.double()
    near = (
        {"rtol": 1e-5, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 1e-12, "atol": 1e-12}
    )
    torch.testing.assert_close(_product(x, weight).double(), wanted, **near)
    found = _product_and_bias(bias, x, weight, beta=2, alpha=0.5)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), 0.5 * wanted + 2 * bias, **near)


def test_products_of_more_rows_are_left_to_the_library() -> None:
    x, weight = torch.ones(5, 3), torch.ones(3, 2)
    assert _product(x, weight) is NotImplemented
    assert _product_and_bias(torch.ones(2), x, weight) is NotImplemented
    assert _product(x[:1].long(), weight.long()) is NotImplemented


def test_inference_mode_of_a_caller_stays_outside(codec) -> None:
    wav = speech_like(3 * HOP).numpy()
    encoder, decoder = (
        StreamingEncoder(codec, engine="torch"),
        StreamingDecoder(codec, engine="torch"),
    )
    with torch.inference_mode():
        first = decoder.push_frames(encoder.push_frames({0: wav}))[0]
    encoder.reset()
    decoder.reset()
    assert not torch.is_inference_mode_enabled()
    assert torch.is_grad_enabled()
    np.testing.assert_array_equal(decoder.push_frames(encoder.push_frames({0: wav}))[0], first)


@pytest.mark.slow
def test_compiled_is_eager(codec, pair) -> None:
    wav = speech_like(25 * HOP).numpy()
    eager = (StreamingEncoder(codec, engine="torch"), StreamingDecoder(codec, engine="torch"))
    codes, audio = coded(*pair, {0: wav})
    want_codes, want_audio = coded(*eager, {0: wav})
    assert (codes == want_codes).mean() > 0.99
    assert loss_db(audio, want_audio) < -80


@pytest.mark.slow
@pytest.mark.parametrize("slots", [1, 5])
def test_each_codec_has_compiled_engines_of_its_own(codec, pair, slots) -> None:
    """Loops and the library, other weights; settings of the process stay as they were."""
    wav, other = speech_like(25 * HOP).numpy(), tiny_codec(seed=1)
    settings = [m.config.get_hash() for m in (torch._dynamo, torch._inductor)]
    for own, engines in (
        (
            other,
            tuple(
                kind(other, slots=slots, engine="torch-compiled")
                for kind in (StreamingEncoder, StreamingDecoder)
            ),
        ),
        (codec, pair),
    ):
        eager = (StreamingEncoder(own, engine="torch"), StreamingDecoder(own, engine="torch"))
        codes, audio = coded(*engines, {0: wav})
        want_codes, want_audio = coded(*eager, {0: wav})
        assert (codes == want_codes).mean() > 0.99
        assert loss_db(audio, want_audio) < -80
    assert [m.config.get_hash() for m in (torch._dynamo, torch._inductor)] == settings


@pytest.mark.slow
def test_a_compiled_state_goes_on_in_an_eager_engine(codec, pair) -> None:
    wav = speech_like(20 * HOP).numpy().reshape(-1, HOP)
    encoder, decoder = (side.engine for side in pair)
    stages = np.full((10, 2), 4)
    for engine_ in (encoder, decoder):
        engine_.reset(1)
    latent = decoder.dequantize(encoder.encode([1], [10], wav[:10]), stages)
    decoder.synthesize([1], [10], latent)
    eager = TorchEncoder(codec, 1), TorchDecoder(codec, 1)
    for old, new in zip((encoder, decoder), eager, strict=True):
        new.load_state(0, old.state(1))
    tokens = encoder.encode([1], [10], wav[10:])
    assert (eager[0].encode([0], [10], wav[10:]) == tokens).mean() > 0.99
    latent = decoder.dequantize(tokens, stages)
    audio = decoder.synthesize([1], [10], latent)
    assert loss_db(eager[1].synthesize([0], [10], latent), audio) < -80
    for old, new in zip((encoder, decoder), eager, strict=True):
        old.load_state(1, new.state(0))
        for name, value in new.state(0).items():
            np.testing.assert_array_equal(old.state(1)[name], value)


@pytest.mark.slow
def test_a_compiled_slot_does_not_hear_its_neighbour(pair) -> None:
    wav, other = speech_like(12 * HOP).numpy(), 0.3 * speech_like(7 * HOP).numpy()[::-1].copy()
    codes, audio = coded(*pair, {0: wav})
    again_codes, again_audio = coded(*pair, {0: wav, 1: other})
    np.testing.assert_array_equal(codes, again_codes)
    np.testing.assert_array_equal(audio, again_audio)


@pytest.mark.slow
def test_a_state_belongs_to_its_engine(codec, pair) -> None:
    encoder, _ = pair
    with pytest.raises(StateError, match="torch-compiled"):
        StreamingEncoder(codec, slots=SLOTS, engine="torch").load_state(encoder.state(0))
