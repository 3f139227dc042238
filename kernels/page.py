# SPDX-License-Identifier: Apache-2.0
"""Tables in a Markdown page that a command makes and keeps."""

from __future__ import annotations

from pathlib import Path

from affectcodec.pages import replace_part


def write_table(path: Path, name: str, text: str) -> None:
    """Puts a table between ``<!-- name: begin -->`` and ``<!-- name: end -->``.

    Args:
        text: whole lines.

    Raises:
        ValueError: the markers are missing.
    """
    replace_part(path, f"<!-- {name}: begin -->", f"<!-- {name}: end -->", text)


def widths(counts: dict[int, int]) -> str:
    """Numbers of accesses by their bytes, ``8x16 2x4``."""
    return " ".join(f"{n}x{width}" for width, n in sorted(counts.items(), reverse=True)) or "-"
