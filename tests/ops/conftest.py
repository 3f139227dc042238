# SPDX-License-Identifier: Apache-2.0
"""The backend that a test is for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.ops.backends import Candidate, served_by


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> Iterator[Candidate]:
    """A call that the kernels do not serve fails instead of passing by the reference."""
    yield from served_by(request.param)
