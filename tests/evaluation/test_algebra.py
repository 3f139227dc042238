# SPDX-License-Identifier: Apache-2.0
"""Swaps on made-up tokens, and a judge whose answers are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from affectcodec.config import BDRFSQConfig, Block
from affectcodec.evaluation.algebra import CONDITIONS, compare, compare_words, main, markdown
from affectcodec.evaluation.algebra_tokens import (
    Trio,
    make_trios,
    speech_tokens,
    swap_acoustic,
    variants,
)
from affectcodec.evaluation.judges import FittedJudge, Judge
from affectcodec.manifest import Clip, read_manifest
from tests.codec_fixtures import tiny_codec
from tests.evaluation.sounds import corpus
from tests.tokens.clips import make_tokens

LIKE_SHIPPED = BDRFSQConfig(
    blocks=(Block("emotion", 4, (2, 2, 2)), Block("acoustic", 8, (4,) * 6)), num_stages=8
)


def clip(name: str, emotion: str, speaker: str = "a", text: str = "") -> Clip:
    return Clip(name, Path(name), "made", speaker, emotion=emotion, transcript=text, language="en")


@pytest.mark.parametrize(("stages", "moved"), [(4, 1), (8, 2)])
def test_acoustic_swap_moves_the_bits_of_an_emotion_swap(stages: int, moved: int) -> None:
    to, source = (make_tokens([n], stages, LIKE_SHIPPED, seed=n) for n in (11, 7))
    found = swap_acoustic(to, source)
    assert torch.equal(found.block_codes("emotion"), to.block_codes("emotion"))
    assert torch.equal(
        found.block_codes("acoustic")[:, moved:], to.block_codes("acoustic")[:, moved:]
    )
    index = [(2 * t + 1) * 7 // 22 for t in range(11)]
    want = source.block_codes("acoustic")[:, :moved, index]
    assert torch.equal(found.block_codes("acoustic")[:, :moved], want)
    late = swap_acoustic(to, source, last=True).block_codes("acoustic")
    assert torch.equal(late[:, :-moved], to.block_codes("acoustic")[:, :-moved])
    assert torch.equal(late[:, -moved:], source.block_codes("acoustic")[:, -moved:, index])
    bits = LIKE_SHIPPED.bits({"emotion": stages, "acoustic": moved})
    assert bits["emotion"] == bits["acoustic"]


def test_bits_that_no_acoustic_stage_has() -> None:
    to = make_tokens([5], 2, LIKE_SHIPPED)
    with pytest.raises(ValueError, match="no whole number of acoustic stages"):
        swap_acoustic(to, to)


def test_conditions() -> None:
    one, donor, neutral = (make_tokens([n], 4, LIKE_SHIPPED, seed=n) for n in (6, 9, 5))
    found = variants(one, donor, neutral)
    assert tuple(found) == CONDITIONS
    assert found["coded"] == one
    for name in ("emotion", "neutral"):
        assert torch.equal(found[name].block_codes("acoustic"), one.block_codes("acoustic"))
        assert not torch.equal(found[name].block_codes("emotion"), one.block_codes("emotion"))
    assert found["cut"].stages == {"emotion": 0, "acoustic": 4}


def test_trios_keep_speaker_and_sentence() -> None:
    clips = [
        clip("0", "neutral", text="x"), clip("1", "neutral", text="y"), clip("2", "sad", text="x"),
        clip("3", "angry", text="y"), clip("4", "sad", text="y"), clip("5", "sad", speaker="b"),
    ]  # fmt: skip
    trios = make_trios(clips, {c.file: float(i) for i, c in enumerate(clips)})
    assert [t.clip.path for t in trios] == ["0", "1", "2", "3", "4"]  # b has no other emotion
    for trio in trios:
        assert trio.donor.speaker == trio.clip.speaker == trio.neutral.speaker
        assert trio.donor.emotion != trio.clip.emotion
        assert trio.neutral.emotion == "neutral" and trio.neutral.file != trio.clip.file
    assert trios[1].donor.path == "4" or trios[1].donor.path == "3"  # the same sentence
    assert {t.donor.emotion for t in trios[:2]} == {"angry", "sad"}


class Line:
    """Decides by the sign of the only feature."""

    def decision_function(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(x[:, 0])

    def predict(self, x: np.ndarray) -> np.ndarray:
        return (x[:, 0] > 0).astype(int)


def known(moves: float) -> tuple[FittedJudge, list[Trio], list[dict[str, Any]]]:
    """Clips of class 0 at -1 +- 0.1; the emotion swap adds `moves`."""
    judge = Judge("line", "line", "feature", "svm", (1.0,))
    fitted = FittedJudge(judge, ("calm", "sad"), 1.0, 1.0, Line())
    trios, heard = [], []
    for i in range(12):
        own, donor = clip(f"{i}", "calm", f"s{i % 3}"), clip(f"d{i}", "sad", f"s{i % 3}")
        trios.append(Trio(own, donor, own))
        at = -1.0 + (0.1 if i % 2 else -0.1)
        values = {c: {"feature": np.array([at])} for c in CONDITIONS}
        values["emotion"] = {"feature": np.array([at + moves])}
        heard.append(values)
    return fitted, trios, heard


def test_what_is_moved_is_counted() -> None:
    found = compare(*known(2.0))
    assert found["clips"] == 12 and found["speakers"] == 3
    assert found["coded"]["uar"]["mean"] == 1.0 and found["emotion"]["uar"]["mean"] == 0.0
    assert found["emotion"]["moved"]["mean"] == 1.0 and found["acoustic"]["moved"]["mean"] == 0.0
    # the margin of two classes changes by twice the score: 4 over a deviation of 0.2
    assert found["emotion_over_acoustic"]["margin"]["mean"] == pytest.approx(20.0)
    assert found["emotion"]["changed"] == 1.0
    still = compare(*known(0.0))
    assert still["emotion_over_acoustic"]["moved"] == pytest.approx(
        {"mean": 0.0, "low": 0.0, "high": 0.0, "count": 12}
    )


def test_clips_that_were_not_heard_are_left_out() -> None:
    fitted, trios, heard = known(2.0)
    heard[0]["cut"] = {"feature": {"failed": "silent"}}
    assert compare(fitted, trios, heard)["clips"] == 11
    for one in heard:
        one["cut"] = {}
    with pytest.raises(ValueError, match="no clip"):
        compare(fitted, trios, heard)


def test_words() -> None:
    trio = Trio(clip("0", "sad", text="one two"), clip("1", "calm"), clip("2", "neutral"))
    said = {
        "coded": "one two",
        "emotion": "one",
        "acoustic": "no",
        "neutral": "one two",
        "cut": "no no",
    }
    heard: list[Any] = [{c: {"transcript": {"text": text}} for c, text in said.items()}]
    found = compare_words([trio], heard)["en"]
    assert found["coded"]["wer"]["mean"] == 0.0
    assert found["emotion"]["change"]["mean"] == 0.5 and found["cut"]["wer"]["mean"] == 1.0
    page = markdown({"judges": {"line": compare(*known(1.0))}, "words": {"en": found}})
    assert "0.500 [0.500, 0.500]" in page and "emotion less acoustic" in page


def test_tokens_of_speech_alone(tmp_path: Path) -> None:
    codec = tiny_codec()
    clips = read_manifest(corpus(tmp_path, train=1, test=0, takes=1), split="train")
    tokens = speech_tokens(codec, clips[0], 4)
    assert codec.decode(tokens).shape[-1] == int(tokens.num_samples[0])
    assert int(tokens.lengths[0]) == tokens.num_frames <= 62


@pytest.mark.slow
def test_one_command(tmp_path: Path) -> None:
    manifest = corpus(tmp_path, train=3, test=2)
    tiny_codec().save_pretrained(tmp_path / "weights")
    arguments = [
        str(manifest), "--weights", str(tmp_path / "weights"), "--words", "0", "--quiet",
        "--judge", "egemaps_svm", "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "kept"),
    ]  # fmt: skip
    first = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert first.exit_code == 0, first.output
    found = json.loads((tmp_path / "out" / "algebra.json").read_text())["judges"]["egemaps_svm"]
    assert found["clips"] == 12 and found["speakers"] == 2
    assert found["coded"]["changed"] == 0.0
    again = CliRunner().invoke(main, arguments, catch_exceptions=False)  # from the store
    assert again.output == first.output
