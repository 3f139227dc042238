# SPDX-License-Identifier: Apache-2.0
"""Loading of compiled modules, and what the compiled module refuses when called directly."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from affectcodec import _native

needs_native = pytest.mark.skipif(
    not _native.load().available, reason=_native.load().reason or "native is on"
)


@pytest.fixture
def fresh_loader() -> Iterator[None]:
    """Forget what was loaded, before and after."""
    _native.load.cache_clear()
    yield
    _native.load.cache_clear()


@pytest.mark.usefixtures("fresh_loader")
def test_switched_off_by_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AFFECTCODEC_NO_NATIVE", "1")
    loaded = _native.load()
    assert not loaded.available
    assert "AFFECTCODEC_NO_NATIVE" in loaded.reason


@pytest.mark.usefixtures("fresh_loader")
@pytest.mark.parametrize("value", ["", "0", "false", "No"])
def test_environment_values_that_leave_it_on(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("AFFECTCODEC_NO_NATIVE", value)
    assert not _native.native_disabled()


@pytest.mark.usefixtures("fresh_loader")
@pytest.mark.parametrize("name", ["affectcodec._absent", "affectcodec.absent.deep._C"])
def test_missing_module_gives_a_reason(name: str) -> None:
    loaded = _native.load(name)
    assert not loaded.available
    assert loaded.reason


@pytest.mark.usefixtures("fresh_loader")
def test_recorded_reason_is_passed_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    record = tmp_path / "_build_info.json"
    record.write_text(json.dumps({"left_out": {"_absent": "no C++ compiler found"}}))
    monkeypatch.setattr(_native, "BUILD_INFO_PATH", record)
    assert _native.load("affectcodec._absent").reason == "not built: no C++ compiler found"


@pytest.mark.usefixtures("fresh_loader")
def test_binary_that_does_not_load_gives_a_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = ModuleType("broken_package")
    package.__path__ = [str(tmp_path)]
    (tmp_path / "_C.py").write_text("raise ImportError('undefined symbol: xyz')")
    monkeypatch.setitem(sys.modules, "broken_package", package)
    loaded = _native.load("broken_package._C")
    assert not loaded.available
    assert "undefined symbol: xyz" in loaded.reason


@pytest.mark.parametrize("content", ["", "not json", "[1, 2]", "\udcff"])
def test_damaged_build_record_reads_as_empty(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str
) -> None:
    record = tmp_path / "_build_info.json"
    record.write_bytes(content.encode("utf-8", "surrogateescape"))
    monkeypatch.setattr(_native, "BUILD_INFO_PATH", record)
    assert _native.build_info() == {}


def native() -> Any:
    return _native.load().module


@needs_native
@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((np.zeros(3, np.int32), 0), ValueError),
        ((np.zeros(3, np.int32), 64), ValueError),
        ((np.zeros((3, 1), np.int32), 15), ValueError),
        ((np.zeros(6, np.int32)[::2], 15), ValueError),
        ((np.zeros(3, np.int16), 15), TypeError),
        ((np.zeros(3, np.float32), 15), TypeError),
        ((np.zeros(3, ">i4"), 15), TypeError),
    ],
)
def test_native_pack_checks_its_own_arguments(arguments: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        native().pack_bits(*arguments)


@needs_native
@pytest.mark.parametrize(
    "arguments",
    [
        (bytes(2), 0, 1),
        (bytes(2), 64, 1),
        (bytes(2), 15, -1),
        (bytes(2), 15, 2),
        (bytes(2), 15, 0),
        (bytes(2), 15, 2**62),
        (bytes(8), 63, (2**64 + 64) // 63),
        (b"\x00\xff", 15, 1),
        (bytes(4), 32, 1, False),
        (np.zeros(2, np.int32), 15, 2),
        (np.zeros(4, np.uint8)[::2], 15, 1),
    ],
)
def test_native_unpack_checks_its_own_arguments(arguments: Any) -> None:
    with pytest.raises(ValueError):
        native().unpack_bits(*arguments)


@needs_native
def test_threads_pack_alike() -> None:
    codes = np.random.default_rng(0).integers(0, 1 << 15, 200_000).astype(np.int32)
    wanted = native().pack_bits(codes, 15)
    results: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: results.append(native().pack_bits(codes, 15)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [wanted] * 4


@needs_native
def test_cpu_features_are_consistent() -> None:
    features = native().cpu_features()
    assert all(isinstance(value, bool) for value in features.values())
    assert {"sse4_2", "avx2", "fma", "avx512f", "avx512bw", "avx512dq", "avx512vl", "neon"} <= set(
        features
    )
    assert not features["avx2"] or features["avx"]
    assert not features["x86_64_v4"] or features["x86_64_v3"]
    assert not (features["neon"] and features["sse4_2"])


@needs_native
@pytest.mark.skipif(not Path("/proc/cpuinfo").is_file(), reason="needs /proc/cpuinfo")
def test_cpu_features_match_the_kernel() -> None:
    flags = {
        word
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("flags")
        for word in line.split()
    }
    if not flags:
        pytest.skip("this kernel does not list x86 flags")
    features = native().cpu_features()
    for name in ("sse4_2", "avx", "avx2", "fma", "f16c", "bmi2", "movbe", "avx512f", "avx512vl"):
        assert features[name] == (name in flags), name


@needs_native
def test_build_info_names_the_compiler() -> None:
    info = native().build_info()
    assert info["cplusplus"] >= 201703
    assert info["compiler"]
