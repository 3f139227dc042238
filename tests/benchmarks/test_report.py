# SPDX-License-Identifier: Apache-2.0
"""Results, bars and report: what is written, and what is refused."""

from __future__ import annotations

import json

import pytest

from benchmarks import report
from benchmarks.bars import BARS, LARGE, SINGLE, bars_table
from benchmarks.contest import Row
from benchmarks.floors import Floor
from benchmarks.results import Results, amount, group_table, table

MACHINE = {
    "processor": "Test CPU",
    "cores": 2,
    "caches": {"L1 data": "32K"},
    "kernels": "avx2",
    "torch_capability": "AVX2",
    "system": "Linux x86_64",
    "python": "3.11.0",
    "packages": {"torch": "2.13.0"},
    "revision": "abc1234",
    "date": "2026-01-01",
    "load_at_start": 0.1,
}


def row(op, size, contender, microseconds, ratio, unit="frame", units=8000, **remarks):
    seconds = microseconds * 1e-6
    return Row(
        group=f"{op} {size}",
        op=op,
        size=size,
        contender=contender,
        label=contender,
        variant="form",
        threads=2,
        rounds=3,
        units=units,
        unit=unit,
        seconds=seconds * units,
        seconds_per_unit=seconds,
        units_per_second=1 / seconds,
        ratio=ratio,
        spread=0.02,
        reference="numpy" if unit == "token" else "eager",
        reference_seconds_per_unit=seconds * ratio,
        bytes_per_unit=4128.0,
        flops_per_unit=1000.0,
        floor_share=0.7,
        probes={"form, 2 threads": seconds},
        remarks={"test": f"benchmarks/bench_x.py::test_x[{op}-{size}-{contender}]", **remarks},
        costs=[1 / ratio, 1.1 / ratio, 0.9 / ratio],
    )


def whole(smoke=False):
    rows = []
    for op in report.OPS:
        rows += [
            row(op, LARGE.name, "eager", 25, 1, peak_extra_bytes=1000 << 20),
            row(op, LARGE.name, "compiled", 5, 5),
            row(op, LARGE.name, "codespace", 2, 12.5),
            row(op, LARGE.name, "kernels", 0.5, 50, peak_extra_bytes=100 << 20),
        ]
    rows += [
        row("encode", SINGLE.name, "eager", 400, 1, units=1),
        row("encode", SINGLE.name, "kernels", 11, 36, units=1),
    ]
    for op in ("pack_bits", "unpack_bits"):
        rows += [
            row(op, "15 bits, 1 tokens", name, 0.002, 2, unit="token")
            for name in ("numpy", "buffers")
        ]
    floor = Floor(2, 30e9, 200e9, (8, 8, 8), {"8 x 8 x 8": 200e9})
    return Results.of(MACHINE, "pytest benchmarks/", 61.0, [floor], rows, smoke)


@pytest.fixture
def saved(tmp_path):
    whole().write(tmp_path / "results.json")
    return tmp_path / "results.json"


@pytest.fixture
def root(tmp_path):
    (tmp_path / "docs").mkdir()
    for page in report.PAGES:
        text = (report.ROOT / page).read_text(encoding="utf-8")
        (tmp_path / page).write_text(text, encoding="utf-8")
    return tmp_path


def test_results_survive_a_file(saved):
    assert Results.read(saved) == whole()


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": 99}', '{"format": 1, "rows": []}'])
def test_other_files_are_refused(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match="no result of a benchmark run"):
        Results.read(tmp_path / "x.json")


def test_bars_are_met_missed_or_not_measured():
    figures = {bar.text: bar.figure(whole()) for bar in BARS}
    assert figures["encode, N=8000: times as fast as eager"] == 50
    assert figures["encode, N=8000: times the best compiled"] == pytest.approx(10)
    assert figures["encode, N=8000: share of the floor"] == pytest.approx(70)
    assert figures["encode, N=1: time of a call"] == pytest.approx(11)
    assert figures["forward + backward, N=8000: peak extra memory over eager"] == 0.1
    assert figures["pack_bits: tokens"] == pytest.approx(2)
    lines = bars_table(whole()).splitlines()
    assert len(lines) == len(BARS) + 2
    by_text = dict(zip((bar.text for bar in BARS), lines[2:], strict=True))
    assert "**no**" in by_text["encode, N=1: time of a call"]
    assert "yes" in by_text["encode, N=8000: share of the floor"]
    empty = Results(MACHINE, "", 0.0, [], [])
    assert bars_table(empty).count("not measured") == len(BARS)


def test_report_fills_every_region_and_draws_the_plots(saved, root, capsys):
    assert report.main([str(saved), "--root", str(root), "--save-baseline"]) == 0
    page = (root / "docs/performance.md").read_text(encoding="utf-8")
    assert "Not measured yet" not in page
    for text in ("Test CPU", "| kernels ", "1,000 MiB", "0.100", "30.0 GB/s", "share of the floor"):
        assert text in page
    assert "| encode " in (root / "README.md").read_text(encoding="utf-8")
    for name in report.PLOTS:
        assert (root / report.IMAGES / name).stat().st_size > 5000
        assert f"images/{name}" in page
    assert "**no**" in capsys.readouterr().out
    again = (root / "docs/performance.md").read_text(encoding="utf-8")
    assert report.rewrite(again, whole()) == again


def test_baseline_holds_relative_costs(saved, root):
    assert report.main([str(saved), "--root", str(root), "--save-baseline", "--bars-only"]) == 0
    found = json.loads((root / report.BASELINE).read_text(encoding="utf-8"))
    by_name = {entry["fullname"]: entry for entry in found["benchmarks"]}
    name = f"benchmarks/bench_x.py::test_x[encode-{LARGE.name}-kernels]"
    assert by_name[name]["stats"]["median"] == pytest.approx(0.02)
    assert not any("eager" in name for name in by_name)


def test_a_selection_or_a_smoke_run_writes_nothing(tmp_path, root, capsys):
    before = (root / "docs/performance.md").read_text(encoding="utf-8")
    part = whole()
    part.rows[:] = [r for r in part.rows if r["op"] == "encode"]
    for results, reason in ((part, "a selection"), (whole(smoke=True), "--smoke")):
        results.write(tmp_path / "results.json")
        for options in ([], ["--save-baseline"]):
            assert report.main([str(tmp_path / "results.json"), "--root", str(root), *options]) == 2
            assert reason in capsys.readouterr().err
    assert (root / "docs/performance.md").read_text(encoding="utf-8") == before
    assert not (root / report.BASELINE).exists()


def test_an_unknown_region_is_an_error():
    with pytest.raises(ValueError, match="no section 'nonsense'"):
        report.rewrite("<!-- bench:nonsense -->\nx\n<!-- /bench -->", whole())


def test_tables():
    assert table(("a", "b"), [("1", "22")]).splitlines() == [
        "| a | b  |",
        "|---|----|",
        "| 1 | 22 |",
    ]
    text = group_table(whole(), "encode", LARGE.name)
    assert "0.2 s" not in text and "4 ms" in text and "50 ± 1 %" in text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.01234, "0.0123"), (12.34, "12.3"), (123456, "123,000"), (0, "0"), (float("inf"), "inf")],
)
def test_amount(value, text):
    assert amount(value) == text
