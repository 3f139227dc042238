# SPDX-License-Identifier: Apache-2.0
"""Markdown pages of which a command makes and keeps a part."""

from __future__ import annotations

from pathlib import Path


def replace_part(page: Path, begin: str, end: str, text: str) -> None:
    """Replaces what stands between the first ``begin`` of a page and the ``end`` after it.

    Args:
        page: file in UTF-8.
        begin: marker, such as ``<!-- name: begin -->``, on a line of its own.
        end: marker, likewise.
        text: whole lines.

    Raises:
        ValueError: a marker is missing; the page stays as it was.
    """
    head, found, rest = page.read_text(encoding="utf-8").partition(f"{begin}\n")
    _, ended, tail = rest.partition(end)
    if not found or not ended:
        raise ValueError(f"{page}: the markers {begin!r} and {end!r} are missing; add them")
    page.write_text(head + found + text + ended + tail, encoding="utf-8")
