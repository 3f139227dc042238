# SPDX-License-Identifier: Apache-2.0
"""What the commands that measure share: options as they are read, and results as they are written.

A run leaves NAME.json, every figure with the command that makes it, and NAME.md, its tables.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def parse_weights(values: Sequence[str]) -> dict[str, str | None]:
    """`["PATH", "label=PATH"]` -> label -> path; "affectcodec" is always there."""
    weights: dict[str, str | None] = {"affectcodec": None}
    for value in values:
        label, separator, path = value.partition("=")
        if not separator:
            label, path = "affectcodec", value
        weights[label] = path
    return weights


def parse_comparisons(
    values: Sequence[str], codecs: Sequence[str], default: Iterable[tuple[str, str]]
) -> list[tuple[str, str]]:
    """`["a=b"]` -> pairs; without any, the pairs of `default` whose codecs are both in the run.

    Raises:
        ValueError: a pair that names a codec outside the run.
    """
    if not values:
        return [pair for pair in default if set(pair) <= set(codecs)]
    pairs = []
    for value in values:
        first, _, second = value.partition("=")
        if first not in codecs or second not in codecs:
            raise ValueError(f"compare: {value!r} wants CODEC=CODEC, both among {list(codecs)}")
        pairs.append((first, second))
    return pairs


def shown_path(value: str | Path) -> str:
    """A path as it may stand in a public page: below the working folder, or its last two parts."""
    path = Path(value)
    if not path.is_absolute():
        return str(value)
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(Path(*path.parts[-2:]))


def without_nan(value: Any) -> Any:
    """NaN -> None all the way down, NumPy's numbers -> Python's: what JSON can hold."""
    if isinstance(value, Mapping):
        return {str(key): without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    if isinstance(value, float | np.floating):
        return None if math.isnan(value) else float(value)
    return int(value) if isinstance(value, np.integer) else value


def write_results(folder: Path, name: str, results: Mapping[str, Any], page: str) -> None:
    """Writes `results` into NAME.json and `page` into NAME.md, and makes the folder.

    Raises:
        ValueError: an infinite value.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(without_nan(results), indent=1, allow_nan=False)
    (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    (folder / f"{name}.md").write_text(page, encoding="utf-8")
