# SPDX-License-Identifier: Apache-2.0
"""Builds what is missing, where this is a source tree and the tools are there."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("_C", "_cpu", "_cuda")
COMMAND = ("-m", "pip", "install", "--no-build-isolation", "--no-deps", "-e")
TIMEOUT_SECONDS = 3600


@dataclass(frozen=True)
class Built:
    """What came of it: whether a build ran and went well, and a sentence for the report."""

    ran: bool
    succeeded: bool
    detail: str


def missing(package: Path = ROOT / "affectcodec") -> list[str]:
    """Native parts without a binary; the CUDA one only where nvcc is."""
    parts = [part for part in PARTS if part != "_cuda" or shutil.which("nvcc")]
    return [part for part in parts if not list(package.glob(f"{part}.*"))]


def build_missing(
    root: Path = ROOT, run: Callable[..., subprocess.CompletedProcess[str]] = subprocess.run
) -> Built:
    """Build the package in place, if anything can be built that is not there; never raises."""
    parts = missing(root / "affectcodec")
    if not parts:
        return Built(False, True, "nothing is missing that could be built here")
    if not (root / "setup.py").is_file():
        return Built(
            False, False, f"{', '.join(parts)} missing; this is no source tree to build them from"
        )
    try:
        done = run(
            [sys.executable, *COMMAND, str(root)],
            capture_output=True, text=True, errors="replace", timeout=TIMEOUT_SECONDS, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return Built(True, False, f"the build did not end well: {error}")
    left = missing(root / "affectcodec")
    if done.returncode or left:
        said = (done.stdout + done.stderr).strip()[-1000:]
        return Built(True, False, f"still missing: {', '.join(left) or 'nothing'}; {said}")
    return Built(True, True, f"built {', '.join(parts)}")
