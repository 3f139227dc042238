# SPDX-License-Identifier: Apache-2.0
"""The language-model recipe at a tiny size: layouts, likelihoods, resuming, and all of it once."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

from click.testing import CliRunner

from affectcodec.codec import AffectCodec
from affectcodec.manifest import read_manifests
from affectcodec.tokens import Tokens
from recipes.slm import __main__ as recipe
from recipes.slm.data import EMOTIONS, Corpus, tokenize
from recipes.slm.designs import BY_NAME, DESIGNS, Design, fit_rvq, make_layout
from recipes.slm.model import ModelConfig, TokenModel
from recipes.slm.train import TrainPlan, measure, train
from tests.codec_fixtures import tiny_codec
from tests.evaluation.sounds import corpus

TINY = ModelConfig(width=16, layers=1, heads=2, feed_forward=32)
FRAMES = 12


@pytest.fixture(scope="module")
def codecs() -> dict[str, AffectCodec]:
    own = tiny_codec()
    latents = torch.randn(1200, 36, generator=torch.Generator().manual_seed(0))
    return {"bd-rfsq": own, "rvq": fit_rvq(own, latents, passes=1)}


def tokens_of(codec: AffectCodec, stages: int, batch: int = 3) -> Tokens:
    quantizer = codec.config.quantizer
    shape = (batch, stages, FRAMES)
    codes = torch.randint(
        0, quantizer.codebook_size, shape, generator=torch.Generator().manual_seed(1)
    )
    frames = torch.full((batch,), FRAMES)
    counts = dict.fromkeys(quantizer.names, stages)
    return Tokens(codes.int(), frames, (frames - 1) * 320, counts, quantizer, codec.fingerprint)


@pytest.mark.parametrize("design", DESIGNS, ids=lambda d: d.name)
def test_layouts_are_exact(design: Design, codecs: dict[str, AffectCodec]) -> None:
    codec = codecs[design.codec]
    layout, tokens = make_layout(design, codec, FRAMES), tokens_of(codec, design.stages)
    numbers = layout.encode(tokens)
    assert numbers.shape == (3, layout.streams, layout.steps)
    assert torch.equal(layout.decode(numbers).codes, tokens.codes)
    special = layout.row < 0
    assert torch.equal(numbers[0][special], layout.fixed[special])
    for row, (start, size) in enumerate(zip(layout.starts, layout.sizes, strict=True)):
        here = numbers[:, layout.row == row]
        assert here.shape[1] == FRAMES
        assert bool(((here >= start) & (here < start + size)).all())
        assert layout.frame[layout.row == row].tolist() == list(range(FRAMES))


def test_rvq_has_the_bits_of_two_stages() -> None:
    own = tiny_codec(3).config.quantizer
    shipped = AffectCodec.from_pretrained().config.quantizer
    from recipes.slm.designs import rvq_config

    assert sum(rvq_config(shipped).bits(3).values()) == sum(shipped.bits(2).values()) == 30
    assert rvq_config(own).width == own.width


def test_fitted_rvq_is_nearer_than_its_mean(codecs: dict[str, AffectCodec]) -> None:
    latents = torch.randn(1, 500, 36, generator=torch.Generator().manual_seed(0))
    quantizer = codecs["rvq"].quantizer
    found = quantizer.decode(quantizer.encode(latents, channels_last=True), channels_last=True)
    assert float((found - latents).square().mean()) < 0.7 * float(latents.square().mean())


@pytest.mark.parametrize("design", DESIGNS, ids=lambda d: d.name)
def test_nothing_is_predicted_from_itself_or_later(
    design: Design, codecs: dict[str, AffectCodec]
) -> None:
    codec = codecs[design.codec]
    layout = make_layout(design, codec, FRAMES)
    model = TokenModel(TINY, layout).eval()
    numbers = layout.encode(tokens_of(codec, design.stages, batch=1))
    bos = torch.full_like(numbers[..., :1], layout.bos)
    emotion = torch.zeros(1, dtype=torch.int64)
    step = layout.steps // 2
    changed = numbers.clone()
    changed[..., step:] = layout.bos
    with torch.no_grad():
        a, b = (
            model.hidden(torch.cat([bos, x[..., :-1]], -1), emotion) for x in (numbers, changed)
        )
    torch.testing.assert_close(a[:, : step + 1], b[:, : step + 1])
    assert not torch.allclose(a[:, step + 1 :], b[:, step + 1 :])


def test_likelihood_of_a_model_that_knows_nothing(codecs: dict[str, AffectCodec]) -> None:
    design = BY_NAME["bd-rfsq-flatten"]
    layout = make_layout(design, codecs["bd-rfsq"], FRAMES)
    model = TokenModel(TINY, layout)
    torch.nn.init.zeros_(model.codes.weight)
    nats = model.nats(
        layout.encode(tokens_of(codecs["bd-rfsq"], 2)), torch.zeros(3, dtype=torch.int64)
    )
    want = [3 * FRAMES * math.log(size) for size in layout.sizes]
    assert nats.tolist() == pytest.approx(want, rel=1e-5)
    assert layout.sizes == (8, 8, 64, 64)


@pytest.mark.parametrize("name", ["bd-rfsq-emotion_first", "bd-rfsq-delay", "rvq-flatten"])
def test_samples_are_tokens_and_keep_the_prompt(name: str, codecs: dict[str, AffectCodec]) -> None:
    design = BY_NAME[name]
    codec = codecs[design.codec]
    layout = make_layout(design, codec, FRAMES)
    model = TokenModel(TINY, layout).eval()
    tokens = tokens_of(codec, design.stages, batch=2)
    found = model.generate(
        torch.tensor([1, 2]), prompt=layout.encode(tokens), prompt_frames=5, guidance=2.0, seed=3
    )
    again = layout.decode(found)
    assert torch.equal(again.codes[..., :5], tokens.codes[..., :5])
    assert not torch.equal(again.codes[..., 5:], tokens.codes[..., 5:])
    assert codec.decode(again).shape == (2, 1, (FRAMES - 1) * 320)


def test_generation_sees_what_training_sees(codecs: dict[str, AffectCodec]) -> None:
    design = BY_NAME["bd-rfsq-delay"]
    layout = make_layout(design, codecs["bd-rfsq"], FRAMES)
    model = TokenModel(TINY, layout).eval()
    emotion = torch.tensor([3, 4])
    greedy = model.generate(emotion, top_k=1)
    bos = torch.full_like(greedy[..., :1], layout.bos)
    with torch.no_grad():
        hidden = model.hidden(torch.cat([bos, greedy[..., :-1]], -1), emotion)
    for row, start in enumerate(layout.starts):
        places = (layout.row[row] == row).nonzero()[:, 0]
        best = model.logits(hidden[:, places], row).argmax(-1) + start
        assert torch.equal(best, greedy[:, row, places])


def made_corpus(codec: AffectCodec, told: bool = True) -> Corpus:
    """Clips whose codes are all 1 or all 2: what comes next is known."""
    codes = [np.full((2, 40), 1 + i % 2, dtype=np.uint16) for i in range(8)]
    emotion = np.array([1 + i % 2 if told else 0 for i in range(8)])
    return Corpus([], codes, np.array([[0, 40]] * 8), emotion)


def test_learns_what_there_is_and_goes_on_where_it_was(
    codecs: dict[str, AffectCodec], tmp_path: Path
) -> None:
    design, codec = BY_NAME["bd-rfsq-flatten"], codecs["bd-rfsq"]
    plan = TrainPlan(steps=60, batch=4, frames=FRAMES, warmup=5, every=30, learning_rate=1e-2)
    whole = train(design, TINY, plan, made_corpus(codec), codec, tmp_path / "whole")
    bits = measure(whole, made_corpus(codec), codec)
    assert bits["bits_a_second"] < 0.1 * 50 * (3 + 3 + 6 + 6)
    assert bits["windows"] == 24  # 3 of 12 frames in each of 8 clips of 40 frames

    class Stop(Exception):
        pass

    class Cut(Corpus):
        def draw(self, *args: object, **more: object) -> list[tuple[int, int]]:
            if self.left[0] == 0:
                raise Stop
            self.left[0] -= 1
            return super().draw(*args, **more)  # type: ignore[arg-type]

        left = [45]  # noqa: RUF012

    parts = made_corpus(codec)
    with pytest.raises(Stop):
        train(design, TINY, plan, Cut(**vars(parts)), codec, tmp_path / "cut")
    resumed = train(design, TINY, plan, made_corpus(codec), codec, tmp_path / "cut")
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    with pytest.raises(ValueError, match="another size, budget or codec"):
        train(design, TINY, replace(plan, steps=61), made_corpus(codec), codec, tmp_path / "cut")


def test_tokens_are_kept_and_read_speech_has_no_emotion(
    codecs: dict[str, AffectCodec], tmp_path: Path
) -> None:
    manifest = corpus(tmp_path, train=1, test=0, takes=1)
    clips = read_manifests([manifest], split="train")
    found = tokenize(clips, codecs["bd-rfsq"], 2, tmp_path / "kept.npz")
    again = tokenize(clips, codecs["bd-rfsq"], 2, tmp_path / "kept.npz")
    assert [EMOTIONS[e] for e in found.emotion] == ["angry", "neutral", "sad"]
    assert all(np.array_equal(a, b) for a, b in zip(found.codes, again.codes, strict=True))
    assert np.array_equal(found.spans, again.spans)


@pytest.mark.slow
def test_one_command_end_to_end(
    codecs: dict[str, AffectCodec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = corpus(tmp_path, train=3, test=1)
    codecs["bd-rfsq"].save_pretrained(tmp_path / "weights")
    monkeypatch.setattr(recipe, "QUICK_MODEL", TINY)
    plan = TrainPlan(steps=3, batch=2, frames=40, warmup=1, every=2)
    monkeypatch.setattr(recipe, "QUICK_PLAN", plan)
    done = CliRunner().invoke(
        recipe.main,
        [
            str(manifest), "--out", str(tmp_path / "out"), "--weights", str(tmp_path / "weights"),
            "--quick", "--split", "test", "--design", "bd-rfsq-delay", "--design", "rvq-flatten",
            "--judge", "egemaps_svm", "--each", "2", "--cache", str(tmp_path / "cache"),
            "--threads", "1",
        ],
        catch_exceptions=False,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "`bd-rfsq-delay`" in done.output and "recordings through `rvq`" in done.output
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    found = results["designs"]["rvq-flatten"]
    assert found["told"]["bits_a_second"] > 0
    assert found["control"]["egemaps_svm"]["chance"] == pytest.approx(1 / 3)
    assert (tmp_path / "out" / "rvq-flatten" / "asked-angry.wav").is_file()
