# SPDX-License-Identifier: Apache-2.0
"""One corpus and its cache for all training tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from affectcodec.training.cache import ClipCache
from tests.training.sounds import build_cache, write_corpus


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(folder)
    return folder


@pytest.fixture(scope="session")
def cache(corpus: Path) -> ClipCache:
    return build_cache(corpus)


@pytest.fixture(scope="session")
def dev_cache(corpus: Path) -> ClipCache:
    return build_cache(corpus, "dev")
