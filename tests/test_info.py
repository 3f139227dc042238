# SPDX-License-Identifier: Apache-2.0
"""The installation report: complete, machine-readable, and unbreakable."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from affectcodec import _native, info


def off(reason: str) -> _native.NativeModule:
    return _native.NativeModule("affectcodec._C", None, reason)


def test_text_report_names_every_part(capsys: pytest.CaptureFixture[str]) -> None:
    assert info.main([]) == 0
    text = capsys.readouterr().out
    for name in (
        "torch",
        "bit packing",
        "triton",
        "CUDA device",
        "nvcc",
        "pyworld",
        "swift_f0",
        "pesq",
    ):
        assert name in text


def test_json_report_agrees_with_the_probes(capsys: pytest.CaptureFixture[str]) -> None:
    assert info.main(["--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    states = {part["name"]: part["on"] for part in report["parts"]}
    assert states["bit packing"] == _native.load().available
    assert report["versions"]["torch"] != "not installed"


def test_every_part_that_is_off_says_why() -> None:
    for part in info.collect().parts:
        assert part.detail, part
        assert not (part.on and part.fix), part


def test_missing_native_part_shows_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_native, "load", lambda name="": off("not built: no C++ compiler found"))
    report = info.collect()
    (part,) = [part for part in report.parts if part.name == "bit packing"]
    assert not part.on
    assert "no C++ compiler found" in part.detail
    assert "compiler" in part.fix
    assert report.cpu_features == {}
    assert "unknown: needs the native module" in info.render(report)


def test_switched_off_native_part_says_how_to_switch_it_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AFFECTCODEC_NO_NATIVE", "1")
    monkeypatch.setattr(_native, "load", lambda name="": off("switched off"))
    (part,) = [part for part in info.collect().parts if part.name == "bit packing"]
    assert part.fix == "unset AFFECTCODEC_NO_NATIVE"


def test_who_serves_cuda_tensors_is_shown() -> None:
    (part,) = [part for part in info.collect().parts if part.name == "dispatch"]
    assert "triton, then cuda, then reference; in this installation to " in part.detail


def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(info, "OPTIONAL", (("surely_absent_package", "eval", "testing"),))
    monkeypatch.setattr(info, "LARGE", ())
    (part,) = [part for part in info.collect().parts if part.group == "optional"]
    assert not part.on
    assert part.detail == "not installed; for testing"
    assert part.fix == "pip install 'affectcodec[eval]'"


def test_package_that_fails_to_import_is_told_apart(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    with open(f"{tmp_path}/broken_optional.py", "w") as file:
        file.write("import surely_absent_dependency")
    monkeypatch.setattr(info, "OPTIONAL", (("broken_optional", "eval", "testing"),))
    monkeypatch.setattr(info, "LARGE", ())
    (part,) = [part for part in info.collect().parts if part.group == "optional"]
    assert "surely_absent_dependency" in part.detail


def test_failing_probe_does_not_stop_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    def _probe_broken() -> list[info.Status]:
        raise RuntimeError("driver\nexploded")

    monkeypatch.setattr(info, "PROBES", (("GPU", _probe_broken), *info.PROBES))
    report = info.collect()
    assert report.parts[0] == info.Status(
        "GPU", "broken", False, "the check failed: RuntimeError: driver"
    )
    assert len(report.parts) > 5


def test_closed_pipe_is_not_an_error() -> None:
    command = f"{sys.executable} -m affectcodec.info | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "BrokenPipe" not in done.stderr


def test_version_of_a_package() -> None:
    assert info.version_of("pytest") == pytest.__version__
    assert info.version_of("no-such-package") == "not installed"
