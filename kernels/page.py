# SPDX-License-Identifier: Apache-2.0
"""Tables in a Markdown page that a command makes and keeps."""

from __future__ import annotations

from pathlib import Path


def write_table(path: Path, name: str, text: str) -> None:
    """Replaces what stands between ``<!-- name: begin -->`` and ``<!-- name: end -->``.

    Args:
        text: whole lines.

    Raises:
        ValueError: the markers are missing.
    """
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->\n"
    old = path.read_text(encoding="utf-8")
    head, _, rest = old.partition(begin)
    _, marker, tail = rest.partition(end)
    if not marker:
        raise ValueError(f"{path}: the markers {begin.strip()!r} and {end.strip()!r} are missing")
    path.write_text(head + begin + text + end + tail, encoding="utf-8")


def widths(counts: dict[int, int]) -> str:
    """Numbers of accesses by their bytes, ``8x16 2x4``."""
    return " ".join(f"{n}x{width}" for width, n in sorted(counts.items(), reverse=True)) or "-"
