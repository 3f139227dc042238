# SPDX-License-Identifier: Apache-2.0
"""Training the emotion head where the answer is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from affectcodec.evaluation.emotion_head import (
    as_tokens,
    emotion_codes,
    fit_head,
    markdown,
    read_statistics,
)
from affectcodec.manifest import read_manifest
from affectcodec.tokens.emotion_reader import EmotionReader
from tests.codec_fixtures import tiny_codec
from tests.evaluation.sounds import corpus


def rings(seed: int, count: int = 300) -> tuple[np.ndarray, list[str]]:
    """Two classes that no line separates: near the origin and around it."""
    rng = np.random.default_rng(seed)
    inner = rng.random(count) < 0.5
    angle, radius = rng.uniform(0, 6.28, count), np.where(inner, 0.5, 2.0)
    x = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
    return x + 0.1 * rng.standard_normal(x.shape), ["in" if i else "out" for i in inner]


@pytest.mark.parametrize("third", [False, True])
def test_finds_what_no_line_separates(third: bool) -> None:
    reader = EmotionReader.of(tiny_codec())
    x, labels = rings(0)
    y, wanted = rings(1)
    if third:
        x, labels = np.concatenate([x, x[:60] + 9.0]), labels + ["far"] * 60
        y, wanted = np.concatenate([y, y[:30] + 9.0]), wanted + ["far"] * 30
    head = fit_head(reader, x, labels, landmarks=80, gamma=2.0)
    answers = [head.classes[i] for i in head.logits_of(torch.from_numpy(y)).argmax(1)]
    assert np.mean([a == b for a, b in zip(answers, wanted, strict=True)]) > 0.97


def test_one_class_is_refused() -> None:
    with pytest.raises(ValueError, match="two or more"):
        fit_head(EmotionReader.of(tiny_codec()), np.zeros((4, 3)), ["sad"] * 4)


def test_codes_are_those_of_the_codec_and_kept(tmp_path: Path) -> None:
    codec = tiny_codec()
    clips = read_manifest(corpus(tmp_path, train=1, test=0, takes=1), split="train")
    cache = tmp_path / "work" / "train.npz"
    found = emotion_codes(codec, clips, 2, (1.0, 1.1), cache, quiet=True)
    assert len(found) == 2 * len(clips)
    assert found[1].shape[1] == pytest.approx(found[0].shape[1] / 1.1, abs=2)
    tokens = as_tokens(codec, found[0])
    assert np.array_equal(tokens.block_codes("emotion")[0].numpy(), found[0])
    stamp = cache.stat().st_mtime_ns
    again = emotion_codes(codec, clips, 2, (1.0, 1.1), cache, quiet=True)
    assert all(np.array_equal(a, b) for a, b in zip(found, again, strict=True))
    assert cache.stat().st_mtime_ns == stamp
    emotion_codes(codec, clips, 2, (1.0,), cache, quiet=True)
    assert cache.stat().st_mtime_ns != stamp
    values = read_statistics(codec, EmotionReader.of(codec), found, quiet=True)
    assert values.shape[0] == len(found) and np.isfinite(values).all()


def test_table() -> None:
    estimate = {"mean": 0.5, "low": 0.4, "high": 0.6, "count": 9}
    found = {
        "clips": 9, "speakers": 2, "classes": 3, "judge": 0.5, "uar": estimate, "kept": estimate,
    }  # fmt: skip
    assert "0.500 [0.400, 0.600]" in markdown({"made": found})
