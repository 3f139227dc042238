# SPDX-License-Identifier: Apache-2.0
"""The run: cache, resume, delay, processes, report, command line."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from affectcodec.audio import save_audio
from affectcodec.evaluation.alignment import shift
from affectcodec.evaluation.baselines import Coded
from affectcodec.evaluation.controls import PassThrough
from affectcodec.evaluation.metrics import METRICS
from affectcodec.evaluation.reconstruct import Row, RowStore, calibrate, run
from affectcodec.evaluation.reconstruction import main
from affectcodec.evaluation.report import summarise, verdict
from affectcodec.manifest import Clip, read_manifest

for package in ("pesq", "pystoi", "swift_f0"):
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed", allow_module_level=True)


def speech(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    t = np.arange(20000) / 16000
    f0 = 120 + 20 * seed + 30 * np.sin(2 * np.pi * t)
    phase = 2 * np.pi * np.cumsum(f0) / 16000
    tone = sum(np.sin(k * phase) / k for k in range(1, 20))
    syllables = np.clip(np.sin(2 * np.pi * 3 * t + seed) + 0.4, 0, None)
    return (0.05 * syllables * (tone + 0.2 * rng.standard_normal(len(t)))).astype("f4")


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    lines = ["path,dataset,speaker,split"]
    for i in range(4):
        save_audio(tmp_path / f"{i}.wav", speech(i), 16000)
        lines.append(f"{i}.wav,{'a' if i < 3 else 'b'},s{i % 2},dev")
    path = tmp_path / "manifest.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def clips(manifest: Path) -> list[Clip]:
    return read_manifest(manifest, split="dev")


@dataclass
class Noisy:
    """Adds noise, and comes `late` samples late."""

    level: float = 0.01
    late: int = 240
    calls: list[int] = field(default_factory=list)
    name: str = "noisy"

    @property
    def fingerprint(self) -> str:
        return f"{self.name}-{self.level}-{self.late}"

    def roundtrip(self, wav: np.ndarray) -> Coded:
        self.calls.append(len(wav))
        noise = np.random.default_rng(0).standard_normal(len(wav)) * self.level
        return Coded(shift((wav + noise).astype("f4"), -self.late, len(wav) + 500), 1000.0)


def test_delay_is_found_and_removed(clips: list[Clip], tmp_path: Path) -> None:
    codec = Noisy(level=0.001)
    delay = calibrate(codec, clips)
    assert (delay.samples, delay.lowest, delay.highest, delay.clips) == (240, 240, 240, 4)
    store = RowStore(tmp_path / "rows.jsonl")
    aligned = run(clips[:1], [codec], {"noisy": 240}, store, progress=False)[0]
    late = run(clips[:1], [codec], {"noisy": 0}, store, progress=False)[0]
    assert aligned.values["stoi"] > 0.95 > late.values["stoi"]
    assert aligned.values["mel_db"] < late.values["mel_db"]
    assert aligned.seconds == 1.25 and aligned.bits == 1000.0


def test_resume_measures_only_what_is_missing(clips: list[Clip], tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    codec = Noisy()
    first = run(clips[:2], [codec], {"noisy": 240}, RowStore(path), progress=False)
    assert len(codec.calls) == 2
    with path.open("a") as file:
        file.write('{"key": "cut off')  # as a crash leaves it
    other = PassThrough("original", 16000)
    delays = {"noisy": 240, "original": 0}
    rows = run(clips, [codec, other], delays, RowStore(path), progress=False)
    assert len(codec.calls) == 4 and len(rows) == 8
    assert [r for r in rows if r.codec == "noisy"][:2] == first
    again = run(clips, [codec, other], delays, RowStore(path), progress=False)
    assert again == rows and len(codec.calls) == 4
    # another codec under the same name is not taken from the cache
    changed = Noisy(level=0.05)
    run(clips[:1], [changed], {"noisy": 240}, RowStore(path), progress=False)
    assert len(changed.calls) == 1


def test_rows_survive_json_with_missing_values() -> None:
    row = Row("k", "c", "p", "d", "s", "", 8.0, 1.0, {"stoi": float("nan")}, {"stoi": "short"})
    back = Row.from_json(row.to_json())
    assert np.isnan(back.values["stoi"]) and back.failures == row.failures
    assert "NaN" not in row.to_json()


def test_processes_give_what_one_process_gives(clips: list[Clip], tmp_path: Path) -> None:
    codecs = [PassThrough("narrowband", 8000)]
    delays = {"narrowband": 0}
    one = run(clips[:2], codecs, delays, RowStore(tmp_path / "1.jsonl"), progress=False)
    two = run(clips[:2], codecs, delays, RowStore(tmp_path / "2.jsonl"), jobs=2, progress=False)
    assert len(one) == len(two) == 2
    for a, b in zip(one, two, strict=True):
        # Matrix libraries round by thread count: the last digit of a correlation may differ.
        assert b.values == pytest.approx(a.values, rel=1e-9, nan_ok=True)
        assert dataclasses.replace(b, values=a.values) == a


def test_failing_worker_is_reported(clips: list[Clip], tmp_path: Path) -> None:
    clips[1].file.write_bytes(b"no audio")
    store = RowStore(tmp_path / "rows.jsonl")
    with pytest.raises(RuntimeError, match=r"1\.wav"):
        run(clips[:2], [PassThrough("original", 16000)], {"original": 0}, store, jobs=2)


def rows_of(codec: str, stoi: list[float]) -> list[Row]:
    rows = []
    for i, value in enumerate(stoi):
        values = {m.name: 1.0 for m in METRICS} | {"stoi": value}
        failures = {"stoi": "too short"} if np.isnan(value) else {}
        rows.append(Row("k", codec, f"{i}", "d", f"s{i % 3}", "", 1500.0, 2.0, values, failures))
    return rows


def test_summary_pairs_clips_and_counts_failures() -> None:
    a = rows_of("a", [0.8, 0.7, 0.9, float("nan"), 0.6, 0.8])
    b = rows_of("b", [0.7, 0.6, 0.8, 0.5, 0.5, 0.7])
    summary = summarise(a + b, ["a", "b"], [("a", "b")])
    group = summary["all"]
    assert list(summary) == ["all"] and group["clips"] == 6 and group["speakers"] == 3
    assert group["codecs"]["a"]["kbps"] == pytest.approx(0.75)
    assert group["codecs"]["a"]["metrics"]["stoi"]["count"] == 5
    assert group["codecs"]["a"]["failures"] == {"stoi": {"too short": 1}}
    difference = group["comparisons"][0]["difference"]["stoi"]
    # the same 0.1 on every clip: the pairing leaves no width, whatever the clips differ
    assert difference["mean"] == pytest.approx(0.1) and difference["low"] == pytest.approx(0.1)
    assert difference["count"] == 5
    stoi = next(m for m in METRICS if m.name == "stoi")
    assert verdict(stoi, difference, 6) == "better"
    with pytest.raises(ValueError, match="same clips"):
        summarise(a + b[1:], ["a", "b"], [])


def test_verdict_knows_the_direction() -> None:
    rmse = next(m for m in METRICS if m.name == "f0_rmse_cents")
    assert verdict(rmse, {"low": -5.0, "high": -1.0, "count": 3}, 3) == "better"
    assert verdict(rmse, {"low": 1.0, "high": 2.0, "count": 3}, 3) == "worse"
    assert verdict(rmse, {"low": -1.0, "high": 2.0, "count": 3}, 3) == "open"
    # one clip that happened to be voiced in both decides nothing
    assert verdict(rmse, {"low": -5.0, "high": -1.0, "count": 1}, 6) == "open"


def test_command_writes_table_and_json(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = ["--manifest", str(manifest), "--codecs", "original,narrowband", "--quiet"]
    arguments += ["--compare", "narrowband=original", "--out", str(out)]
    assert main(arguments) == 0
    page = capsys.readouterr().out
    assert page.rstrip("\n") == (out / "results.md").read_text().rstrip("\n")
    assert "python -m affectcodec.evaluation.reconstruction --manifest" in page
    assert str(tmp_path) not in page
    assert "| `narrowband` | 128.00 |" in page and "## a: 3 clips" in page
    results = json.loads((out / "results.json").read_text())
    codecs = results["results"]["all"]["codecs"]
    assert codecs["original"]["metrics"]["pesq_wb"]["mean"] > 4.5
    assert codecs["narrowband"]["metrics"]["mel_4k_db"]["mean"] < 1.0
    assert codecs["narrowband"]["metrics"]["mel_db"]["mean"] > 3.0
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 1 and "--resume" in capsys.readouterr().err
    assert main([*arguments, "--resume"]) == 0
    assert (out / "results.md").read_text().rstrip("\n") == page.rstrip("\n")


def test_command_names_what_is_wrong(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--manifest", str(manifest), "--out", str(tmp_path / "o")]
    for extra, says in (
        (["--codecs", "mp3:9"], "unknown"),
        (["--codecs", "original", "--compare", "original=opus:6"], "CODEC=CODEC"),
        (["--codecs", "original", "--split", "test"], "no clip"),
        (["--codecs", "original", "--jobs", "0"], "jobs"),
    ):
        with pytest.raises(SystemExit):
            main([*common, *extra])
        assert says in capsys.readouterr().err
    assert not (tmp_path / "o").exists()
