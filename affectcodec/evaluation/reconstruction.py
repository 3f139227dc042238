# SPDX-License-Identifier: Apache-2.0
"""Command: reconstruction quality of codecs over the clips of a manifest.

    python -m affectcodec.evaluation.reconstruction --manifest data/manifest.csv --split test \\
        --datasets ravdess,nemo --codecs affectcodec:1.5,affectcodec:3,codec2:1300,codec2:2400 \\
        --out results/reconstruction

writes rows.jsonl (the cache), results.json and results.md into --out.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from affectcodec.audio import AudioError
from affectcodec.evaluation.baselines import BaselineError, Codec
from affectcodec.evaluation.codecs import make_codecs
from affectcodec.evaluation.metrics import METRICS_VERSION
from affectcodec.evaluation.reconstruct import (
    CALIBRATION_CLIPS,
    Delay,
    RowStore,
    calibrate,
    run,
)
from affectcodec.evaluation.report import markdown, summarise
from affectcodec.evaluation.runs import (
    parse_comparisons,
    parse_weights,
    shown_path,
    write_results,
)
from affectcodec.info import version_of
from affectcodec.manifest import Clip, evenly, read_manifest

DEFAULT_CODECS = (
    "affectcodec:0.75,affectcodec:1.5,affectcodec:3,affectcodec:6,"
    "codec2:1300,codec2:2400,codec2:3200"
)
# Each against the next lower rate that Codec 2 has; the table shows what both really used.
DEFAULT_COMPARISONS = (("affectcodec:1.5", "codec2:1300"), ("affectcodec:3", "codec2:2400"))
PACKAGES = (
    "affectcodec",
    "torch",
    "numpy",
    "pesq",
    "pystoi",
    "pyworld",
    "swift-f0",
    "onnxruntime",
    "soxr",
    "soundfile",
)


def shown_command(module: str, arguments: argparse.Namespace, paths: Sequence[str]) -> str:
    """The command line that repeats the run, leaving out what does not change its result."""
    parts = ["python", "-m", module]
    for name, value in vars(arguments).items():
        if name in ("jobs", "resume", "quiet") or value in (None, [], ""):
            continue
        for item in value if isinstance(value, list) else [value]:
            text = str(item)
            if name in paths:
                label, separator, path = text.rpartition("=")
                text = label + separator + shown_path(path)
            parts += [f"--{name.replace('_', '-')}", text]
    return shlex.join(parts)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m affectcodec.evaluation.reconstruction",
        description="Reconstruction quality of codecs over the clips of a manifest.",
    )
    parser.add_argument("--manifest", required=True, help="CSV: path, dataset, speaker, split")
    parser.add_argument("--split", default="dev", help="split of the manifest (default: dev)")
    parser.add_argument("--datasets", default="", help="comma-separated (default: all)")
    parser.add_argument("--codecs", default=DEFAULT_CODECS, help=f"default: {DEFAULT_CODECS}")
    parser.add_argument(
        "--weights",
        action="append",
        default=[],
        metavar="[LABEL=]PATH",
        help="weights of LABEL (default affectcodec); may be repeated; default: the shipped ones",
    )
    parser.add_argument(
        "--compare",
        action="append",
        default=[],
        metavar="CODEC=CODEC",
        help="paired difference (default: 1.5 against codec2:1300, 3 against codec2:2400)",
    )
    parser.add_argument("--limit", type=int, help="at most this many clips, evenly spread")
    parser.add_argument("--out", required=True, help="folder for rows.jsonl, results.json and .md")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default: 1)")
    parser.add_argument("--resume", action="store_true", help="go on from the rows in --out")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser


def find_delays(
    codecs: Sequence[Codec], clips: Sequence[Clip], cache: Path, *, quiet: bool
) -> dict[str, Delay]:
    """Delay of each codec, from `cache` (by fingerprint) where it was measured before."""
    known: dict[str, Any] = json.loads(cache.read_text()) if cache.exists() else {}
    clips = evenly(list(clips), CALIBRATION_CLIPS)
    delays = {}
    for codec in codecs:
        # another choice of clips may give another delay
        key = "|".join([codec.fingerprint, *(clip.path for clip in clips)])
        key = hashlib.blake2b(key.encode(), digest_size=12).hexdigest()
        if key not in known:
            if not quiet:
                print(f"delay of {codec.name} ...", file=sys.stderr)
            known[key] = asdict(calibrate(codec, clips))
            cache.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
        delays[codec.name] = Delay(**known[key])
    return delays


def main(argv: Sequence[str] | None = None) -> int:
    parser = build_parser()
    arguments = parser.parse_args(argv)
    try:
        page = evaluate(arguments)
    except (ValueError, AudioError, BaselineError, ImportError, RuntimeError) as error:
        parser.exit(1, f"error: {error}\n")
    print(page)
    return 0


def evaluate(arguments: argparse.Namespace) -> str:
    """Runs it all; the Markdown page."""
    import torch

    torch.set_num_threads(1)
    if arguments.jobs < 1:
        raise ValueError(f"jobs: got {arguments.jobs}, wanted 1 or more")
    names = [name for name in arguments.codecs.split(",") if name]
    comparisons = parse_comparisons(arguments.compare, names, DEFAULT_COMPARISONS)
    weights = parse_weights(arguments.weights)
    datasets = [name for name in arguments.datasets.split(",") if name]
    clips = read_manifest(
        arguments.manifest, split=arguments.split, datasets=datasets, limit=arguments.limit
    )
    out = Path(arguments.out)
    rows_file = out / "rows.jsonl"
    if rows_file.exists() and not arguments.resume:
        raise ValueError(
            f"out: {rows_file} has rows of an earlier run; add --resume to go on from them, or "
            "name another folder"
        )
    codecs = make_codecs(names, weights)
    out.mkdir(parents=True, exist_ok=True)
    delays = find_delays(codecs, clips, out / "delays.json", quiet=arguments.quiet)
    rows = run(
        clips,
        codecs,
        {name: delay.samples for name, delay in delays.items()},
        RowStore(rows_file),
        weights=weights,
        jobs=arguments.jobs,
        progress=not arguments.quiet,
    )
    summary = summarise(rows, names, comparisons)
    command = shown_command(
        "affectcodec.evaluation.reconstruction", arguments, ("manifest", "weights", "out")
    )
    results = {
        "command": command,
        "split": arguments.split,
        "datasets": datasets,
        "metrics_version": METRICS_VERSION,
        "versions": {name: version_of(name) for name in PACKAGES},
        "fingerprints": {codec.name: codec.fingerprint for codec in codecs},
        "delays": {name: asdict(delay) for name, delay in delays.items()},
        "results": summary,
    }
    title = f"Reconstruction, {arguments.split} split"
    page = markdown(summary, title=title, command=command, delays=delays)
    write_results(out, "results", results, page)
    return page


if __name__ == "__main__":
    sys.exit(main())
