# SPDX-License-Identifier: Apache-2.0
"""The backends that one suite tests, and in what they may differ."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from affectcodec.ops import use_backend
from affectcodec.ops.registry import BACKENDS


@dataclass(frozen=True)
class Candidate:
    """A backend on CPU tensors.

    Attributes:
        checks_tokens: whether decoding refuses a value that is no token. A GPU would have to wait
            for its answer, so kernels for one make a NaN of that frame instead.
        rounds_bfloat16: whether a float32 is rounded to bfloat16; Triton's interpreter truncates.
        narrow_is_rounded: whether a latent is what decoding gives in float32, rounded. Tensor cores
            sum in another order, and NumPy under the interpreter in whatever order it likes.
        reads_subnormals: whether a subnormal bfloat16 is read as what it is; Triton's interpreter
            widens it wrongly.
        quick: whether it can be given every combination of a large test.
    """

    name: str
    checks_tokens: bool = True
    rounds_bfloat16: bool = True
    narrow_is_rounded: bool = True
    reads_subnormals: bool = True
    quick: bool = True

    def some(self, frames: int) -> int:
        """As many frames as there is time for, and no whole number of tiles."""
        return frames if self.quick else min(frames, 69)


CANDIDATES = {
    row.name: row
    for row in (
        Candidate("cpu"),
        Candidate(
            "triton",
            checks_tokens=False,
            rounds_bfloat16=False,
            narrow_is_rounded=False,
            reads_subnormals=False,
            quick=False,
        ),
    )
}


def _param(name: str, *values: object) -> object:
    reason = BACKENDS[name].why_missing()
    return pytest.param(
        name,
        *values,
        marks=pytest.mark.skipif(bool(reason), reason=reason or "it is there"),
        id="-".join([name, *(str(v) for v in values)]),
    )


on_every_backend = pytest.mark.parametrize(
    "backend", [_param(n) for n in CANDIDATES], indirect=True
)


def covering(*rows: tuple[object, ...], some: int) -> list[object]:
    """Parameters ``backend, *row``: all rows for a quick backend, every ``some``-th for others."""
    return [
        _param(name, *row)
        for name, tested in CANDIDATES.items()
        for i, row in enumerate(rows)
        if tested.quick or i % some == 0
    ]


def served_by(name: str) -> Iterator[Candidate]:
    """Calls inside are served by this backend or fail.

    Interpreted kernels run with guards around every tensor and their programs shuffled.
    """
    with use_backend(name):
        if name != "triton":
            yield CANDIDATES[name]
            return
        from tests.kernels.guards import guarded_launches

        with guarded_launches("shuffled"):
            yield CANDIDATES[name]
