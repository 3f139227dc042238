# SPDX-License-Identifier: Apache-2.0
"""A run of ``affectcodec tokenize`` seen from outside: rate, memory, processes, output."""

from __future__ import annotations

import hashlib
import os
import signal
import statistics
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq

_MARK = "AFFECTCODEC_RUN"  # in the environment of a run, so that all its processes are found
_EVERY = 2.0  # seconds between two looks at memory


@dataclass
class Run:
    """One started command and what was seen of it."""

    process: subprocess.Popen[bytes]
    mark: str
    started: float
    log: Path
    target: Path
    memory: list[tuple[int, float]] = field(default_factory=list)  # parts written, MB in all

    def processes(self) -> list[int]:
        """Ids of all processes of the run, those that outlived their parent included."""
        return marked(self.mark)

    def wait(self, timeout: float) -> int:
        """Exit status; memory is looked at meanwhile."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                return self.process.wait(_EVERY)
            except subprocess.TimeoutExpired:
                self.memory.append((written(self.target), megabytes(self.processes())))
                if time.monotonic() > deadline:
                    self.kill(everything=True)
                    raise

    def kill(self, everything: bool) -> None:
        """SIGKILL to the command, or to all processes of the run."""
        victims = self.processes() if everything else []
        for pid in [self.process.pid, *victims]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait()


def start(command: list[str], target: Path) -> Run:
    """Start a command that writes to ``target``; what it says goes to a log beside that."""
    mark = uuid.uuid4().hex
    environment = {
        **os.environ,
        _MARK: mark,
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DISABLE_IMPORT_WARNING": "1",
        # Ray lowers the priority of its workers; beside other work that would be what is measured.
        "RAY_worker_niceness": "0",
    }
    log = target.with_name(target.name + ".log")
    with log.open("ab") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environment)
    return Run(process, mark, time.monotonic(), log, target)


def tokenize(source: Path, target: Path, *more: str) -> list[str]:
    """The command line."""
    command = [sys.executable, "-m", "affectcodec", "tokenize", str(source), str(target), "-q"]
    return [*command, *more]


def marked(mark: str) -> list[int]:
    """Processes with a mark in their environment, zombies left out."""
    wanted, found = f"{_MARK}={mark}".encode(), []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if wanted in (entry / "environ").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def megabytes(processes: list[int]) -> float:
    """Memory of processes together; pages that they share count once (PSS)."""
    total = 0
    for pid in processes:
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
    return total / 1024


def growth(memory: list[tuple[int, float]], parts: int) -> float:
    """Median of the last quarter of the work over that of the second, start and end left out."""
    values = [mb for done, mb in memory if 0 < done < parts]
    quarter = len(values) // 4
    if quarter < 2:
        return float("nan")
    middle = statistics.median(values[quarter : 2 * quarter])
    return statistics.median(values[-quarter:]) / middle


# -- output -------------------------------------------------------------------------------------


def checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a run but the lock."""
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name != ".lock"
    }


def written(folder: Path) -> int:
    """Parts that are there."""
    return len(list((folder / "tokens").glob("part-*")))


def ids(folder: Path) -> tuple[list[str], list[str]]:
    """Ids of all clips and of those in quarantine, as often as they occur."""
    tokens: list[str] = []
    for path in sorted((folder / "tokens").glob("part-*.parquet")):
        tokens += pq.read_table(path, columns=["id"])["id"].to_pylist()
    return tokens, pq.read_table(folder / "quarantine.parquet")["id"].to_pylist()


def steady_rate(folder: Path, skip: int, sample_rate: int = 16000) -> float:
    """Seconds of audio a second between the ``skip``-th part and the last, by times of files.

    Processes start, and weights are loaded, before the first part.
    """
    parts = sorted((folder / "tokens").glob("part-*.parquet"), key=lambda p: p.stat().st_mtime_ns)
    times = [p.stat().st_mtime_ns / 1e9 for p in parts]
    if len(parts) <= skip + 1:
        return float("nan")
    samples = sum(
        sum(pq.read_table(p, columns=["num_samples"])["num_samples"].to_pylist())
        for p in parts[skip:]
    )
    return samples / sample_rate / (times[-1] - times[skip - 1])
