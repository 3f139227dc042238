# SPDX-License-Identifier: Apache-2.0
"""Probes on digits whose content is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from affectcodec.codec import AffectCodec
from affectcodec.evaluation.probes import (
    Probed,
    RSquared,
    digit_values,
    frame_targets,
    look_at,
    probe,
    prosody_features,
    quantizer_facts,
    recognise,
    regress,
    without_prosody,
)
from affectcodec.evaluation.token_use import join
from affectcodec.manifest import Clip, read_manifest
from tests.codec_fixtures import tiny_codec
from tests.evaluation.sounds import corpus

EMOTIONS = ("angry", "happy", "sad")


def made_up(seed: int, clips: int = 36, permute: bool = False) -> list[Probed]:
    """Emotion digits lean with the emotion and tell `energy`; acoustic ones tell the spectrum."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(9).standard_normal((12, 80))
    out = []
    for i in range(clips):
        emotion = i % 3
        speaker = f"{seed}-{i // 3 % 4}"
        label = EMOTIONS[rng.integers(3) if permute else emotion]
        own = np.sign(rng.standard_normal((50, 6)) + np.eye(6)[emotion] * 0.8).astype("f4")
        other = np.sign(rng.standard_normal((50, 12))).astype("f4")
        targets = {
            "log-mel": other @ mixing,
            "shape": other @ mixing,
            "energy": own[:, :1] * 2.0 + 1.0,
            "f0": np.where(np.arange(50)[:, None] % 2, np.nan, own[:, 1:2]),
            "voicing": (rng.random((50, 1)) < 0.5).astype(float),
        }
        clip = Clip(f"{i}", Path(f"{i}"), "made", speaker, emotion=label)
        digits = {"emotion": own, "acoustic": other}
        out.append(Probed(clip, digits, targets, np.arange(50) >= 5))
    return out


def test_known_r_squared() -> None:
    train, test = made_up(0), made_up(1)
    assert regress(train, test, "acoustic", "log-mel") == pytest.approx(1.0, abs=1e-3)
    assert regress(train, test, "emotion", "energy") == pytest.approx(1.0, abs=1e-3)
    assert regress(train, test, "emotion", "f0") == pytest.approx(1.0, abs=1e-3)
    for block, target in (("emotion", "log-mel"), ("acoustic", "energy"), ("emotion", "voicing")):
        assert -0.05 < regress(train, test, block, target) < 0.02


def test_half_of_the_variance() -> None:
    rng = np.random.default_rng(2)
    score = RSquared()
    for _ in range(20):
        x, noise = rng.standard_normal((2, 500, 3))
        score.add(x + noise, x)
    assert score.value() == pytest.approx(0.5, abs=0.03)
    assert np.isnan(RSquared().value())


def test_emotion_is_found_where_it_is() -> None:
    train, test = made_up(3), made_up(4, clips=60)
    found, classes = recognise(train, test, "emotion")
    assert classes == 3 and found > 0.95
    assert abs(recognise(train, test, "acoustic")[0] - 1 / 3) < 0.17


def test_permuted_labels_are_at_chance() -> None:
    found = [
        recognise(made_up(s, permute=True), made_up(s + 1, 90, permute=True), "emotion")[0]
        for s in (10, 20, 30, 40)
    ]
    assert abs(np.mean(found) - 1 / 3) < 0.09


def test_all_at_once() -> None:
    results = probe(made_up(5), made_up(6), ("emotion", "acoustic"))
    assert results["r2"]["acoustic"]["shape"] > 0.99 > 0.1 > results["r2"]["emotion"]["shape"]
    assert results["uar"]["made"]["blocks"]["emotion"] > 0.9
    assert results["uar"]["made"]["classes"] == 3


