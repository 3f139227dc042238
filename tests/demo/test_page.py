# SPDX-License-Identifier: Apache-2.0
"""The page: well formed, complete, and without a need for the network."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from affectcodec.audio import load_audio
from affectcodec.demo.coding import rows_of
from affectcodec.demo.page import render

VOID = {"meta", "img", "br"}


class Reader(HTMLParser):
    """Checks that elements close in order and gathers attributes that load something."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        self.loads += [value for name, value in attrs if name in ("src", "href", "srcset")]
        assert tag != "link"

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def page(coded, codec) -> str:
    return render([coded], *rows_of([coded]), codec, {"name": "w", "licence": "CC <x>"})


def test_it_is_well_formed_and_loads_nothing(page):
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    assert reader.loads and all(value.startswith("data:") for value in reader.loads)
    assert "@import" not in page and "url(" not in page and "fetch(" not in page


def test_titles_are_escaped(page):
    assert "<b>tone</b>" not in page and "A &lt;b&gt;tone&lt;/b&gt; &amp; noise" in page
    assert "CC &lt;x&gt;" in page


def test_every_version_can_be_heard(page, coded):
    sounds = re.findall(r'src="data:audio/flac;base64,([^"]+)"', page)
    assert len(sounds) == 1 + len(coded.versions)
    waves = [load_audio(io.BytesIO(base64.b64decode(sound)))[0] for sound in sounds]
    for wave, version in zip(waves[1:], coded.versions, strict=True):
        assert np.abs(wave - np.clip(version.wave, -1, 1)).max() <= 1 / 32767


def test_spectrograms_and_tokens_of_both_blocks_are_there(page):
    assert len(re.findall("data:image/png", page)) == 5 + 2
    for text in ("emotion codes", "acoustic codes", "3 bits", "12 bits", "0.75 kbit/s"):
        assert text in page


def test_it_follows_light_and_dark(page):
    assert "prefers-color-scheme: dark" in page and "color-scheme: light dark" in page


def test_several_clips_get_a_table_of_each(coded, codec):
    page = render([coded, coded], *rows_of([coded, coded]), codec, {"name": "w"})
    assert page.count("<table>") == 2 and page.count("<audio") == 10
