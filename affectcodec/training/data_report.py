# SPDX-License-Identifier: Apache-2.0
"""What became of the data of a run: nothing that came in is left out without a word."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SKIPPED, NOTED = "skipped", "noted"


@dataclass
class DataReport:
    """Items that were skipped, and items that were used although something is odd about them.

    ``skipped`` and ``noted`` map an item (file, row, shard member) to its reasons, in the order in
    which they turned up; a reason that is found twice is kept once. ``used`` counts clips.
    """

    used: int = 0
    skipped: dict[str, list[str]] = field(default_factory=dict)
    noted: dict[str, list[str]] = field(default_factory=dict)

    def skip(self, item: str, reason: str) -> None:
        """An item that is not used."""
        _append(self.skipped, item, reason)

    def note(self, item: str, reason: str) -> None:
        """An item that is used, with something that its owner should know."""
        _append(self.noted, item, reason)

    def extend(self, findings: Iterable[tuple[str, str, str]]) -> None:
        """Take (``"skipped"`` or ``"noted"``, item, reason) from elsewhere."""
        for kind, item, reason in findings:
            _append(self.skipped if kind == SKIPPED else self.noted, item, reason)

    def summary(self, limit: int = 5) -> list[str]:
        """Lines for a person: totals, and the first ``limit`` of each kind."""
        lines = [f"{self.used} clips used, {len(self.skipped)} skipped, {len(self.noted)} noted"]
        for kind, found in ((SKIPPED, self.skipped), (NOTED, self.noted)):
            for item, reasons in list(found.items())[:limit]:
                lines.append(f"  {kind} {printable(item)}: {'; '.join(reasons)}")
            if len(found) > limit:
                lines.append(f"  {kind} {len(found) - limit} more")
        return lines

    def write(self, path: Path) -> None:
        """As JSON, with every item."""
        part = path.with_name(path.name + ".part")
        part.write_text(json.dumps(self.state(), indent=1) + "\n", encoding="utf-8")
        part.replace(path)

    def state(self) -> dict[str, Any]:
        """JSON types."""
        return {"used": self.used, SKIPPED: self.skipped, NOTED: self.noted}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take what :meth:`state` gave before; what is known by now stays."""
        self.used = max(self.used, int(state["used"]))
        for kind, found in ((SKIPPED, self.skipped), (NOTED, self.noted)):
            for item, reasons in state[kind].items():
                for reason in reasons:
                    _append(found, item, reason)

    def reasons(self) -> Counter[str]:
        """How often each reason for skipping occurs."""
        return Counter(reason for reasons in self.skipped.values() for reason in reasons)


def printable(text: str) -> str:
    """A name as it can be shown: file names are bytes and may hold anything."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\n", "\\n")


def _append(found: dict[str, list[str]], item: str, reason: str) -> None:
    reasons = found.setdefault(item, [])
    if reason not in reasons:
        reasons.append(reason)
