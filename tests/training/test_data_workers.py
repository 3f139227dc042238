# SPDX-License-Identifier: Apache-2.0
"""Work in processes that a bad item may kill: order, results, and who is to blame."""

from __future__ import annotations

from pathlib import Path

import pytest

from affectcodec.training.cache import Clip, ClipCache
from affectcodec.training.data_workers import DIED, map_isolated
from tests.codec_fixtures import speech_like, tiny_config
from tests.training.bad_data import RATE, CrashingClip, wav_bytes
from tests.training.deadly import square_or_die


@pytest.mark.parametrize("items", [[], [3], list(range(20))])
def test_results_come_in_order(items: list[int]) -> None:
    want = [(x, x * x, "") for x in items]
    assert list(map_isolated(square_or_die, items, 1)) == want
    assert list(map_isolated(square_or_die, items, 2)) == want


def test_only_the_item_that_kills_is_lost() -> None:
    items = [1, 2, -1, 4, -2, 6, 7]
    got = list(map_isolated(square_or_die, items, 2))
    assert got == [(x, None if x < 0 else x * x, DIED if x < 0 else "") for x in items]


@pytest.mark.slow
def test_a_decoder_that_crashes_costs_one_clip(tmp_path: Path) -> None:
    clips: list[Clip] = []
    for seed in range(3):
        path = tmp_path / f"{seed}.wav"
        path.write_bytes(wav_bytes(speech_like(RATE, seed).numpy()))
        clips.append((CrashingClip if seed == 1 else Clip)(str(path), "x", "", -1))
    cache = ClipCache.build(clips, tiny_config(), tmp_path / "cache", progress=False, workers=2)
    assert [Path(clip.path).name for clip in cache.clips] == ["0.wav", "2.wav"]
    assert cache.skipped == [[str(tmp_path / "1.wav"), DIED]]
