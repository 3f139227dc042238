# SPDX-License-Identifier: Apache-2.0
"""Parts of pages that commands keep."""

from __future__ import annotations

from pathlib import Path

import pytest

from affectcodec.pages import replace_part

BEGIN, END = "<!-- a -->", "<!-- /a -->"


def test_a_part_is_replaced_and_the_rest_stays(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    before, after = "é\n<!-- b -->\nx\n<!-- /a -->\n", "\nafter\n<!-- a -->\nkept\n<!-- /a -->\n"
    page.write_text(f"{before}{BEGIN}\nold\nold\n{END}{after}", encoding="utf-8")
    replace_part(page, BEGIN, END, "new\n")
    want = f"{before}{BEGIN}\nnew\n{END}{after}"
    assert page.read_text(encoding="utf-8") == want
    replace_part(page, BEGIN, END, "new\n")
    assert page.read_text(encoding="utf-8") == want


@pytest.mark.parametrize(
    "text", ["", f"{BEGIN}\nx\n", f"x\n{END}\n", f"{END}\n{BEGIN}\n", "<!-- a -->"]
)
def test_a_page_without_markers_is_refused_and_stays(tmp_path: Path, text: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(ValueError, match="page.md: the markers .* are missing"):
        replace_part(page, BEGIN, END, "new\n")
    assert page.read_text() == text
