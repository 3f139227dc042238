# SPDX-License-Identifier: Apache-2.0
"""``python -m affectcodec.demo``."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from click.testing import CliRunner, Result

from affectcodec.demo.__main__ import main, weight_facts
from tests.cli.clips import make_clip


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


def test_own_clips(tmp_path, weights):
    clip, out = make_clip(tmp_path / "mine.wav", 0.6, 44100, 2), tmp_path / "out"
    done = run("--clips", clip, "--out", out, "--weights", weights)
    assert done.exit_code == 0, done.output
    assert "mine" in done.stdout and "PESQ-WB" in done.stdout and "report.html" in done.stdout
    assert {p.suffix for p in (out / "mine").iterdir()} == {".afc", ".wav"}
    assert len(list((out / "mine").glob("*.afc"))) == 4
    record = json.loads((out / "results.json").read_text())
    assert [row["kbps"] for row in record["clips"]] == [0.75, 1.5, 3.0, 6.0]
    assert record["clips"][0]["bytes"] == (out / "mine/0.75kbps.afc").stat().st_size
    # the same folder again is fine: it is the demo's own
    assert run("--clips", clip, "--out", out, "--weights", weights).exit_code == 0


def test_a_folder_of_the_user_is_left_alone(tmp_path, weights):
    (tmp_path / "thesis.txt").write_text("all of it")
    done = run("--out", tmp_path, "--weights", weights)
    assert done.exit_code == 2 and "name another folder" in done.stderr.replace("\n", " ")
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [(("--clips", "nope.wav"), 1, "nope.wav"), (("--weights", "nope"), 2, "no weights at 'nope'")],
)
def test_errors_are_one_line(tmp_path, weights, arguments, code, message):
    done = run("--out", tmp_path / "o", "--weights", weights, *arguments)
    assert done.exit_code == code and message in done.stderr
    assert "Traceback" not in done.stderr


def test_missing_packages_cost_the_figures_only(tmp_path, weights, monkeypatch):
    monkeypatch.setitem(sys.modules, "pystoi", None)
    clip = make_clip(tmp_path / "mine.wav", 0.6)
    done = run("--clips", clip, "--out", tmp_path / "out", "--weights", weights)
    assert done.exit_code == 0, done.output
    assert "pystoi missing" in done.stderr and "affectcodec[demo]" in done.stderr
    assert (tmp_path / "out/report.html").exists()


def test_facts_of_weights(weights, tmp_path):
    assert set(weight_facts(weights)) == {"name"}
    (tmp_path / "config.json").write_text(json.dumps({"metadata": {"licence": "CC BY 4.0"}}))
    assert weight_facts(str(tmp_path))["licence"] == "CC BY 4.0"


@pytest.mark.slow
def test_the_shipped_clips_in_a_process_of_its_own(tmp_path, weights):
    done = subprocess.run(
        [sys.executable, "-m", "affectcodec.demo", "--weights", weights, "--out", "d"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=110,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("female-") == 3 and "all clips" in done.stdout
    assert 1e6 < (tmp_path / "d/report.html").stat().st_size < 12e6
