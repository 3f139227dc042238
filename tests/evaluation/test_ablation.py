# SPDX-License-Identifier: Apache-2.0
"""Plan, budget and sittings of ablation runs."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from affectcodec.evaluation import ablation
from affectcodec.evaluation.ablation import (
    Ledger,
    Run,
    budget,
    check_equal,
    decoded_seconds,
    is_done,
    plan_runs,
    steps_of,
    train_all,
    train_command,
    train_run,
)
from tests.training.sounds import tiny_run

# what stands in for training: a checkpoint at half of the steps, then the weights
SCRIPT = """
import pathlib, sys, time
folder, mode = pathlib.Path(sys.argv[1]), sys.argv[2]
if mode == "fail":
    print("no such clip"); sys.exit(1)
def checkpoint(step):
    (folder / f"step-{step:08d}").mkdir(parents=True, exist_ok=True)
    (folder / f"step-{step:08d}" / "state.json").write_text("{}")
begun = list(folder.glob("step-*"))
checkpoint(3)
if mode == "stop" and not begun:
    sys.exit(130)
if mode == "wait":
    time.sleep(60)
checkpoint(6)
(folder / "weights").mkdir(exist_ok=True)
(folder / "weights" / "config.json").write_text("{}")
"""


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Replaces training; the mapping says how: label -> done, stop (once), wait or fail."""
    modes: dict[str, str] = {}

    def command(run: Run, folder: Path, *_: Any) -> list[str]:
        return [sys.executable, "-c", SCRIPT, str(folder), modes.get(run.label, "done")]

    monkeypatch.setattr(ablation, "train_command", command)
    return modes


def runs(**changes: Any) -> list[Run]:
    return plan_runs(tiny_run(), **changes)


def test_the_plan_trains_first_seeds_first() -> None:
    found = [run.label for run in runs(seeds=2)]
    assert found[:5] == ["rvq-s1", "rfsq-s1", "bd-rfsq-s1", "bd-rfsq+mrt-s1", "bd-rfsq+mrt+cem-s1"]
    assert found[5:] == ["rfsq-s2", "bd-rfsq-s2"]  # the headline pair alone
    assert {run.config.seed for run in runs(seeds=2)} == {1, 2}
    assert [run.label for run in runs(names=["rvq"], other_seeds=2)] == ["rvq-s1", "rvq-s2"]
    with pytest.raises(ValueError, match=r"\['magic'\]"):
        runs(names=["magic"])
    with pytest.raises(ValueError, match="1 or more"):
        runs(seeds=0)


def test_bits_and_budget_are_equal_or_it_is_an_error() -> None:
    planned = runs()
    check_equal(planned)
    config = planned[0].config
    wanted = 6 * 2 * 24 * config.codec.hop_length / 16000
    assert decoded_seconds(config) == pytest.approx(wanted)
    longer = dataclasses.replace(planned[0], config=dataclasses.replace(config, steps=7))
    with pytest.raises(ValueError, match="decoded seconds differ"):
        check_equal([longer, *planned[1:]])


def test_a_sitting_goes_on_where_the_last_one_stopped(
    tmp_path: Path, stand_in: dict[str, str]
) -> None:
    planned = runs(names=["rfsq", "bd-rfsq"], seeds=1)
    stand_in["bd-rfsq-s1"] = "stop"
    ledger, said = Ledger(tmp_path, planned), []
    assert not train_all(planned, tmp_path, [], ledger, say=said.append)
    assert [is_done(tmp_path, run) for run in planned] == [True, False]
    assert [steps_of(tmp_path, run) for run in planned] == [6, 3]
    again = Ledger(tmp_path, planned)
    assert again.spent["rfsq-s1"]["steps"] == 6 and again.spent["bd-rfsq-s1"]["steps"] == 3
    said.clear()
    assert train_all(planned, tmp_path, [], again, say=said.append)
    assert said == ["bd-rfsq-s1: from step 3 of 6"]  # what is finished is left alone
    assert again.spent["bd-rfsq-s1"]["steps"] == 6
    assert train_all(planned, tmp_path, [], again, say=said.append) and len(said) == 1


def test_a_run_is_interrupted_when_its_time_is_over(
    tmp_path: Path, stand_in: dict[str, str]
) -> None:
    (run,) = runs(names=["rvq"])
    stand_in[run.label] = "wait"
    assert not train_run(run, tmp_path, [], seconds=1.0)
    assert not is_done(tmp_path, run)


def test_no_time_left_starts_nothing(tmp_path: Path, stand_in: dict[str, str]) -> None:
    planned = runs(names=["rfsq"], seeds=1)
    assert not train_all(planned, tmp_path, [], Ledger(tmp_path, planned), hours=0.0)
    assert steps_of(tmp_path, planned[0]) == 0


def test_failed_training_says_why(tmp_path: Path, stand_in: dict[str, str]) -> None:
    planned = runs(names=["rvq"])
    stand_in["rvq-s1"] = "fail"
    with pytest.raises(RuntimeError, match="exit code 1: no such clip"):
        train_all(planned, tmp_path, [], Ledger(tmp_path, planned), say=lambda _: None)


def test_the_budget_is_stated_and_follows_the_pace(tmp_path: Path) -> None:
    planned = runs(names=["rfsq", "bd-rfsq"], seeds=1)
    ledger = Ledger(tmp_path, planned)
    before = budget(tmp_path, planned, ledger)
    assert "2 runs of 6 steps" in before and "not known" in before
    ledger.add("rfsq-s1", 3, 5400.0)
    after = budget(tmp_path, planned, ledger)
    # half an hour a step: 6 steps of each, for there is no checkpoint
    assert "To go: 6.0 hours" in after and "1.5 h so far" in after
    assert ledger.seconds_a_step("bd-rfsq") == 1800.0


def test_another_configuration_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    Ledger(tmp_path, runs()).write()
    Ledger(tmp_path, runs(seeds=5))  # more seeds are welcome
    with pytest.raises(ValueError, match="another configuration of rvq-s1"):
        Ledger(tmp_path, plan_runs(tiny_run(learning_rate=0.5)))


def test_the_command_resumes_where_there_is_a_checkpoint(tmp_path: Path) -> None:
    (run,) = runs(names=["rvq"])
    folder = tmp_path / run.label
    command = train_command(run, folder, [Path("a.csv")], tmp_path / "cache", 1)
    assert command[1:4] == ["-m", "affectcodec", "train"] and "--resume" not in command
    assert command[command.index("--export") + 1] == str(folder / "weights")
    (folder / "step-00000003").mkdir(parents=True)
    (folder / "step-00000003" / "state.json").write_text("{}")
    assert "--resume" in train_command(run, folder, [Path("a.csv")], tmp_path / "cache", None)


def test_the_plan_file_is_readable(tmp_path: Path) -> None:
    Ledger(tmp_path, runs()).write()
    stored = json.loads((tmp_path / "ablation.json").read_text())
    assert set(stored) == {"runs", "spent"}
    assert stored["runs"]["rvq-s1"]["codec"]["quantizer"]["kind"] == "rvq"
