# SPDX-License-Identifier: Apache-2.0
"""A small random codec on disk, clips, and a way to call the command line in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from affectcodec.cli import main
from tests.cli.clips import make_clip, save_random_codec


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a random codec."""
    return save_random_codec(tmp_path_factory.mktemp("weights"), 1)


@pytest.fixture(scope="session")
def other_weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of another random codec of the same shape."""
    return save_random_codec(tmp_path_factory.mktemp("other"), 2)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return make_clip(tmp_path / "clip.wav")


@pytest.fixture
def run() -> Callable[..., Result]:
    """Call ``affectcodec`` with arguments; what it prints on both streams is kept apart."""

    def call(*arguments: object, stdin: bytes | None = None) -> Result:
        return CliRunner().invoke(main, [str(a) for a in arguments], input=stdin)

    return call


@pytest.fixture
def coded(clip: Path, weights: str, run: Callable[..., Result]) -> Path:
    """A clip of 0.5 s at 6 kbit/s in packets of 5 frames."""
    path = clip.with_suffix(".afc")
    done = run("encode", clip, "--weights", weights, "--frames-per-packet", 5)
    assert done.exit_code == 0, done.output
    return path
