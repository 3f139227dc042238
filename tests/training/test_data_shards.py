# SPDX-License-Identifier: Apache-2.0
"""Tar shards as a stream: every sample once a pass, damage survived, a place to go back to."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from affectcodec.training.data import EMOTIONS
from affectcodec.training.data_shards import Place, ShardStream, expand_shards
from tests.codec_fixtures import speech_like, tiny_config
from tests.training.bad_data import RATE, wav_bytes

pytest.importorskip("webdataset")


def write_shard(path: Path, members: list[tuple[str, bytes]]) -> str:
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return str(path)


def tone_of(number: int) -> bytes:
    """A clip that can be told by its length."""
    return wav_bytes(speech_like(RATE // 2 + 320 * number, number).numpy())


def write_shards(folder: Path, shards: int = 3, clips: int = 2) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for shard in range(shards):
        members = []
        for clip in range(clips):
            number = shard * clips + clip
            members.append((f"clip{number}.wav", tone_of(number)))
            label = {"emotion": EMOTIONS[number % 8], "speaker": f"s{number}"}
            members.append((f"clip{number}.json", json.dumps(label).encode()))
        paths.append(write_shard(folder / f"part-{shard:03d}.tar", members))
    return paths


def stream(shards: list[str], **how) -> ShardStream:
    return ShardStream("tars", shards, tiny_config(), **{"seed": 5, "pool": 2, "rate": 1, **how})


def number_of(piece) -> int:
    return (len(piece.pcm) - RATE // 2) // 320


def test_shards_are_named_by_ranges_patterns_and_folders(tmp_path: Path) -> None:
    paths = write_shards(tmp_path, clips=1)
    assert expand_shards([str(tmp_path / "part-{000..002}.tar")]) == paths
    assert expand_shards([str(tmp_path / "part-*.tar")]) == paths
    assert expand_shards([str(tmp_path), paths[1]]) == paths
    assert expand_shards(["https://there/{0..1}.tar"]) == [f"https://there/{i}.tar" for i in (0, 1)]
    for nothing in (str(tmp_path / "none-*.tar"), str(tmp_path.parent / "empty")):
        Path(tmp_path.parent / "empty").mkdir(exist_ok=True)
        with pytest.raises(ValueError, match="names no tar file"):
            expand_shards([nothing])


def test_a_pass_has_every_sample_once_and_labels_belong_to_it(tmp_path: Path) -> None:
    shards = write_shards(tmp_path)
    source = stream(shards)._pieces(Place())
    for _ in range(2):
        got = [next(source)[1] for _ in range(6)]
        assert sorted(map(number_of, got)) == list(range(6))
        assert all(piece.emotion == number_of(piece) for piece in got)


def test_readers_share_the_shards(tmp_path: Path) -> None:
    shards = write_shards(tmp_path)
    parts = [stream(shards, part=part, parts=3).order(0) for part in range(3)]
    assert sorted(shard for part in parts for shard in part) == sorted(shards)
    assert len({tuple(stream(shards).order(epoch)) for epoch in range(8)}) > 1
    with pytest.raises(ValueError, match="has 3 for 4 readers"):
        stream(shards, part=0, parts=4)


def test_a_stream_goes_on_from_a_place(tmp_path: Path) -> None:
    shards = write_shards(tmp_path, shards=4, clips=3)
    whole = stream(shards, pool=5, rate=2)
    whole.fill()
    rng = np.random.default_rng(0)
    for _ in range(7):
        whole.advance()
    place = whole.place()
    again = stream(shards, pool=5, rate=2)
    again.seek(place)
    for step in range(12):
        state = rng.bit_generator.state
        a = whole.draw(rng)
        rng.bit_generator.state = state
        b = again.draw(rng)
        assert number_of(a) == number_of(b), step
        whole.advance()
        again.advance()
        assert whole.place() == again.place()


def test_damage_costs_what_is_damaged(tmp_path: Path) -> None:
    shards = write_shards(tmp_path, shards=1)
    whole = Path(shards[0]).read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[: len(whole) // 3])
    (tmp_path / "noise.tar").write_bytes(np.random.default_rng(0).bytes(5000))
    (tmp_path / "nothing.tar").write_bytes(b"")
    odd = write_shard(
        tmp_path / "odd.tar",
        [
            ("text.txt", b"no audio"),
            ("empty.wav", b""),
            ("broken.flac", b"fLaC not really"),
            ("bad-label.wav", tone_of(7)),
            ("bad-label.json", b"{"),
            ("silent.wav", wav_bytes(np.zeros(RATE, np.float32))),
            ("twice.wav", tone_of(8)),
            ("twice.wav", tone_of(8)),
        ],
    )
    names = ["cut.tar", "noise.tar", "nothing.tar", "missing.tar"]
    source = stream([*shards, *(str(tmp_path / name) for name in names), odd])
    pieces = source._pieces(Place())
    numbers = {number_of(next(pieces)[1]) for _ in range(12)}
    assert numbers == {0, 1, 7, 8}
    skipped = {item: "; ".join(reasons) for item, reasons in source.report.skipped.items()}
    for name in ("cut.tar", "noise.tar", "nothing.tar", "missing.tar", "odd.tar"):
        assert "damaged" in skipped[str(tmp_path / name)], name
    for member, words in {
        "text": "holds no audio",
        "empty.wav": "empty",
        "broken.flac": "cannot be decoded",
        "silent.wav": "no active speech",
    }.items():
        assert words in skipped[f"{odd}:{member}"]
    assert "used without its labels" in source.report.noted[f"{odd}:bad-label"][0]


def test_a_stream_without_a_usable_clip_is_an_error(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "a.tar", [("x.wav", b"no sound")])
    with pytest.raises(ValueError, match="none of the samples of 'tars' can be used"):
        stream([shard]).fill()
