# SPDX-License-Identifier: Apache-2.0
"""Peak extra memory of a forward and backward, as the system sees it.

    python -m benchmarks.memory --form kernels --batch 16 --frames 500

Measured in a process of its own: the high-water mark of resident memory during one call, less what
was resident before it. Everything counts, whoever allocated it: saved tensors, temporaries of the
kernels, the results, the gradients. The first call of the process warms up libraries on one frame,
and the allocator is told to give large blocks back to the system at once, so that the mark is not
that of an earlier call. Linux only.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

STATUS = Path("/proc/self/status")
RESET = Path("/proc/self/clear_refs")


def available() -> bool:
    """Whether this system tells, and lets one reset, the high-water mark."""
    return STATUS.is_file() and RESET.exists()


def _resident(name: str) -> int:
    for line in STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"{STATUS} has no field {name}")


def peak_extra_bytes(call: Callable[[], object]) -> int:
    """High-water mark of resident memory during ``call``, less what was resident before."""
    gc.collect()
    before = _resident("VmRSS")
    RESET.write_text("5", encoding="ascii")  # resets the high-water mark
    kept = call()  # alive until the mark is read
    peak = _resident("VmHWM") - before
    del kept
    return max(0, peak)


def measurement(form: str, size: Any, smoke: bool) -> Callable[[], dict[str, Any]]:
    """What a contender of ``forward+backward`` measures beside its time."""

    def measure() -> dict[str, Any]:
        if not available():
            return {}
        options = ["--form", form, "--batch", str(size.batch), "--frames", str(size.frames)]
        if size.channels_last:
            options.append("--channels-last")
        if smoke:
            options.append("--smoke")
        # Fixed thresholds: by default glibc raises them with use, and then keeps large blocks.
        environment = os.environ | {
            "MALLOC_MMAP_THRESHOLD_": "131072",
            "MALLOC_TRIM_THRESHOLD_": "131072",
        }
        found = subprocess.run(
            [sys.executable, "-m", "benchmarks.memory", *options],
            cwd=Path(__file__).resolve().parents[1],
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert found.returncode == 0, f"benchmarks.memory failed: {found.stderr[-2000:]}"
        return dict(json.loads(found.stdout.splitlines()[-1]))

    return measure


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.memory", description=(__doc__ or "").strip()
    )
    parser.add_argument("--form", choices=("eager", "codespace", "kernels"), required=True)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--frames", type=int, default=500)
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--smoke", action="store_true", help="tiny quantizer")
    args = parser.parse_args(argv)

    from benchmarks.contenders import EAGER, module_call
    from benchmarks.workload import Size, Workload

    arguments = {
        EAGER: {"form": "naive"},
        "codespace": {"backend": "reference"},
        "kernels": {"backend": "cpu"},
    }[args.form]

    def call(batch: int, frames: int) -> Callable[[], object]:
        work = Workload(Size(batch, frames, args.channels_last), args.smoke)
        return module_call("forward+backward", work, work.quantizer(**arguments))

    call(1, 1)()
    measured = call(args.batch, args.frames)
    peaks = [peak_extra_bytes(measured) for _ in range(args.repeats)]
    print(json.dumps({"peak_extra_bytes": statistics.median(peaks), "peaks": peaks}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
