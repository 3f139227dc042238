# SPDX-License-Identifier: Apache-2.0
"""Checks of the Snake network configuration, and its place in a codec configuration."""

from __future__ import annotations

import dataclasses
import json

import pytest

from affectcodec.config import CodecConfig
from affectcodec.snake_config import SnakeNetworkConfig


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": "stream"}, "kind must be 'snake', got 'stream'"),
        ({"encoder_width": 0}, "encoder_width must be a positive integer"),
        ({"strides": ()}, "strides must hold at least one integer"),
        ({"strides": (2, 0)}, "strides must be a positive integer, got 0"),
        ({"dilations": ()}, "dilations must hold"),
        ({"decoder_width": 24}, "must be a multiple of 16, got 24"),
        ({"segment_seconds": 0}, "segment_seconds and utterance_seconds"),
        ({"f0_min": 800}, "f0_min < f0_max"),
    ],
)
def test_bad_values_are_named(changes: dict, words: str) -> None:
    with pytest.raises(ValueError) as caught:
        SnakeNetworkConfig(**changes)
    assert words in str(caught.value)


def test_the_strides_make_the_hop() -> None:
    with pytest.raises(ValueError, match="a hop of 160 samples, hop_length says 320"):
        CodecConfig(network=SnakeNetworkConfig(strides=(4, 5, 8)))


def test_round_trip_through_json() -> None:
    config = CodecConfig(network=SnakeNetworkConfig(decoder_width=64, f0_min=70), name="mine")
    data = json.loads(json.dumps(config.to_dict()))
    assert data["network"]["kind"] == "snake"
    again = CodecConfig.from_dict(data)
    assert again == config and again.hash == config.hash and hash(again) == hash(config)
    assert dataclasses.replace(config, network=SnakeNetworkConfig()).hash != config.hash
    data["network"]["dropout"] = 0.1
    with pytest.raises(ValueError, match="SnakeNetworkConfig: unknown keys \\['dropout'\\]"):
        CodecConfig.from_dict(data)
    data["network"] = {"kind": "wavelet"}
    with pytest.raises(ValueError, match="unknown keys \\['kind'\\]"):
        CodecConfig.from_dict(data)
