# SPDX-License-Identifier: Apache-2.0
"""The hashed form of a configuration, and fields that came later."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field

import pytest

from affectcodec.checkpoint import shipped_folder
from affectcodec.config import CodecConfig
from affectcodec.config_checks import canonical, check_positive, later


@dataclass(frozen=True)
class Part:
    size: int = 3
    taps: tuple[int, ...] = (1, 2)
    added: str = later("none")


@dataclass(frozen=True)
class Whole:
    part: Part = field(default_factory=Part)
    rate: float = 1.5


def test_later_fields_count_where_they_leave_their_default() -> None:
    assert canonical(Whole()) == {"part": {"size": 3, "taps": [1, 2]}, "rate": 1.5}
    changed = Whole(Part(added="much"))
    assert canonical(changed)["part"]["added"] == "much"
    assert json.loads(json.dumps(dataclasses.asdict(Whole())))["part"]["added"] == "none"


def test_the_names_of_released_codecs_stay() -> None:
    """The hash is part of the fingerprint of tokens and weights: it must never move."""
    assert CodecConfig().hash == "745fb9d7de1cc0ed"
    for path in shipped_folder().glob("*/config.json"):
        record = json.loads(path.read_text())
        config = CodecConfig.from_dict(record["codec"])
        assert config.hash == CodecConfig.from_dict(config.to_dict()).hash


@pytest.mark.parametrize("value", [0, -1, True, 1.0, "3", None])
def test_positive_integers_only(value: object) -> None:
    with pytest.raises(ValueError, match="Owner: size must be a positive integer"):
        check_positive("Owner", "size", value)
