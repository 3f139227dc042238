# SPDX-License-Identifier: Apache-2.0
"""The headers of csrc/core against plain Python, compiled with sanitizers."""

from __future__ import annotations

import itertools
import math
import os
import shutil
import subprocess
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent
COMPILER = next(
    (path for name in (os.environ.get("CXX", ""), "c++", "g++", "clang++") if name
     for path in [shutil.which(name)] if path),
    None,
)  # fmt: skip

pytestmark = pytest.mark.skipif(COMPILER is None, reason="needs a C++ compiler")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """core_check, with sanitizers where the compiler has them."""
    binary = tmp_path_factory.mktemp("core") / "core_check"
    base = [
        str(COMPILER), "-std=c++17", "-O1", "-g", "-Wall", "-Wextra", "-Werror",
        "-ffp-contract=off", str(HERE / "core_check.cpp"), "-o", str(binary),
    ]  # fmt: skip
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    if subprocess.run([*base, *sanitizers], capture_output=True).returncode:
        done = subprocess.run(base, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    return binary


def run(program: Path, what: str, lines: list[str]) -> list[list[str]]:
    done = subprocess.run(
        [str(program), what], input="\n".join(lines), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-3000:]
    return [line.split() for line in done.stdout.splitlines()]


def thresholds(levels: int) -> list[float]:
    """tanh thresholds of the design, in float64, rounded once to float32."""
    exact = [math.atanh((2 * i + 1) / (levels - 1) - 1) for i in range(levels - 1)]
    return [float(np.float32(t)) for t in exact]


@pytest.mark.parametrize("levels", [2, 3, 4, 5, 8, 16, 255])
def test_digit_counts_the_thresholds_reached(program: Path, levels: int) -> None:
    taus = thresholds(levels)
    below = [float(np.nextafter(np.float32(t), np.float32(-np.inf))) for t in taus]
    points = [-math.inf, -20.0, 0.0, -0.0, 20.0, math.inf, math.nan, *taus, *below]
    text = " ".join(f"{t:.9g}" for t in taus)
    rows = run(program, "digits", [f"{levels} {text} {y:.9g}" for y in points])
    digits = [int(row[0]) for row in rows]
    assert digits == [sum(y >= t for t in taus) for y in points]
    # NaN reaches nothing, a threshold itself is reached, the float just below it is not.
    count = len(taus)
    assert digits[6] == 0
    assert digits[7 : 7 + count] == list(range(1, levels))
    assert digits[7 + count :] == list(range(levels - 1))


@pytest.mark.parametrize("levels", [2, 3, 4, 5, 6, 8, 16, 255])
def test_digit_agrees_with_the_rounding_form(program: Path, levels: int) -> None:
    taus = thresholds(levels)
    points: list[float] = np.linspace(-4, 4, 401).tolist()
    text = " ".join(f"{t:.9g}" for t in taus)
    rows = run(program, "digits", [f"{levels} {text} {y:.9g}" for y in points])
    for row, y in zip(rows, points, strict=True):
        position = (levels - 1) * (math.tanh(y) + 1) / 2 + 0.5
        if abs(position - round(position)) > 1e-5:  # a tie is decided by rounding alone
            assert int(row[0]) == min(max(math.floor(position), 0), levels - 1)


@pytest.mark.parametrize("levels", [2, 3, 4, 5, 7, 8, 16, 100])
def test_value_is_the_correctly_rounded_grid_point(program: Path, levels: int) -> None:
    taus = [float(i) for i in range(levels - 1)]  # so that y = n - 0.5 has digit n
    text = " ".join(f"{t:.9g}" for t in taus)
    rows = run(program, "digits", [f"{levels} {text} {n - 0.5}" for n in range(levels)])
    values = [float.fromhex(row[1]) for row in rows]
    exact = [Fraction(2 * n, levels - 1) - 1 for n in range(levels)]
    assert values == [float(np.float32(float(value))) for value in exact]
    assert values[0] == -1 and values[-1] == 1
    assert values == [-value for value in reversed(values)]


@pytest.mark.parametrize(
    "levels", [(2,), (2, 2, 2), (4,) * 6, (2, 2, 2, 4, 4, 4, 4, 4, 4), (3, 5, 7), (8, 5, 5, 5)]
)
def test_token_is_mixed_radix_with_the_first_digit_lowest(
    program: Path, levels: tuple[int, ...]
) -> None:
    size = math.prod(levels)
    tokens = sorted({*range(min(size, 300)), size - 1, size // 2})
    text = " ".join(map(str, levels))
    rows = run(program, "tokens", [f"{len(levels)} {text} {token}" for token in tokens])
    bases = [1, *itertools.accumulate(levels, lambda a, b: a * b)]
    for row, token in zip(rows, tokens, strict=True):
        *digits, rest, again = map(int, row)
        wanted = [token // base % level for base, level in zip(bases, levels, strict=False)]
        assert (digits, rest, again) == (wanted, 0, token)


def test_emotion_code_is_the_low_three_bits(program: Path) -> None:
    (row,) = run(program, "tokens", [f"9 2 2 2 4 4 4 4 4 4 {0b101_010_111_110_011}"])
    assert [int(d) for d in row[:3]] == [1, 1, 0]


def test_widest_codebook_fits_int64(program: Path) -> None:
    (row,) = run(program, "tokens", [f"63 {' '.join(['2'] * 63)} {2**63 - 1}"])
    assert row == ["1"] * 63 + ["0", str(2**63 - 1)]


@pytest.mark.parametrize("token", [8, 2**62, -1, -(2**63)])
def test_foreign_token_is_told_and_its_digits_stay_in_range(program: Path, token: int) -> None:
    (row,) = run(program, "tokens", [f"3 2 2 2 {token}"])
    *digits, rest, _ = map(int, row)
    assert rest != 0
    assert all(0 <= digit < 2 for digit in digits)


def test_bit_packing_stays_inside_its_memory(program: Path) -> None:
    assert run(program, "packing", []) == [["ok"]]
