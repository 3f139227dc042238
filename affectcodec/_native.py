# SPDX-License-Identifier: Apache-2.0
"""Loading of the compiled modules, all of which are optional.

A missing or broken compiled module never stops ``import affectcodec``: the loader hands back the
module or the reason why there is none, and callers choose their NumPy or PyTorch form instead.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import json
import os
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

BUILD_INFO_PATH = Path(__file__).with_name("_build_info.json")


@dataclass(frozen=True)
class NativeModule:
    """A compiled module, or why it is not there.

    Attributes:
        name: full module name, such as ``"affectcodec._C"``.
        module: the imported module, ``None`` where it cannot be used.
        reason: empty when loaded; otherwise one sentence for the user.
    """

    name: str
    module: ModuleType | None
    reason: str = ""

    @property
    def available(self) -> bool:
        return self.module is not None


def native_disabled() -> bool:
    """Whether ``AFFECTCODEC_NO_NATIVE=1`` asks for the pure Python forms."""
    return os.environ.get("AFFECTCODEC_NO_NATIVE", "0").lower() not in ("", "0", "false", "no")


def build_info() -> dict[str, Any]:
    """The record that the build left behind; empty where nothing readable was written."""
    try:
        record = json.loads(BUILD_INFO_PATH.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _why_missing(name: str) -> str:
    part = name.rpartition(".")[2]
    recorded = build_info().get("left_out")
    if isinstance(recorded, dict) and recorded.get(part):
        return f"not built: {recorded[part]}"
    return "not built; install from a source tree with a C++17 compiler"


@functools.cache
def load(name: str = "affectcodec._C") -> NativeModule:
    """Import the compiled module ``name`` once; never raises.

    ``AFFECTCODEC_NO_NATIVE=1`` is read at the first call and then holds for the process, so that a
    run never mixes the two forms.
    """
    if native_disabled():
        return NativeModule(name, None, "switched off by AFFECTCODEC_NO_NATIVE")
    try:
        if importlib.util.find_spec(name) is None:
            return NativeModule(name, None, _why_missing(name))
        return NativeModule(name, importlib.import_module(name))
    except Exception as error:  # noqa: BLE001 - a stale binary may fail in any way; it is optional
        return NativeModule(
            name, None, f"found but does not load ({type(error).__name__}: {error}); reinstall"
        )
