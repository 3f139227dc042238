# SPDX-License-Identifier: Apache-2.0
"""The check that a clip gets the same tokens however it is fed, and that it sees where not."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import soundfile
from torch import Tensor, nn

from affectcodec.codec import AffectCodec
from affectcodec.evaluation.consistency import consistency, main
from tests.codec_fixtures import speech_like, tiny_codec

MODES = ("chunked", "padded", "batched", "cut")


class DependsOnShape(nn.Module):
    """An encoder that turns its latent around unless the input has the shape of the first one."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.shape = encoder, None

    def forward(self, wav: Tensor, state: dict[str, Tensor] | None = None) -> Tensor:
        self.shape = self.shape or wav.shape
        latent = self.encoder(wav, state)
        return latent if wav.shape == self.shape else -latent


@pytest.fixture
def codec() -> AffectCodec:
    return tiny_codec()


def test_a_causal_codec_is_consistent(codec: AffectCodec) -> None:
    clips = [speech_like(n, seed).numpy() for seed, n in enumerate((9000, 6000))]
    counts = consistency(codec, clips)
    assert tuple(counts) == MODES
    frames = sum(codec.config.num_frames(len(clip)) for clip in clips)
    for mode in ("chunked", "padded", "batched"):
        assert counts[mode].digits == frames * 4 * 6  # stages, code dims
    assert 0 < counts["cut"].digits < frames * 4 * 6
    for count in counts.values():
        assert count.outside_band == 0
        assert count.differing <= count.digits / 400


def test_an_inconsistent_codec_is_caught(codec: AffectCodec) -> None:
    codec.encoder = DependsOnShape(codec.encoder)
    for count in consistency(codec, [speech_like(16000).numpy()]).values():
        assert count.outside_band > 0
        assert count.per_100000 > 100


def test_the_command_reports_every_mode(
    tmp_path: Path, codec: AffectCodec, capsys: pytest.CaptureFixture[str]
) -> None:
    codec.save_pretrained(tmp_path / "weights")
    soundfile.write(tmp_path / "a.wav", speech_like(4000).numpy(), 16000)
    with open(tmp_path / "m.csv", "w", newline="") as file:
        rows = [("path", "dataset", "speaker", "split"), ("a.wav", "d", "s", "dev")]
        csv.writer(file).writerows(rows)
    arguments = ["--manifest", str(tmp_path / "m.csv"), "--weights", str(tmp_path / "weights")]
    status = main([*arguments, "--json", str(tmp_path / "counts.json")])
    lines = capsys.readouterr().out.splitlines()
    assert tuple(line.split()[0] for line in lines) == MODES
    assert status == int(any("MISSED" in line for line in lines))
    record = json.loads((tmp_path / "counts.json").read_text())
    assert record["clips"] == 1 and record["padded"]["digits"] > 0
