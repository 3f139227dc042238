# SPDX-License-Identifier: Apache-2.0
"""Ablation runs: plan, budget, and training over as many sittings as it takes.

`affectcodec.training.ablations` makes the configurations; they differ in one named choice each, and
have equal bits and an equal budget of decoded audio. Each run is trained by `affectcodec train` in
a process of its own, which saves a checkpoint when it is interrupted; a sitting ends after the last
run or when its hours are over, and the next one goes on.

    out/ablation.json           what is planned, and what each run has cost so far
    out/NAME-sSEED/             run folder; its `weights` are there when it is finished
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from affectcodec.training.ablations import ablations
from affectcodec.training.config import TrainConfig
from affectcodec.training.run_state import latest_checkpoint

HEADLINE = ("bd-rfsq", "rfsq")
PLAN_NAME = "ablation.json"
WEIGHTS = "weights"
_GRACE_S = 300.0  # for a checkpoint to be written after the interrupt


@dataclass(frozen=True)
class Run:
    """One configuration with one seed."""

    name: str
    seed: int
    config: TrainConfig

    @property
    def label(self) -> str:
        return f"{self.name}-s{self.seed}"


def plan_runs(
    base: TrainConfig, *, names: Sequence[str] = (), seeds: int = 3, other_seeds: int = 1
) -> list[Run]:
    """Runs in the order in which they are trained: first seeds of all, then further ones.

    Args:
        names: some of the configurations (default: all).
        seeds: of the headline pair, blocks against dense.
        other_seeds: of each other configuration.

    Raises:
        ValueError: an unknown name, or fewer than one seed.
    """
    configs = ablations(base)
    unknown = sorted(set(names) - set(configs))
    if unknown:
        raise ValueError(f"ablations: got {unknown}, wanted some of {list(configs)}")
    if min(seeds, other_seeds) < 1:
        raise ValueError(f"seeds: got {seeds} and {other_seeds}, wanted 1 or more")
    chosen = [name for name in configs if not names or name in names]
    counts = {name: seeds if name in HEADLINE else other_seeds for name in chosen}
    return [
        Run(name, seed, dataclasses.replace(configs[name], seed=seed))
        for seed in range(1, max(counts.values()) + 1)
        for name in chosen
        if seed <= counts[name]
    ]


def decoded_seconds(config: TrainConfig) -> float:
    """Seconds of audio that a run decodes in training: what equal budget means here."""
    crop = config.crop_frames * config.codec.hop_length / config.codec.sample_rate
    return config.steps * config.batch_size * max(1, len(config.rates)) * crop


def check_equal(runs: Sequence[Run]) -> None:
    """Equal bits and an equal budget.

    Raises:
        ValueError: runs that differ in either.
    """
    bits = {run.label: tuple(run.config.codec.kbps(k) for k in (1, 2)) for run in runs}
    seconds = {run.label: round(decoded_seconds(run.config), 3) for run in runs}
    for what, values in (("kbit/s", bits), ("decoded seconds", seconds)):
        if len(set(values.values())) > 1:
            raise ValueError(f"ablations: {what} differ between runs: {values}")


class Ledger:
    """`ablation.json`: the plan, and the seconds and steps of each run.

    Raises:
        ValueError: the folder holds another plan.
    """

    def __init__(self, out: Path, runs: Sequence[Run]) -> None:
        self.path = out / PLAN_NAME
        planned = {run.label: run.config.to_dict() for run in runs}
        self.spent: dict[str, dict[str, float]] = {}
        if self.path.is_file():
            stored = json.loads(self.path.read_text(encoding="utf-8"))
            known = stored["runs"]
            # to and from JSON: tuples have become lists
            fresh = json.loads(json.dumps(planned))
            changed = [name for name in fresh if name in known and known[name] != fresh[name]]
            if changed:
                raise ValueError(
                    f"out: {out} was begun with another configuration of {', '.join(changed)}; "
                    "name another folder, or ask for the same configuration"
                )
            self.spent = stored["spent"]
            planned = {**known, **planned}
        self.planned = planned

    def add(self, label: str, steps: int, seconds: float) -> None:
        """Books a sitting's share of a run, and writes the file."""
        entry = self.spent.setdefault(label, {"steps": 0.0, "seconds": 0.0})
        entry["steps"] += steps
        entry["seconds"] += seconds
        self.write()

    def write(self) -> None:
        text = json.dumps({"runs": self.planned, "spent": self.spent}, indent=1)
        temporary = self.path.with_suffix(".new")
        temporary.write_text(text + "\n", encoding="utf-8")
        os.replace(temporary, self.path)

    def seconds_a_step(self, name: str) -> float | None:
        """Measured over all runs of a configuration, else of all; None before the first."""
        own = [e for label, e in self.spent.items() if label.rpartition("-s")[0] == name]
        for some in (own, list(self.spent.values())):
            steps = sum(entry["steps"] for entry in some)
            if steps:
                return sum(entry["seconds"] for entry in some) / steps
        return None


