# SPDX-License-Identifier: Apache-2.0
"""The command that fits a predictor: from a manifest to the file beside the weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from affectcodec import AffectCodec
from affectcodec.manifest import read_manifest
from affectcodec.streaming.fit_concealment import latents_of, main
from affectcodec.streaming.predictor import PREDICTOR_NAME, Predictor
from tests.codec_fixtures import speech_like, tiny_codec

COLUMNS = "path,dataset,speaker,emotion,sha256,gender,language,transcript,split"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    lines = [COLUMNS]
    for i, samples in enumerate((24000, 20000, 100)):
        soundfile.write(folder / f"{i}.wav", speech_like(samples, seed=i).numpy(), 16000)
        lines.append(f"{i}.wav,made,s{i},neutral,{i},f,en,,train")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def test_it_writes_the_predictor_of_the_weights(data: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    tiny_codec().save_pretrained(weights)
    arguments = [str(data), "--weights", str(weights), "--steps", "1"]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "step 400: latent " in result.output and "from 137 frames" in result.output
    codec = AffectCodec.from_pretrained(weights)
    predictor = Predictor.load(weights / PREDICTOR_NAME)
    assert predictor.fingerprint == codec.fingerprint
    assert len(predictor.mean) == codec.config.quantizer.width


def test_limits_are_one_or_one_for_each(data: Path) -> None:
    result = CliRunner().invoke(main, [str(data), "--limit", "1", "--limit", "2"])
    assert result.exit_code == 2 and "2 limits for 1 folders" in result.output


def test_latents_are_cut_drawn_by_the_seed_and_leave_out_what_is_no_frame(data: Path) -> None:
    codec = tiny_codec()
    clips = read_manifest(data / "manifest.csv", split="train")
    found = latents_of(codec, clips, 0, 1.0)
    assert [z.shape for z in found] == [(50, codec.config.quantizer.width)] * 2
    again, other = latents_of(codec, clips, 0, 1.0), latents_of(codec, clips, 5, 1.0)
    assert np.array_equal(found[0], again[0]) and not np.array_equal(found[0], other[0])
