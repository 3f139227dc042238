# SPDX-License-Identifier: Apache-2.0
"""``affectcodec info``."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from affectcodec.cli.info import inspect


def test_facts_of_a_stream(run, clip, weights):
    path = clip.with_name("a.afc")
    stages = ("--stages", "emotion=4,acoustic=2")
    assert run("encode", clip, "-o", path, *stages, "--weights", weights).exit_code == 0
    record = json.loads(run("info", path, "--json").stdout)[0]
    assert record["file"] == str(path) and record["bytes"] == path.stat().st_size
    assert (record["seconds"], record["num_samples"], record["frames"]) == (0.5, 8000, 26)
    # 4 * 3 + 2 * 12 bits at 50 frames a second
    assert record["kbps_nominal"] == 1.8
    assert record["kbps_on_disk"] == pytest.approx(path.stat().st_size * 8 / 500, abs=1e-3)
    assert [block["stages"] for block in record["blocks"]] == [{"4": 26}, {"2": 26}]
    assert record["packets"] == {"ok": 1, "partial": 0, "lost": 0}
    assert record["ok"] and record["findings"] == "" and record["weights"] is None
    text = run("info", path)
    assert text.exit_code == 0
    for part in ("0.50 s", "1.8 kbit/s of tokens", "4 stages; 3 bits each", "all well"):
        assert part in text.stdout


def test_damage_is_told(run, coded):
    data = bytearray(coded.read_bytes()[:-20])
    data[60] ^= 0xFF
    coded.write_bytes(bytes(data))
    done = run("info", coded)
    assert done.exit_code == 3
    assert "DAMAGED: " in done.stdout and "truncated" in done.stdout and "are there" in done.stdout
    record = inspect(str(coded))
    assert record["seconds_decodable"] < record["seconds"] == 0.5
    assert record["packets"]["lost"] or record["packets"]["partial"]


def test_unreadable_files_do_not_hide_the_others(run, coded, clip):
    done = run("info", clip, coded, "nope.afc")
    assert done.exit_code == 1
    assert "all well" in done.stdout
    assert "not an .afc stream" in done.stderr and "nope.afc" in done.stderr
    listed = json.loads(run("info", clip, coded, "--json").stdout)
    assert len(listed) == 2 and "error" in listed[1]


def test_standard_input_and_folders(run, coded):
    done = run("info", "-", stdin=coded.read_bytes())
    assert done.exit_code == 0 and "standard input" in done.stdout
    assert run("info", coded.parent).stdout.startswith(str(coded))
    assert run("info", "-", coded, stdin=b"").exit_code == 2


def test_shipped_weights_are_recognised(run, coded, weights, tmp_path, monkeypatch):
    import affectcodec

    monkeypatch.setattr(affectcodec, "__file__", str(tmp_path / "__init__.py"))
    folder = tmp_path / "pretrained/mine"
    folder.mkdir(parents=True)
    (tmp_path / "pretrained/broken").mkdir()
    (tmp_path / "pretrained/broken/config.json").write_text("no json")
    fingerprint = inspect(str(coded))["fingerprint"]
    (folder / "config.json").write_text(json.dumps({"fingerprint": fingerprint}))
    assert "mine (fingerprint" in run("info", coded).stdout


def test_without_files_it_reports_the_installation(run):
    done = run("info")
    assert done.exit_code == 0 and "torch" in done.stdout
    assert "parts" in json.loads(run("info", "--json").stdout)


@pytest.mark.slow
def test_help_and_info_do_not_load_torch(coded):
    code = (
        "import sys; from affectcodec.cli import main\n"
        "for arguments in (['--help'], ['encode', '--help'], ['info', sys.argv[1]]):\n"
        "    main(arguments, standalone_mode=False)\n"
        "assert 'torch' not in sys.modules, 'torch was loaded'\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(coded)], capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    assert b"all well" in done.stdout
