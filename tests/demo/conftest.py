# SPDX-License-Identifier: Apache-2.0
"""A small random codec and one coded clip, made once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from affectcodec.audio import load_audio
from affectcodec.codec import AffectCodec
from affectcodec.demo.clips import DemoClip
from affectcodec.demo.coding import CodedClip, code_clip
from tests.cli.clips import make_clip, save_random_codec


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a random codec."""
    return save_random_codec(tmp_path_factory.mktemp("weights"), 1)


@pytest.fixture(scope="session")
def codec(weights: str) -> AffectCodec:
    return AffectCodec.from_pretrained(weights)


@pytest.fixture(scope="session")
def coded(codec: AffectCodec, tmp_path_factory: pytest.TempPathFactory) -> CodedClip:
    """One second with a title that needs escaping, at all rates."""
    torch.set_num_threads(1)
    folder: Path = tmp_path_factory.mktemp("demo")
    wave = load_audio(make_clip(folder / "clip.wav", 1.0))[0]
    clip = DemoClip("clip", "A <b>tone</b> & noise", "hum", "made here", wave)
    return code_clip(codec, clip, folder / "clip")
