# SPDX-License-Identifier: Apache-2.0
"""Parts, plans and manifests: what is written, that it is exact, and that nothing is lost."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

pq = pytest.importorskip("pyarrow.parquet")

from affectcodec.audio import load_audio  # noqa: E402
from affectcodec.corpus import work  # noqa: E402
from affectcodec.corpus.finish import finish, missing_parts, verify  # noqa: E402
from affectcodec.corpus.parts import part_path, remove_leftovers, summarize  # noqa: E402
from affectcodec.corpus.plan import Plan, PlanError, Settings  # noqa: E402
from affectcodec.corpus.sources import read_part  # noqa: E402
from affectcodec.corpus.work import do_part, tokenize  # noqa: E402
from tests.corpus.corpora import (  # noqa: E402
    make_folder,
    save_codec,
    settings_for,
    snapshot,
    wav_bytes,
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("weights")


@pytest.fixture(scope="module")
def codec(weights):
    return save_codec(weights)


def run(folder: Path, settings: Settings, codec) -> Plan:
    plan = Plan.make(folder, settings)
    for number, part in plan.parts():
        do_part(folder, number, part, settings, codec)
    return plan


@pytest.mark.parametrize("file_format", ["parquet", "tar"])
def test_a_run_holds_every_clip_once(tmp_path, weights, codec, file_format) -> None:
    make_folder(tmp_path / "in", 11)
    settings = settings_for(tmp_path / "in", weights, codec, format=file_format)
    plan = run(tmp_path / "out", settings, codec)
    manifest = finish(plan, codec.config.sample_rate)
    assert (manifest["clips"], manifest["rejected"], plan.count) == (9, 2, 3)
    assert len(manifest["files"]) == 3 and not verify(tmp_path / "out")
    table = pq.read_table(tmp_path / "out" / "quarantine.parquet").to_pylist()
    assert [row["id"] for row in table] == ["speaker0/clip0004.wav", "speaker1/clip0009.wav"]
    assert all("cannot be decoded" in row["reason"] for row in table)


def test_codes_are_those_of_the_codec(tmp_path, weights, codec) -> None:
    make_folder(tmp_path / "in", 4)
    settings = settings_for(tmp_path / "in", weights, codec)
    run(tmp_path / "out", settings, codec)
    rows = pq.read_table(part_path(tmp_path / "out", 0, "parquet")).to_pylist()
    assert len(rows) == 4
    for row in rows:
        wave, _ = load_audio(tmp_path / "in" / row["id"])
        alone = codec.encode(torch.from_numpy(wave), stages=2)
        assert np.array_equal(np.array(row["codes"]), alone.codes[0].numpy())
        assert (row["num_samples"], row["num_frames"]) == (len(wave), int(alone.lengths))
        assert json.loads(row["metadata"]) == {}


def test_output_does_not_depend_on_how_clips_are_pooled(tmp_path, weights, codec, monkeypatch):
    make_folder(tmp_path / "in", 12)
    settings = settings_for(tmp_path / "in", weights, codec, clips_per_part=12)
    run(tmp_path / "a", settings, codec)
    monkeypatch.setattr(work, "_POOL_SECONDS", 0.2)
    monkeypatch.setattr(work, "BATCH_SECONDS", 0.15)
    run(tmp_path / "b", settings, codec)
    assert snapshot(tmp_path / "a") == snapshot(tmp_path / "b")


def test_resuming_does_only_what_is_missing(tmp_path, weights, codec) -> None:
    make_folder(tmp_path / "in", 11)
    settings = settings_for(tmp_path / "in", weights, codec)
    plan = run(tmp_path / "out", settings, codec)
    finish(plan, 16000)
    whole = snapshot(tmp_path / "out")
    part_path(tmp_path / "out", 1, "parquet").unlink()
    (tmp_path / "out" / "tokens" / ".part-000002.parquet.1.tmp").write_bytes(b"half")
    with pytest.raises(ValueError, match="1 of 3 parts are missing"):
        finish(plan, 16000)
    assert missing_parts(plan) == [1]
    assert remove_leftovers(tmp_path / "out") == 1
    before = part_path(tmp_path / "out", 0, "parquet").stat().st_mtime_ns
    finish(run(tmp_path / "out", settings, codec), 16000)
    assert part_path(tmp_path / "out", 0, "parquet").stat().st_mtime_ns == before
    assert snapshot(tmp_path / "out") == whole


def test_another_plan_is_refused(tmp_path, weights, codec) -> None:
    make_folder(tmp_path / "in", 3)
    Plan.make(tmp_path / "out", settings_for(tmp_path / "in", weights, codec))
    other = settings_for(tmp_path / "in", weights, codec, clips_per_part=5)
    with pytest.raises(PlanError, match="clips_per_part: 4 then, 5 now"):
        Plan.make(tmp_path / "out", other)
    (tmp_path / "in" / "late.wav").write_bytes(wav_bytes(500))
    with pytest.raises(PlanError, match="lists other clips"):
        Plan.make(tmp_path / "out", settings_for(tmp_path / "in", weights, codec))


def test_plans_that_cannot_be_read(tmp_path) -> None:
    with pytest.raises(PlanError, match=r"holds no plan.jsonl"):
        Plan.load(tmp_path)
    (tmp_path / "plan.jsonl").write_text('{"kind": "files", "cli')
    with pytest.raises(PlanError, match="damaged"):
        Plan.load(tmp_path)


def test_a_long_plan_is_read_line_by_line(tmp_path, weights, codec) -> None:
    lines = "".join(f"some/folder/clip{i:06d}.wav\n" for i in range(5000))
    (tmp_path / "m.csv").write_text("path\n" + lines)
    settings = settings_for(tmp_path / "m.csv", weights, codec, clips_per_part=7)
    made = Plan.make(tmp_path / "out", settings)
    assert Plan.load(tmp_path / "out") == made
    assert sum(len(part["clips"]) for _, part in made.parts()) == 5000


def test_clips_that_are_set_aside(tmp_path, weights, codec) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "empty.wav").write_bytes(b"")
    (tmp_path / "in" / "long.wav").write_bytes(wav_bytes(16000 * 3))
    (tmp_path / "in" / "short.wav").write_bytes(wav_bytes(1))
    (tmp_path / "in" / "gone.wav").symlink_to(tmp_path / "nowhere")
    (tmp_path / "m.csv").write_text(
        "path\nin/empty.wav\nin/long.wav\nin/short.wav\nin/gone.wav\nin/long.wav\n"
    )
    settings = settings_for(tmp_path / "m.csv", weights, codec, max_seconds=2.0)
    plan = Plan.make(tmp_path / "out", settings)
    found = [tokenize(read_part(part), settings, codec) for _, part in plan.parts()]
    assert [row.id for result in found for row in result.rows] == ["in/short.wav"]
    reasons = {r.id: r.reason for result in found for r in result.rejected}
    assert "longer than 2 s: 3 s" in reasons["in/long.wav"] or "earlier" in reasons["in/long.wav"]
    assert "no file" in reasons["in/gone.wav"]
    assert len([r for result in found for r in result.rejected]) == 4


def test_a_clip_the_codec_refuses_does_not_take_its_neighbours(
    tmp_path, weights, codec, monkeypatch
) -> None:
    make_folder(tmp_path / "in", 4)
    settings = settings_for(tmp_path / "in", weights, codec)
    plan = Plan.make(tmp_path / "out", settings)
    encode = type(codec).encode

    def moody(self, wav, *args, **kwargs):
        if int(kwargs["lengths"].max()) > 1600 or len(wav) > 1:
            raise ValueError("wav: the encoder's latent is NaN")
        return encode(self, wav, *args, **kwargs)

    monkeypatch.setattr(type(codec), "encode", moody)
    result = tokenize(read_part(next(plan.parts())[1]), settings, codec)
    assert [row.id[-8:] for row in result.rows] == ["0000.wav", "0002.wav", "0001.wav"]
    assert [r.reason for r in result.rejected] == ["wav: the encoder's latent is NaN"]


def test_damage_is_found(tmp_path, weights, codec) -> None:
    make_folder(tmp_path / "in", 6)
    plan = run(tmp_path / "out", settings_for(tmp_path / "in", weights, codec), codec)
    with pytest.raises(ValueError, match=r"holds no manifest.json"):
        verify(tmp_path / "out")
    finish(plan, 16000)
    path = part_path(tmp_path / "out", 0, "parquet")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="damaged"):
        summarize(tmp_path / "out", 0, "parquet")
    part_path(tmp_path / "out", 1, "parquet").unlink()
    wrong = verify(tmp_path / "out")
    assert len(wrong) == 2 and "damaged" in wrong[0]


def test_datasets_reads_the_result(tmp_path, weights, codec) -> None:
    datasets = pytest.importorskip("datasets")
    make_folder(tmp_path / "in", 6)
    run(tmp_path / "out", settings_for(tmp_path / "in", weights, codec), codec)
    data = datasets.load_dataset(
        "parquet",
        data_dir=str(tmp_path / "out" / "tokens"),
        split="train",
        cache_dir=str(tmp_path / "cache"),
    )
    assert len(data) == 5
    assert np.array(data[0]["codes"]).shape == (2, data[0]["num_frames"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "csv"}, "format: wanted one of"),
        ({"clips_per_part": 0}, "clips_per_part: wanted 1 or more"),
        ({"max_seconds": 0}, "max_seconds: wanted more than 0"),
    ],
)
def test_settings_that_are_refused(tmp_path, weights, codec, change, message) -> None:
    with pytest.raises(ValueError, match=message):
        settings_for(tmp_path, weights, codec, **change)