def test_what_prosody_explains_is_no_detail() -> None:
    """Digits that tell level and voicing find much of a spectrum which those move, and no detail
    of it; digits that tell the rest find all of the detail."""
    rng = np.random.default_rng(7)
    tilt = rng.standard_normal((1, 80))

    def with_level(clips: list[Probed]) -> list[Probed]:
        out = []
        for p in clips:
            moved = 4.0 * p.targets["energy"] + 3.0 * p.targets["voicing"] * tilt
            whole = 0.3 * p.targets["log-mel"] + moved
            out.append(replace(p, targets={**p.targets, "log-mel": whole}))
        return out

    found = probe(with_level(made_up(5)), with_level(made_up(6)), ("emotion", "acoustic"))["r2"]
    assert found["emotion"]["log-mel"] > 0.6 and found["prosody"]["log-mel"] > 0.8
    assert abs(found["emotion"]["detail"]) < 0.02 and abs(found["prosody"]["detail"]) < 0.02
    assert found["acoustic"]["detail"] > 0.97
    assert prosody_features(made_up(1)[0].targets).shape == (50, 21)


def test_without_a_frame_to_learn_from() -> None:
    silent = [replace(p, active=np.zeros(50, bool)) for p in made_up(1)]
    learned, scored = without_prosody(silent, made_up(2))
    assert np.isnan(scored[0].targets["detail"]).all()
    assert np.isnan(regress(learned, scored, "emotion", "detail"))


def test_targets_of_a_tone() -> None:
    t = np.arange(16000) / 16000
    wav = sum(0.1 * np.sin(2 * np.pi * 200 * k * t) / k for k in range(1, 10)).astype("f4")
    wav[:6400] = 0
    targets, active = frame_targets(wav, 51, 320)
    assert {name: value.shape for name, value in targets.items()} == {
        "log-mel": (51, 80),
        "shape": (51, 80),
        "f0": (51, 1),
        "voicing": (51, 1),
        "energy": (51, 1),
    }
    np.testing.assert_allclose(targets["f0"][25:45], np.log(200.0), atol=0.01)
    assert not targets["voicing"][:18].any() and targets["voicing"][23:48].all()
    assert np.isnan(targets["f0"][:18]).all()
    assert active[22:48].all() and not active[:18].any()
    rise = targets["energy"][30] - targets["energy"][10]
    assert rise > 5 and np.allclose(targets["shape"].mean(axis=1), 0)


def test_digits_come_in_stages_then_dims(tmp_path: Path) -> None:
    codec = tiny_codec()
    with torch.inference_mode():
        tokens = codec.encode(torch.randn(3200))
    values = digit_values(tokens)
    for block in codec.config.quantizer.blocks:
        found = values[block.name]
        stages, dims = codec.config.quantizer.num_stages, len(block.levels)
        assert found.shape == (int(tokens.lengths[0]), stages * dims)
        codes = tokens.block_codes(block.name)[0]
        for stage in range(stages):
            rest = codes[stage].clone()
            for dim, level in enumerate(block.levels):
                digit = (rest % level).double().numpy()
                np.testing.assert_allclose(
                    found[:, stage * dims + dim], 2 * digit / (level - 1) - 1, atol=1e-6
                )
                rest //= level


def test_a_codec_is_looked_at(tmp_path: Path) -> None:
    codec: AffectCodec = tiny_codec()
    clips = read_manifest(corpus(tmp_path, train=0, test=1, takes=1), split="test")
    seen = [look_at(codec, clip) for clip in clips]
    facts = quantizer_facts(codec, join([tokens for _, tokens in seen]))
    assert facts["isolated"] and not facts["leaks"]
    for block in codec.config.quantizer.blocks:
        bits = facts["bits"][block.name]
        most = codec.config.quantizer.num_stages * block.bits
        assert 0 <= bits["used"] <= bits["of"] == pytest.approx(most)
    short, tokens = look_at(codec, clips[0], 1)
    assert tokens.codes.shape[1] == 1
    assert short.digits["emotion"].shape[1] == len(codec.config.quantizer.blocks[0].levels)
