# SPDX-License-Identifier: Apache-2.0
"""Access to the WORLD vocoder's compiled module of the `pyworld` package."""

from __future__ import annotations

import functools
import importlib.util
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader
from pathlib import Path
from types import ModuleType


@functools.cache
def load_world() -> ModuleType:
    """The module with `dio`, `stonemask`, `harvest`.

    `pyworld/__init__.py` (up to 0.3.5) imports `pkg_resources`, which setuptools 81 and later no
    longer have, only to find its own version. The compiled module needs none of it, so it is
    loaded straight from its file: this works beside any setuptools.

    Raises:
        ImportError: pyworld is not installed or has no compiled module.
    """
    spec = importlib.util.find_spec("pyworld")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for suffix in EXTENSION_SUFFIXES:
            path = Path(folder) / f"pyworld{suffix}"
            if path.is_file():
                loader = ExtensionFileLoader("pyworld.pyworld", str(path))
                module_spec = importlib.util.spec_from_file_location(
                    "pyworld.pyworld", path, loader=loader
                )
                assert module_spec is not None
                module = importlib.util.module_from_spec(module_spec)
                loader.exec_module(module)
                return module
    raise ImportError(
        "F0 needs the package pyworld, which is not installed: pip install 'affectcodec[eval]' "
        "(or pip install pyworld)."
    )
