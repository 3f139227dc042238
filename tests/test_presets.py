# SPDX-License-Identifier: Apache-2.0
"""Presets build, have the size they state, and take training steps."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from affectcodec import AffectCodec
from affectcodec.config import CodecConfig
from affectcodec.presets import PRESETS
from affectcodec.snake_config import SnakeNetworkConfig
from tests.codec_fixtures import HOP, speech_like

PARAMETERS = {"stream": 6_492_868, "stream-large": 19_727_860, "paper": 132_458_654}


def test_every_preset_is_listed_here() -> None:
    assert PRESETS.keys() == PARAMETERS.keys()
    assert len({CodecConfig.preset(name).hash for name in PRESETS}) == len(PRESETS)


@pytest.mark.parametrize("name", PRESETS)
def test_sizes(name: str) -> None:
    config = CodecConfig.preset(name)
    assert config.name == name
    with torch.device("meta"):
        codec = AffectCodec(config)
    assert sum(p.numel() for p in codec.parameters()) == PARAMETERS[name]
    assert CodecConfig.from_dict(config.to_dict()) == config


def test_the_paper_preset_has_the_published_shape() -> None:
    config = CodecConfig.preset("paper")
    assert isinstance(config.network, SnakeNetworkConfig)
    assert config.network.strides == (2, 4, 5, 8)
    assert {b.name: b.width for b in config.quantizer.blocks} == {"emotion": 256, "acoustic": 768}
    assert [config.kbps(k) for k in (2, 4, 8)] == pytest.approx([1.5, 3, 6])
    with torch.device("meta"):
        codec = AffectCodec(config)
    adapter = sum(p.numel() for p in codec.encoder.emotion.parameters())
    # Published: 135.05 million in all, 55.6 million of them in the adapter.
    assert adapter == pytest.approx(55.6e6, rel=0.03)
    assert PARAMETERS["paper"] == pytest.approx(135.05e6, rel=0.03)


@pytest.mark.parametrize(
    "name",
    ["stream", "stream-large", pytest.param("paper", marks=pytest.mark.slow)],
)
def test_a_few_steps(name: str) -> None:
    codec = AffectCodec(CodecConfig.preset(name))
    wav = speech_like(6 * HOP)[None, None]
    optimizer = torch.optim.AdamW(codec.parameters(), lr=3e-5 if name == "paper" else 3e-4)
    window = torch.hann_window(512)

    def magnitude(x: torch.Tensor) -> torch.Tensor:
        return torch.stft(x, 512, 128, window=window, return_complex=True).abs()

    losses = []
    for _ in range(3):
        out = codec(wav)
        loss = F.l1_loss(magnitude(out.wav[:, 0]), magnitude(wav[:, 0]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    assert all(p.grad is None or bool(torch.isfinite(p.grad).all()) for p in codec.parameters())
    # Every parameter takes part: only the prosody heads are left to losses of their own.
    idle = [n for n, p in codec.named_parameters() if p.grad is None]
    assert all(n.startswith("decoder.prosody.out") for n in idle), idle
