# SPDX-License-Identifier: Apache-2.0
"""Configurations: figures, checks, dictionaries, hashes."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

from affectcodec.config import BDRFSQConfig, Block, CodecConfig, StreamNetworkConfig


def test_figures_of_the_default_quantizer() -> None:
    config = BDRFSQConfig()
    assert (config.width, config.code_dim, config.codebook_size) == (1024, 9, 32768)
    assert config.token_bits == 15
    assert config.bits() == {"emotion": 24, "acoustic": 96}
    assert config.bits(2) == {"emotion": 6, "acoustic": 24}
    assert config.bits({"emotion": 8, "acoustic": 1}) == {"emotion": 24, "acoustic": 12}
    assert config.token_bases() == {"emotion": 1, "acoustic": 8}
    assert config.block_slices() == {"emotion": slice(0, 256), "acoustic": slice(256, 1024)}
    assert config.blocks[1].codebook_size == 4096


def test_bits_of_odd_levels_are_fractional() -> None:
    block = Block("a", 3, (3, 5))
    assert (block.code_dim, block.codebook_size) == (2, 15)
    assert block.bits == pytest.approx(math.log2(15))


@pytest.mark.parametrize(
    ("stages", "want"),
    [
        (None, {"emotion": 8, "acoustic": 8}),
        (3, {"emotion": 3, "acoustic": 3}),
        ({"acoustic": 2}, {"emotion": 8, "acoustic": 2}),
        ({"emotion": 0, "acoustic": 2}, {"emotion": 0, "acoustic": 2}),
    ],
)
def test_stage_specifications(stages, want: dict[str, int]) -> None:
    assert BDRFSQConfig().resolve_stages(stages) == want


@pytest.mark.parametrize(
    ("stages", "error", "words"),
    [
        (9, ValueError, "asks for 9, wanted 0..8"),
        (-1, ValueError, "asks for -1"),
        (0, ValueError, "at least one stage"),
        ({"emotion": 0, "acoustic": 0}, ValueError, "at least one stage"),
        ({"speaker": 1}, ValueError, "unknown blocks ['speaker']; this quantizer has"),
        ({"emotion": 1.5}, ValueError, "'emotion' asks for 1.5"),
        ("8", TypeError, "got str"),
        (True, TypeError, "got bool"),
    ],
)
def test_bad_stage_specifications_are_named(stages, error, words: str) -> None:
    with pytest.raises(error) as caught:
        BDRFSQConfig().resolve_stages(stages)
    assert words in str(caught.value)


def small_network(**changes) -> StreamNetworkConfig:
    values = {"analysis_hop": 80, "analysis_window": 240, "f0_min": 200}
    return StreamNetworkConfig(**{**values, **changes})


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Block("", 4, (2,)), "name"),
        (lambda: Block("two words", 4, (2,)), "'two words'"),
        (lambda: Block("a", 0, (2,)), "width must be a positive integer, got 0"),
        (lambda: Block("a", True, (2,)), "width"),
        (lambda: Block("a", 4, ()), "levels"),
        (lambda: Block("a", 4, (1,)), "got 1"),
        (lambda: Block("a", 4, (2.0,)), "got 2.0"),  # type: ignore[arg-type]
        (lambda: BDRFSQConfig(()), "at least one Block"),
        (lambda: BDRFSQConfig((("a", 4, (2,)),)), "Block objects"),  # type: ignore[arg-type]
        (lambda: BDRFSQConfig((Block("a", 4, (2,)),) * 2), "names must differ"),
        (lambda: BDRFSQConfig(num_stages=0), "num_stages"),
        (lambda: BDRFSQConfig(num_stages=65), "at most 64"),
        (lambda: BDRFSQConfig(bound="sigmoid"), "'sigmoid'"),
        (lambda: StreamNetworkConfig(acoustic_width=0), "acoustic_width"),
        (lambda: StreamNetworkConfig(f0_min=300, f0_max=200), "f0_min < f0_max"),
        (lambda: StreamNetworkConfig(segment_seconds=0), "segment_seconds"),
        (lambda: CodecConfig(hop_length=300), "analysis_hop must divide hop_length"),
        (
            lambda: CodecConfig(network=StreamNetworkConfig(analysis_window=640)),
            "does not fit into two hops",
        ),
        (
            lambda: CodecConfig(network=StreamNetworkConfig(analysis_window=360)),
            "analysis_window must be a multiple of analysis_hop, at least 3 hops long, got 360",
        ),
        (
            lambda: CodecConfig(network=StreamNetworkConfig(analysis_window=320)),
            "at least 3 hops long, got 320 and 160",
        ),
        (
            lambda: CodecConfig(network=StreamNetworkConfig(pitch_window=1023)),
            "pitch_window must be even and at least 534 samples",
        ),
        (
            lambda: CodecConfig(network=StreamNetworkConfig(pitch_window=532)),
            "two periods of f0_min = 60 Hz",
        ),
        (
            lambda: CodecConfig(network=StreamNetworkConfig(pitch_window=318, f0_min=200)),
            "at least 320 samples",
        ),
        (
            lambda: CodecConfig(hop_length=160, network=small_network(pitch_window=200)),
            "at least 256 samples",
        ),
        (lambda: CodecConfig(quantizer=BDRFSQConfig((Block("a", 4, (2,)),))), "got ['a']"),
        (
            lambda: CodecConfig.preset("huge"),
            "'huge'; available presets are ['paper', ",
        ),
    ],
)
def test_bad_configurations_are_named(make, words: str) -> None:
    with pytest.raises(ValueError) as caught:
        make()
    assert words in str(caught.value)


def test_a_speaker_block_has_no_network_and_is_refused() -> None:
    blocks = (*CodecConfig().quantizer.blocks, Block("speaker", 8, (4,)))
    with pytest.raises(ValueError, match="exactly the blocks"):
        CodecConfig(quantizer=BDRFSQConfig(blocks))


def test_rates_of_the_stream_preset() -> None:
    config = CodecConfig.preset("stream")
    assert config.frame_rate == 50
    assert [config.kbps(k) for k in (1, 2, 4, 8)] == pytest.approx([0.75, 1.5, 3, 6])
    assert config.kbps() == pytest.approx(6)
    assert config.kbps({"emotion": 8, "acoustic": 1}) == pytest.approx(1.8)


@pytest.mark.parametrize(
    ("kbps", "stages"),
    [(0.75, 1), (1.49, 1), (1.5, 2), (3, 4), (5.99, 7), (6, 8), (64, 8), (math.inf, 8)],
)
def test_the_rate_is_never_exceeded(kbps: float, stages: int) -> None:
    assert CodecConfig().stages_for_kbps(kbps) == stages


@pytest.mark.parametrize("kbps", [0.7, 0, -3, math.nan, -math.inf])
def test_impossible_rates_are_named(kbps: float) -> None:
    with pytest.raises(ValueError, match="kbps: .* 0.75 to 6"):
        CodecConfig().stages_for_kbps(kbps)


@pytest.mark.parametrize(
    ("samples", "frames"), [(0, 0), (1, 2), (319, 2), (320, 2), (321, 3), (16000, 51)]
)
def test_frames_of_a_clip(samples: int, frames: int) -> None:
    assert CodecConfig().num_frames(samples) == frames


def test_round_trip_through_json() -> None:
    config = CodecConfig(
        quantizer=BDRFSQConfig(
            (Block("acoustic", 30, (5, 3)), Block("emotion", 7, (2,))), 3, "clamp"
        ),
        network=StreamNetworkConfig(decoder_width=48, f0_max=600.0),
        name="mine",
    )
    again = CodecConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config
    assert hash(again) == hash(config)
    assert again.hash == config.hash
    assert BDRFSQConfig.from_dict(config.quantizer.to_dict()) == config.quantizer


@pytest.mark.parametrize("path", [(), ("quantizer",), ("network",), ("quantizer", "blocks", 0)])
def test_unknown_keys_are_named(path: tuple) -> None:
    data = CodecConfig().to_dict()
    inner = data
    for key in path:
        inner = inner[key]
    inner["dropout"] = 0.1
    with pytest.raises(ValueError, match="unknown keys \\['dropout'\\].*newer release"):
        CodecConfig.from_dict(data)


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ((), "quantizer"),
        ((), "network"),
        (("quantizer",), "num_stages"),
        (("quantizer", "blocks", 1), "levels"),
    ],
)
def test_missing_keys_are_named(path: tuple, key: str) -> None:
    data = CodecConfig().to_dict()
    inner = data
    for part in path:
        inner = inner[part]
    del inner[key]
    with pytest.raises(ValueError, match=f"missing keys \\['{key}'\\]"):
        CodecConfig.from_dict(data)


def test_what_is_no_mapping_is_named() -> None:
    with pytest.raises(ValueError, match="Block: wanted a mapping, got str"):
        BDRFSQConfig.from_dict({"blocks": ["emotion"], "num_stages": 8, "bound": "tanh"})
    with pytest.raises(ValueError, match="CodecConfig: wanted a mapping, got list"):
        CodecConfig.from_dict([])  # type: ignore[arg-type]


def test_the_hash_names_the_configuration() -> None:
    config = CodecConfig()
    assert len(config.hash) == 16 and int(config.hash, 16) >= 0
    others = [
        dataclasses.replace(config, name="x"),
        dataclasses.replace(config, quantizer=dataclasses.replace(config.quantizer, num_stages=7)),
        dataclasses.replace(config, network=StreamNetworkConfig(kernel_size=5)),
    ]
    assert len({config.hash, *(other.hash for other in others)}) == 4


def test_equal_configurations_have_equal_hashes() -> None:
    whole = CodecConfig(network=StreamNetworkConfig(f0_min=60, utterance_seconds=8))
    assert whole == CodecConfig()
    assert whole.hash == CodecConfig().hash


def test_configurations_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        CodecConfig().hop_length = 640  # type: ignore[misc]
    levels = [2, 2]
    block = Block("a", 4, levels)  # type: ignore[arg-type]
    levels.append(9)
    assert block.levels == (2, 2)
