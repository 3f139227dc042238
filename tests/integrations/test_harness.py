# SPDX-License-Identifier: Apache-2.0
"""Adapters for harnesses, and bundles."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile as sf
import torch

from affectcodec.integrations.bundles import AFFECTCODEC_STREAM, CodecBundle
from affectcodec.integrations.harness import HarnessCodec, resynthesize_scp
from tests.codec_fixtures import speech_like, tiny_codec


@pytest.fixture(scope="module")
def codec():
    return tiny_codec()


def clip(samples: int = 3000, rate: int = 16000) -> dict:
    wave = speech_like(samples, 0, rate).numpy()
    return {"id": "../x/clip", "audio": {"array": wave, "sampling_rate": rate}}


def test_units_are_the_codes(codec) -> None:
    adapter = HarnessCodec(codec, stages=2)
    found = adapter.extract_unit(clip())
    want = codec.encode(speech_like(3000), stages=2)
    assert torch.equal(found.unit, want.codes[0].long())
    assert np.array_equal(
        adapter.decode_unit(found.stuff_for_synth), codec.decode(want)[0, 0].numpy()
    )
    assert (adapter.sampling_rate, adapter.supports_decode) == (16000, True)


def test_synth_keeps_the_rate_of_the_clip(codec) -> None:
    made = HarnessCodec(codec).synth(clip(1500, 8000), local_save=False)
    assert made["audio"]["sampling_rate"] == 8000
    assert len(made["audio"]["array"]) == 1500
    assert made["unit"].shape[0] == 4


def test_synth_writes_inside_its_folder(codec, tmp_path) -> None:
    made = HarnessCodec(codec, folder=tmp_path / "out").synth(clip())
    assert made["audio"] == str(tmp_path / "out" / "clip.wav")
    assert sf.info(made["audio"]).frames == 3000


def test_batches_are_their_clips(codec) -> None:
    adapter = HarnessCodec(codec)
    both = adapter.batch_extract_unit([clip(), clip(1000)])
    assert both.batch_size == 2
    assert [len(wave) for wave in adapter.batch_decode_unit(both)] == [3000, 1000]
    made = adapter.batch_synth([clip(), clip(1000)], local_save=False)
    assert [len(data["audio"]["array"]) for data in made] == [3000, 1000]


def test_lists_of_files(codec, tmp_path) -> None:
    lines = []
    for name, samples, rate in (("a", 3000, 16000), ("b", 900, 22050)):
        sf.write(tmp_path / f"{name}.wav", speech_like(samples, 0, rate).numpy(), rate)
        lines.append(f"{name} {tmp_path / f'{name}.wav'}")
    (tmp_path / "gt.scp").write_text("\n".join(lines) + "\n\n")
    made = resynthesize_scp(tmp_path / "gt.scp", tmp_path / "out", codec, progress=False)
    assert [line.split()[0] for line in made.read_text().splitlines()] == ["a", "b"]
    info = sf.info(tmp_path / "out" / "b.wav")
    assert (info.samplerate, info.frames) == (22050, 900)


@pytest.mark.parametrize("line", ["only-a-name", "../a x.wav"])
def test_lists_that_are_refused(codec, tmp_path, line: str) -> None:
    (tmp_path / "gt.scp").write_text(line)
    with pytest.raises(ValueError, match="line 1: wanted NAME PATH"):
        resynthesize_scp(tmp_path / "gt.scp", tmp_path / "out", codec, progress=False)


def test_bundle(codec, tmp_path) -> None:
    codec.save_pretrained(tmp_path)
    bundle = CodecBundle(str(tmp_path))
    assert (bundle.sample_rate, bundle.frame_rate) == (16000, 50.0)
    assert bundle.get_model().fingerprint == codec.fingerprint
    assert bundle.get_vocabulary("shared").num_codes == codec.config.quantizer.codebook_size
    assert AFFECTCODEC_STREAM.config.quantizer.num_stages == 8
