# SPDX-License-Identifier: Apache-2.0
"""Names of codecs."""

from __future__ import annotations

import pytest

from affectcodec.evaluation.codecs import CONTROLS, make_codecs


def test_make_codecs_reads_names() -> None:
    names = [*CONTROLS, "lowpass:2.5"]
    assert [codec.name for codec in make_codecs(names, {})] == names
    fingerprints = {codec.fingerprint for codec in make_codecs(names, {})}
    assert len(fingerprints) == len(names)
    for bad in (
        "mp3",
        "codec2",
        "affectcodec",
        "affectcodec:fast",
        "other:1.5",
        "opus:-6",
        "opus",
        "speex:",
        "mulaw:8",
    ):
        with pytest.raises(ValueError, match=r"unknown"):
            make_codecs([bad], {"affectcodec": None})
    with pytest.raises(ValueError, match="once"):
        make_codecs(["original", "original"], {})
    with pytest.raises(ValueError, match="lowpass"):
        make_codecs(["lowpass:9"], {})