def is_done(out: Path, run: Run) -> bool:
    """Whether a run's weights are there."""
    return (out / run.label / WEIGHTS / "config.json").is_file()


def steps_of(out: Path, run: Run) -> int:
    """Step of the newest checkpoint, 0 without one."""
    folder = out / run.label
    if is_done(out, run):
        return run.config.steps
    checkpoint = latest_checkpoint(folder) if folder.is_dir() else None
    digits = "".join(c for c in checkpoint.stem if c.isdigit()) if checkpoint else ""
    return int(digits or 0)


def budget(out: Path, runs: Sequence[Run], ledger: Ledger) -> str:
    """What is planned, what is done, and what it will still cost by the pace so far."""
    steps = runs[0].config.steps
    audio = decoded_seconds(runs[0].config) / 3600.0
    lines = [
        f"{len(runs)} runs of {steps} steps, {audio:.1f} hours of decoded audio each, all at "
        f"{runs[0].config.codec.kbps(1):g} kbit/s a stage:"
    ]
    left: float | None = 0.0
    for run in runs:
        done = steps_of(out, run)
        pace = ledger.seconds_a_step(run.name)
        spent = ledger.spent.get(run.label, {}).get("seconds", 0.0) / 3600.0
        rest = None if pace is None else (run.config.steps - done) * pace / 3600.0
        left = None if left is None or rest is None else left + rest
        lines.append(
            f"  {run.label:<22} {done:>7} of {run.config.steps} steps, {spent:.1f} h so far"
            + ("" if rest is None else f", {rest:.1f} h to go")
        )
    lines.append(
        "Hours to go are not known before the first run has made some steps."
        if left is None
        else f"To go: {left:.1f} hours at the pace so far."
    )
    return "\n".join(lines)


def train_command(
    run: Run, folder: Path, manifests: Sequence[Path], cache: Path, threads: int | None
) -> list[str]:
    """`affectcodec train` for a run, resuming where it has a checkpoint."""
    command = [sys.executable, "-m", "affectcodec", "train"]
    for manifest in manifests:
        command += ["--manifest", str(manifest)]
    command += ["--config", str(folder / "planned.json"), "--out", str(folder)]
    command += ["--cache", str(cache), "--export", str(folder / WEIGHTS)]
    if threads is not None:
        command += ["--threads", str(threads)]
    if folder.is_dir() and latest_checkpoint(folder) is not None:
        command.append("--resume")
    return command


def train_run(
    run: Run,
    out: Path,
    manifests: Sequence[Path],
    *,
    seconds: float | None = None,
    threads: int | None = None,
    environment: Mapping[str, str] | None = None,
) -> bool:
    """Trains one run until it is finished or `seconds` are over; True when it is finished.

    Raises:
        RuntimeError: training failed; its last words.
        KeyboardInterrupt: interrupted; the run has saved a checkpoint.
    """
    folder = out / run.label
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(run.config.to_dict(), indent=1) + "\n"
    (folder / "planned.json").write_text(text, encoding="utf-8")
    log = folder / "train.log"
    with log.open("a", encoding="utf-8") as file:
        process = subprocess.Popen(
            train_command(run, folder, manifests, out / "cache", threads),
            stdout=file,
            stderr=subprocess.STDOUT,
            env=None if environment is None else {**os.environ, **environment},
        )
        try:
            code = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            code = _interrupt(process)
        except KeyboardInterrupt:
            # the terminal has sent it to the child, too
            process.wait(timeout=_GRACE_S)
            raise
    if is_done(out, run):
        return True
    if code not in (0, 130, -signal.SIGINT, -signal.SIGTERM):
        words = log.read_text(encoding="utf-8", errors="replace").strip()[-500:]
        raise RuntimeError(f"{run.label}: training ended with exit code {code}: {words}")
    return False


def _interrupt(process: subprocess.Popen[Any]) -> int:
    # Not SIGINT: below nohup or a shell's background job children ignore it from the start.
    process.terminate()
    try:
        return process.wait(timeout=_GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def train_all(
    runs: Sequence[Run],
    out: Path,
    manifests: Sequence[Path],
    ledger: Ledger,
    *,
    hours: float | None = None,
    threads: int | None = None,
    say: Any = print,
) -> bool:
    """One sitting: trains what is not finished, in order; True when all are finished.

    Args:
        hours: end the sitting after these; the run under way saves a checkpoint.
        say: takes lines of progress.
    """
    end = None if hours is None else time.monotonic() + 3600.0 * hours
    for run in runs:
        if is_done(out, run):
            continue
        rest = None if end is None else end - time.monotonic()
        if rest is not None and rest <= 0:
            return False
        before, begun = steps_of(out, run), time.monotonic()
        say(f"{run.label}: from step {before} of {run.config.steps}")
        try:
            finished = train_run(run, out, manifests, seconds=rest, threads=threads)
        finally:
            steps = max(0, steps_of(out, run) - before)
            ledger.add(run.label, steps, time.monotonic() - begun if steps else 0.0)
        if not finished:
            return False
    return True
