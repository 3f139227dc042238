# SPDX-License-Identifier: Apache-2.0
"""The PyTorch engines: compiled against eager, and neighbours of a slot."""

from __future__ import annotations

from importlib import import_module

import numpy as np
import pytest
import torch

from affectcodec.streaming import StateError, StreamingDecoder, StreamingEncoder, engine
from affectcodec.streaming.torch_engine import packed
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


def test_the_command_offers_every_engine() -> None:
    assert import_module("affectcodec.cli.stream").ENGINES == engine.ENGINES


def test_packing_leaves_the_codec_alone(codec) -> None:
    before = {name: value.clone() for name, value in codec.encoder.state_dict().items()}
    network = packed(codec.encoder, 4)
    strides = [m.weight.stride() for m in codec.encoder.modules() if hasattr(m, "in_features")]
    assert all(stride[1] == 1 for stride in strides)
    assert any(m.weight.stride(0) == 1 for m in network.modules() if hasattr(m, "in_features"))
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])
        assert value.data_ptr() != codec.encoder.state_dict()[name].data_ptr()


@pytest.mark.slow
def test_compiled_is_eager(codec, pair) -> None:
    wav = speech_like(25 * HOP).numpy()
    eager = (StreamingEncoder(codec, engine="torch"), StreamingDecoder(codec, engine="torch"))
    codes, audio = coded(*pair, {0: wav})
    want_codes, want_audio = coded(*eager, {0: wav})
    assert (codes == want_codes).mean() > 0.99
    error = np.square(audio - want_audio).sum() / np.square(want_audio).sum()
    assert 10 * np.log10(error) < -80


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
